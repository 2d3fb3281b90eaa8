"""The judges, with tiny models: what they must give whatever their weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from evaluation.pictures.scorers import Clip, Dino, similarity
from tests.support import picture


def test_a_picture_is_like_itself_and_likeness_goes_both_ways(clip: Path, dino: Path) -> None:
    one, other = picture(), Image.new("RGB", (48, 32), "red")
    for judge in (Clip("--clip", str(clip), "cpu"), Dino("--dino", str(dino), "cpu")):
        assert similarity(judge, one, one) == pytest.approx(1, abs=1e-6)
        assert similarity(judge, one, other) == pytest.approx(similarity(judge, other, one), abs=1e-6)
        assert similarity(judge, one, other) < 0.9999


def test_the_direction_is_the_cosine_of_both_changes_and_turns_with_either(clip: Path) -> None:
    judge = Clip("--clip", str(clip), "cpu")
    before, after = picture(), Image.new("RGB", (48, 32), "red")
    ahead = judge.direction(before, after, "a ball", "a red ball")
    change = (judge.picture(after) - judge.picture(before))[0]
    words = (judge.text("a red ball") - judge.text("a ball"))[0]
    assert ahead == pytest.approx(float(change @ words / change.norm() / words.norm()), abs=1e-5)
    assert judge.direction(after, before, "a ball", "a red ball") == pytest.approx(-ahead, abs=1e-5)
    assert judge.direction(before, before, "a ball", "a red ball") == 0


def test_vectors_have_unit_length_and_long_texts_are_cut(clip: Path) -> None:
    judge = Clip("--clip", str(clip), "cpu")
    torch.testing.assert_close(judge.text("red ball " * 50).norm(), torch.tensor(1.0))
    torch.testing.assert_close(judge.picture(picture()).norm(), torch.tensor(1.0))


def test_pickscore_is_the_scaled_cosine(clip: Path) -> None:
    judge = Clip("--pickscore", str(clip), "cpu")
    cosine = float((judge.picture(picture()) * judge.text("a ball")).sum())
    # CLIPConfig's logit_scale is 2.6592 = ln(1 / 0.07).
    assert judge.agreement(picture(), "a ball") == pytest.approx(cosine / 0.07, rel=1e-3)
