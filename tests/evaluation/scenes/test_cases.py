"""The scenes that are judged: always the same, apart from each other, and with a true truth."""

from __future__ import annotations

from functools import reduce

import pytest

from demo.edits import Edit
from demo.scenes import SMALL, Scene, Thing
from evaluation.scenes.cases import Case, cases

FIRST = 10_000_000
BALL = Thing("ball", "red", 32, 100, 16)
STAR = Thing("star", "blue", 96, 100, 20)


def scene_of(*things: Thing) -> Scene:
    return Scene("blue", "grass", 60, things, texture=3)


def recolour(index: int, colour: str) -> Edit:
    def apply(scene: Scene) -> Scene:
        thing = scene.things[index]
        return scene.with_thing(index, Thing(thing.kind, colour, thing.x, thing.y, thing.radius))

    return Edit("recolour", f"make it {colour}", "it", f"thing {index}", apply)


def background(kind: str, **what: object) -> Edit:
    return Edit(kind, f"change the {kind}", kind, kind, lambda s: Scene(**{**vars(s), **what}))


def identity(case: Case) -> tuple[int, Scene, tuple[str, ...], bytes]:
    return case.seed, case.scene, case.texts, case.target.tobytes()


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    return cases(FIRST, {1: 12, 2: 12, 3: 12, 4: 12})


def test_each_case_has_as_many_edits_as_asked_for_and_each_changes_something(drawn: list[Case]) -> None:
    assert [len(case.edits) for case in drawn] == [1] * 12 + [2] * 12 + [3] * 12 + [4] * 12
    for case in drawn:
        assert "nothing" not in case.kinds
        assert len({edit.subject for edit in case.edits}) == len(case.edits)
        assert case.changed.shape == case.regions.shape == (len(case.edits), 128, 128)
        assert case.changed.any(axis=(1, 2)).all()
        assert not (case.changed & ~case.regions).any()


def test_the_same_seed_draws_the_same_cases(drawn: list[Case]) -> None:
    assert [identity(c) for c in cases(FIRST, {4: 3, 2: 3})] == [identity(c) for c in (*drawn[12:15], *drawn[36:39])]


def test_no_two_cases_share_a_scene(drawn: list[Case]) -> None:
    assert len({case.seed for case in drawn}) == len({case.scene for case in drawn}) == len(drawn)


def test_asking_for_more_cases_of_one_count_leaves_the_others_as_they_were() -> None:
    few, more = cases(FIRST, {1: 4, 2: 4}), cases(FIRST, {1: 9, 2: 4})
    assert [identity(c) for c in few] == [identity(c) for c in (*more[:4], *more[9:])]


def test_cases_of_a_smaller_world_hold_only_what_it_has() -> None:
    for case in cases(FIRST, {1: 12, 4: 12}, SMALL):
        after = reduce(lambda scene, edit: edit.apply(scene), case.edits, case.scene)
        for scene in (case.scene, after):
            assert scene.sky in SMALL.skies
            assert scene.ground in SMALL.grounds
            assert {thing.kind for thing in scene.things} <= set(SMALL.kinds)
            assert {thing.colour for thing in scene.things} <= set(SMALL.colours)
        assert set(case.kinds) <= set(SMALL.edit_kinds)


def test_a_number_of_edits_that_no_scene_is_drawn_for_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 4 edits, not 5"):
        cases(FIRST, {5: 1})


def test_the_target_shows_every_edit() -> None:
    case = Case(0, scene_of(BALL, STAR), (recolour(0, "green"), recolour(1, "yellow")))
    differs = (case.source != case.target).any(axis=2)
    assert differs[100, 32]
    assert differs[100, 96]
    assert not differs[~case.union].any()
    assert case.texts == ("make it green", "make it yellow")


def test_each_edit_is_judged_on_the_pixels_that_no_other_edit_changes() -> None:
    case = Case(0, scene_of(BALL, STAR), (background("sky", sky="pink"), background("night", night=True)))
    sky, night = case.changed
    assert not (sky & night).any()
    assert night[90, 64]
    assert not night[5, 5]  # the sky's


def test_an_edit_without_pixels_of_its_own_is_judged_on_all_that_it_changes() -> None:
    case = Case(0, scene_of(BALL, STAR), (background("sun", sun=True), background("sky", sky="pink")))
    sun, sky = case.changed
    assert (sun == case.regions[0]).all()
    assert sun[20, 106]
    assert not (sun & sky).any()


def test_a_twin_is_a_second_object_of_an_edited_objects_kind() -> None:
    other_ball = Thing("ball", "green", 96, 100, 16)
    assert Case(0, scene_of(BALL, other_ball), (recolour(1, "blue"),)).has_twin
    assert not Case(0, scene_of(BALL, STAR), (recolour(1, "green"),)).has_twin
    assert not Case(0, scene_of(BALL, other_ball), (background("sky", sky="pink"),)).has_twin


def test_only_a_single_edit_of_an_object_has_an_object_size() -> None:
    scene = scene_of(BALL, STAR)
    assert Case(0, scene, (recolour(1, "green"),)).object_size == 20
    assert Case(0, scene, (background("sky", sky="pink"),)).object_size is None
    assert Case(0, scene, (recolour(0, "green"), recolour(1, "green"))).object_size is None


def test_drawn_objects_keep_their_size_whatever_is_done_to_them(drawn: list[Case]) -> None:
    single = [case for case in drawn if len(case.edits) == 1]
    of_objects = {"recolour", "replace", "remove", "hat"}
    assert all((case.object_size is not None) == (case.kinds[0] in of_objects) for case in single)
    sizes = [case.object_size for case in single if case.object_size is not None]
    assert all(16 <= size <= 26 for size in sizes)
