"""Large pictures wait for each other's memory, small ones for nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from tests.support import wait_until
from worker.pixels import SMALL, Pixels
from worker.room import HandedBack, Room

MEGA = 10**6


def test_what_does_not_fit_waits_in_its_turn_and_a_small_picture_does_not() -> None:
    pixels, order, leave = Pixels(10 * MEGA), list[str](), {name: Event() for name in ("first", "large", "fits")}

    def work(name: str, size: int) -> None:
        with pixels.held(size):
            order.append(name)
            leave[name].wait(20)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(work, "first", 6 * MEGA)]
        wait_until(lambda: order == ["first"])
        done.append(pool.submit(work, "large", 8 * MEGA))
        wait_until(lambda: len(pixels._waiting) == 1)
        done.append(pool.submit(work, "fits", 3 * MEGA))
        wait_until(lambda: len(pixels._waiting) == 2)
        with pixels.held(SMALL):
            assert order == ["first"], "nobody overtakes the large one but the small"
        leave["first"].set()
        wait_until(lambda: order == ["first", "large"])
        leave["large"].set()
        wait_until(lambda: order == ["first", "large", "fits"])
        leave["fits"].set()
        for one in done:
            one.result(20)


def test_a_picture_larger_than_all_there_is_has_it_to_itself() -> None:
    pixels = Pixels(2 * MEGA)
    with pixels.held(40 * MEGA):
        assert pixels._taken == 40 * MEGA
    room = Room(1)
    place = room.enter(0)
    assert place is not None
    room.close()
    with pixels.held(2 * MEGA), pytest.raises(HandedBack), pixels.held(40 * MEGA, place):
        raise AssertionError("there was no room")
    assert (pixels._taken, len(pixels._waiting)) == (0, 0)
