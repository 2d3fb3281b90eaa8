"""The procedural world: its ground truth is true."""

import numpy as np
import pytest

from demo.edits import EDIT_KINDS, join, random_edit, random_edits, vocabulary
from demo.models import MAX_TOKENS, build_tokenizer
from demo.scenes import random_scene, render

SEEDS = range(40)


def test_a_seed_always_draws_the_same_picture() -> None:
    first, again = (render(random_scene(np.random.default_rng(5))) for _ in range(2))
    assert (first == again).all()
    assert first.shape == (128, 128, 3)


@pytest.mark.parametrize("kind", [k for k in EDIT_KINDS if k != "nothing"])
def test_an_edit_changes_its_region_and_nothing_else(kind: str) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        scene = random_scene(rng)
        edit = random_edit(rng, scene, kind)
        before, after, region = render(scene), render(edit.apply(scene)), edit.region(scene)
        assert region.any()
        assert np.abs(before.astype(int) - after.astype(int))[~region].max(initial=0) <= 8
        assert edit.keyword in edit.instruction


def test_an_edit_that_keeps_things_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    scene = random_scene(rng)
    assert not random_edit(rng, scene, "nothing").region(scene).any()


def test_edits_of_one_picture_never_share_their_subject_and_all_of_them_happen() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        scene = random_scene(rng)
        edits = random_edits(rng, scene, 3)
        assert len({edit.subject for edit in edits}) == len(edits) == 3
        after = scene
        for edit in edits:
            after = edit.apply(after)
        changed = np.abs(render(scene).astype(int) - render(after).astype(int)).max(2) > 8
        union = np.any([edit.region(scene) for edit in edits], axis=0)
        assert (changed & ~union).mean() < 0.01


def test_every_word_is_one_token_and_four_instructions_fit() -> None:
    tokenizer = build_tokenizer(vocabulary())
    assert [w for w in vocabulary() if len(tokenizer.tokenize(w)) != 1] == []
    longest = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        longest = max(longest, len(tokenizer(join(rng, random_edits(rng, random_scene(rng), 4))).input_ids))
    assert longest <= MAX_TOKENS
