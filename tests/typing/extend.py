"""The second door, as those who write an adapter or a system use it. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

import random
from typing import assert_type

from outlast import Backoff, Fault, Kind
from outlast.extend import BackoffState, Jitter, attach, attached, clean, cut, ramp_due, ramp_length_s

error = OSError()
attach(error, Fault(Kind.TRANSIENT, "gone", "gone away"))
assert_type(attached(error), Fault | None)
assert_type(clean("password=x"), str)
assert_type(cut("long", 3), str)
assert_type(ramp_due(10, 1.0), int)
assert_type(ramp_length_s(10), float)

policy = Backoff(base_s=0.1, cap_s=5.0, jitter=Jitter.FULL)
state, wait_s = policy.next(BackoffState(), 0.0, random.Random())
assert_type(state, BackoffState)
assert_type(wait_s, float | None)
