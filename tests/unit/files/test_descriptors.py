"""The cache of open files: bounded, and nobody's file is closed under him."""

from __future__ import annotations

import errno
import os
import sys
import threading
from contextlib import ExitStack

import pytest

from fake_files import FakeFiles
from outlast.extend import Descriptors


def files_of(count: int) -> FakeFiles:
    files = FakeFiles()
    for number in range(count):
        files.put(f"/{number}", bytes([65 + number]) * 100)
    return files


def cached(files: FakeFiles, limit: int, wait_s: float = 30.0) -> Descriptors[int, int]:
    return Descriptors(limit, lambda key: files.open(f"/{key}", os.O_RDONLY), files.close, wait_s=wait_s)


def test_no_reader_gets_a_byte_of_another_file_however_often_descriptors_are_reused() -> None:
    files = files_of(3)
    descriptors = cached(files, 2)
    wrong, errors = list[bytes](), list[BaseException]()

    def read(reader: int) -> None:
        try:
            for turn in range(60):
                key = (reader + turn) % 3
                with descriptors.use(key) as descriptor:
                    data = files.read_at(descriptor, 10, turn)
                    if data != bytes([65 + key]) * 10:
                        wrong.append(data)
        except BaseException as error:  # noqa: BLE001 - to be shown by the thread of the test
            errors.append(error)

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch_s)
    assert (wrong, errors) == ([], [])
    assert files.opened_most <= 2
    assert files.calls["open"] > 3, "they took turns"
    descriptors.close()
    assert files.opened == 0


def test_the_one_used_longest_ago_makes_room() -> None:
    files = files_of(3)
    descriptors = cached(files, 2)
    for key in (0, 1, 0, 2):
        with descriptors.use(key):
            pass
    before = files.calls["open"]
    with descriptors.use(0), descriptors.use(2):
        assert files.calls["open"] == before
    with descriptors.use(1):
        assert files.calls["open"] == before + 1


def test_one_in_use_is_not_closed_and_a_wait_for_another_ends() -> None:
    files = files_of(3)
    descriptors = cached(files, 2, wait_s=0.0)
    with descriptors.use(0) as first, descriptors.use(1):
        with pytest.raises(OSError, match="all of 2 descriptors were in use for 0 s") as caught, descriptors.use(2):
            pass
        assert caught.value.errno == errno.EMFILE
        with descriptors.use(0) as again:
            assert again == first
    with descriptors.use(2) as third:
        assert files.read_at(third, 1, 0) == b"C"


def test_a_wait_ends_when_another_leaves() -> None:
    files = files_of(2)
    descriptors = cached(files, 1)
    got = list[bytes]()

    def read() -> None:
        with descriptors.use(1) as descriptor:
            got.append(files.read_at(descriptor, 1, 0))

    with descriptors.use(0):
        thread = threading.Thread(target=read)
        thread.start()
    thread.join(60)
    assert got == [b"B"]


def test_what_is_forgotten_in_use_is_closed_by_its_last_user_and_opened_again_by_the_next() -> None:
    files = files_of(1)
    descriptors = cached(files, 2)
    with ExitStack() as users:
        first = users.enter_context(descriptors.use(0))
        descriptors.forget(0)
        assert files.read_at(first, 1, 0) == b"A"
        with descriptors.use(0) as second:
            assert second != first
        assert descriptors.open_count == 2
    assert (descriptors.open_count, files.opened) == (1, 1)
    descriptors.forget(0)
    descriptors.forget(0)
    assert (descriptors.open_count, files.opened) == (0, 0)


def test_a_failure_to_open_costs_no_place() -> None:
    files = files_of(2)
    descriptors = cached(files, 1, wait_s=0.0)
    files.fail("open", errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"), descriptors.use(0):
        pass
    with descriptors.use(0):
        pass
    with descriptors.use(1):
        pass
    assert descriptors.open_count == 1


def test_several_who_ask_at_once_open_it_once() -> None:
    files = files_of(1)
    descriptors = cached(files, 2)
    got = list[int]()

    def use() -> None:
        with descriptors.use(0) as descriptor:
            got.append(descriptor)

    threads = [threading.Thread(target=use) for _ in range(3)]
    with files.hang("open") as hang:
        for thread in threads:
            thread.start()
        assert hang.entered.wait(60)
    for thread in threads:
        thread.join(60)
    assert (len(set(got)), files.calls["open"]) == (1, 1)


def test_at_least_one_is_needed() -> None:
    with pytest.raises(ValueError, match="at least one descriptor is needed, not 0"):
        cached(files_of(0), 0)
