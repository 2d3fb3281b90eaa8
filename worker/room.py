"""Who may be in the engine: so many edits, or one alone under which workers have died."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from foi_core.errors import FoiError


class HandedBack(FoiError):
    """This worker stops, or cannot store what it makes; another may run the edit."""


class Room:
    """`size` places. `turn` is held by the one thread that looks into the queue: more would only ask Redis the same."""

    def __init__(self, size: int) -> None:
        self.turn = Lock()
        self._size, self._taken, self._waiting_alone, self._closed = size, 0, 0, False
        self._changed = Condition()

    def enter(self, timeout: float) -> Place | None:
        """A place; None where none becomes free in time."""
        with self._changed:
            if not self._changed.wait_for(self._is_open, timeout):
                return None
            self._taken += 1
        return Place(self)

    def close(self) -> None:
        """Those who wait to be alone get HandedBack."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_open(self) -> bool:
        return self._taken < self._size and not self._waiting_alone


class Place:
    def __init__(self, room: Room) -> None:
        self._room, self._left, self._alone = room, False, False

    def leave(self) -> None:
        """Fine when it has been left already. One that is alone stays to its very end: the next might kill the worker
        before it has stored what it made."""
        room = self._room
        with room._changed:
            if not self._left and not self._alone:
                self._left = True
                room._taken -= 1
                room._changed.notify_all()

    @property
    def closing(self) -> bool:
        """Whether the worker stops."""
        return self._room._closed

    def pause(self, seconds: float) -> None:
        """Raises HandedBack where the room is closed meanwhile."""
        with self._room._changed:
            if self._room._changed.wait_for(lambda: self._room._closed, seconds):
                raise HandedBack("the worker stops")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until nobody else is inside, and keeps others out: if the worker dies now, it is this edit's doing.

        Raises HandedBack where the room is closed meanwhile.
        """
        room = self._room
        with room._changed:
            room._taken -= 1
            room._waiting_alone += 1
            room._changed.notify_all()
            room._changed.wait_for(lambda: room._closed or room._taken == 0)
            room._taken += 1
            if room._closed:
                room._waiting_alone -= 1
                raise HandedBack("the worker stops")
            self._alone = True
        try:
            yield
        finally:
            with room._changed:
                self._alone = False
                room._waiting_alone -= 1
                room._changed.notify_all()
