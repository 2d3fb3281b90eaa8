"""Who may be in the engine at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from worker.room import HandedBack, Place, Room


def entered(room: Room) -> Place:
    place = room.enter(0)
    assert place is not None
    return place


def test_there_are_so_many_places_and_leaving_twice_frees_one() -> None:
    room = Room(2)
    first, _ = entered(room), entered(room)
    assert room.enter(0) is None
    first.leave()
    first.leave()
    entered(room)
    assert room.enter(0) is None


def test_one_that_is_alone_waits_for_the_others_and_keeps_them_out_to_its_end() -> None:
    room, inside, go_on = Room(4), Event(), Event()
    other, suspect = entered(room), entered(room)

    def run() -> None:
        with suspect.alone():
            inside.set()
            suspect.leave()  # its engine is done, its files are not stored yet
            assert go_on.wait(20)
        suspect.leave()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run)
        assert not inside.wait(0.1), "the other is still there"
        assert room.enter(0) is None, "and no further one comes in"
        other.leave()
        assert inside.wait(20)
        assert room.enter(0) is None
        go_on.set()
        done.result(20)
    entered(room)


def test_of_several_that_must_be_alone_one_is_inside_at_a_time() -> None:
    room, together, most = Room(3), 0, 0
    places = [entered(room) for _ in range(3)]

    def run(place: Place) -> None:
        nonlocal together, most
        with place.alone():
            together += 1
            most = max(most, together)
            Event().wait(0.02)
            together -= 1
        place.leave()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, places))
    assert most == 1
    entered(room)


def test_a_room_that_closes_sends_those_away_who_wait_to_be_alone() -> None:
    room = Room(2)
    entered(room)
    suspect = entered(room)
    with ThreadPoolExecutor(1) as pool:

        def run() -> None:
            with suspect.alone():
                raise AssertionError("never alone")

        waiting = pool.submit(run)
        room.close()
        with pytest.raises(HandedBack):
            waiting.result(20)
