"""How many pixels the edits of a worker may work on at their pictures' own size: memory is taken there, and waited
for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from jobs.processes import give_back_memory
from worker.room import HandedBack, Place

PIXELS = 48 * 10**6
"""At most, of the pictures that are read, drawn and encoded at one time, some 30 bytes each; one picture of more than
that has them to itself."""
SMALL = 10**6
"""Pictures of so many pixels neither wait nor count: the threads bound them."""
LOOK_S = 0.5


class Pixels:
    """Edits are let in first come, first served, so that a large picture is never overtaken for good."""

    def __init__(self, limit: int = PIXELS) -> None:
        self._limit, self._taken = limit, 0
        self._waiting: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def held(self, pixels: int, place: Place | None = None) -> Iterator[None]:
        """The block may work on so many. Raises HandedBack where `place` is given and its room is closed meanwhile."""
        if pixels <= SMALL:
            yield
            return
        self._enter(pixels, place)
        try:
            yield
        finally:
            give_back_memory()
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()

    def _enter(self, pixels: int, place: Place | None) -> None:
        me = object()

        def fits() -> bool:
            return self._waiting[0] is me and (self._taken == 0 or self._taken + pixels <= self._limit)

        with self._changed:
            self._waiting.append(me)
            try:
                while not self._changed.wait_for(fits, LOOK_S):
                    if place is not None and place.closing:
                        raise HandedBack("the worker stops")
                self._taken += pixels
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()
