"""With this folder on PYTHONPATH, Python's wall clock is wrong by CLOCK_SKEWS seconds, from the start of the process.

CLOCK_SKEWS="-60,60": a worker with `--index 1` is 60 s ahead; one with `--index 0`, and any process without an index,
is 60 s behind. Python imports the module by itself.
"""

import datetime
import os
import sys
import time
from datetime import datetime as RealDatetime
from typing import Any

_words = sys.orig_argv
_index = int(_words[_words.index("--index") + 1]) if "--index" in _words else 0
_skews = [float(text) for text in os.environ.get("CLOCK_SKEWS", "0").split(",")]
SKEW_S = _skews[_index % len(_skews)]

_time, _time_ns = time.time, time.time_ns


class _AnyDatetime(type):
    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, RealDatetime)


class SkewedDatetime(RealDatetime, metaclass=_AnyDatetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return RealDatetime.now(tz) + datetime.timedelta(seconds=SKEW_S)

    @classmethod
    def utcnow(cls) -> Any:
        return RealDatetime.utcnow() + datetime.timedelta(seconds=SKEW_S)


datetime.datetime = SkewedDatetime  # type: ignore[misc]
time.time = lambda: _time() + SKEW_S
time.time_ns = lambda: _time_ns() + int(SKEW_S * 1e9)
