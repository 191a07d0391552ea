"""The streams that a start finds, after a process ended in the middle of making or removing one."""

from __future__ import annotations

from random import Random

import pytest
from log_rig import ROOT, Rig, one

from fake_files import Died
from outlast.streams._catalogue import look_over
from outlast.streams._log import remove


def make(rig: Rig) -> None:
    rig.create()


def unmake(rig: Rig) -> None:
    rig.log.delete()


@pytest.mark.parametrize("power", ["stays", "is cut"])
@pytest.mark.parametrize("act", [make, unmake])
def test_whatever_call_was_the_last_it_is_a_stream_or_what_is_removed_and_never_unknown(act: object, power: str) -> None:
    calls, is_done = 0, False
    while not is_done:
        calls += 1
        rig = Rig(rng=Random(calls), is_made=act is unmake)
        if act is unmake:
            rig.log.append([one()], 1)
        rig.files.die_after(calls)
        try:
            act(rig)  # type: ignore[operator]
            is_done = True
        except Died:
            pass
        if power == "stays":
            rig.files.crash()
        else:
            rig.files.power_cut()
        found = look_over(ROOT, rig.files)
        assert not found.unknown
        for path in found.gone:
            remove(path, rig.files)
        assert len(rig.files.names(ROOT)) == len(found.streams)
        if is_done:
            assert len(found.streams) == (act is make)
    assert calls > 5
