"""Edits in this process, with the bundled demo model."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import FEW, SCENE, Foi, Here, one_line


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def told(stdout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stdout)
    return found


def test_only_what_the_masks_show_is_changed(here: Here, tmp_path: Path) -> None:
    done = here(
        "edit", str(SCENE), "-i", "make the ball blue and turn the grass into sand", *FEW, "-o", "r.png", "--masks", "m"
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == ["r.png", "m/mask-1.png", "m/mask-2.png"]
    assert "outside the masks nothing changed; seed 7" in done.stderr
    union = (pixels(tmp_path / "m" / "mask-1.png") > 0) | (pixels(tmp_path / "m" / "mask-2.png") > 0)
    different = (pixels(SCENE)[..., :3] != pixels(tmp_path / "r.png")).any(2)
    assert different.any()
    assert not different[~union].any()


def test_json_tells_everything_and_is_all_of_stdout(here: Here, tmp_path: Path) -> None:
    done = here("edit", str(SCENE), "-i", "make the ball blue", *FEW, "-n", "2", "-o", "r.webp", "--json")
    record = told(done.stdout)
    assert record["status"] == "succeeded"
    assert record["input"]["num_inference_steps"] == 4
    assert [(one["path"], one["seed"]) for one in record["outputs"]] == [("r.webp", 7), ("r-2.webp", 8)]
    assert [mask["path"] for mask in record["masks"]] == [None, None], "no folder was given for them"
    with Image.open(tmp_path / "r-2.webp") as second:
        assert second.format == "WEBP"


def test_masks_are_those_of_the_edit_and_can_be_given_back(here: Here, tmp_path: Path) -> None:
    looked = told(here("masks", str(SCENE), "-i", "make the ball blue", *FEW, "-o", "seen", "--json").stdout)
    assert looked["outputs"] == []
    assert [mask["path"] for mask in looked["masks"]] == ["seen/mask-1.png"]
    assert here("edit", str(SCENE), "-i", "make the ball blue", *FEW, "-o", "found.png").exit_code == 0
    given = here("edit", str(SCENE), "-i", "make the ball blue", *FEW, "-o", "given.png", "--mask", "seen/mask-1.png")
    assert given.exit_code == 0, given.stderr
    assert (pixels(tmp_path / "found.png") == pixels(tmp_path / "given.png")).all()


def test_options_of_a_part_go_to_the_part_of_that_number(here: Here) -> None:
    text = "make the ball blue and turn the grass into sand"
    done = here("edit", str(SCENE), "-i", text, *FEW, "--keyword", "2=sand", "--intensity", "1=5", "--json")
    first, second = told(done.stdout)["input"]["instructions"]
    assert (first["keyword"], first["keyword_source"], first["intensity"]) == ("ball", "rule", 5)
    assert (second["keyword"], second["keyword_source"], second["intensity"]) == ("sand", "given", 1)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--keyword", "ball"), "say for which instruction, like 1=ball"),
        (("--keyword", "3=ball"), "there is no instruction 3"),
        (("--keyword", "1=ball", "--keyword", "1=blue"), "twice"),
        (("--intensity", "1=much"), "'much' is not a number"),
        (("--mask", "1=none.png"), "there is no picture none.png"),
        (("--keyword", "1=hat"), "a word of 'make the ball blue'"),
        (("--intensity", "1=200"), "from 0 to 100"),
        (("--threshold", "2"), "threshold"),
        (("--method", "ip2p", "--intensity", "1=2"), "ip2p has no regions"),
    ],
)
def test_what_the_method_does_not_allow_is_one_line(here: Here, option: tuple[str, ...], says: str) -> None:
    done = here("edit", str(SCENE), "-i", "make the ball blue", "-i", "turn the grass into sand", *option)
    assert done.exit_code == 2
    assert says in one_line(done.stderr)


def test_a_damaged_picture_is_one_line(here: Here, tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(SCENE.read_bytes()[:3000])
    done = here("edit", "half.png", "-i", "make the ball blue")
    assert done.exit_code == 2
    assert list(tmp_path.glob("*-edited.png")) == []
    assert "damaged" in one_line(done.stderr)


def test_a_picture_comes_by_stdin_and_goes_by_stdout(foi: Foi, tmp_path: Path) -> None:
    done = foi("edit", "-", "-i", "make the ball blue", *FEW, "-o", "-", stdin=SCENE.read_bytes())
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(io.BytesIO(done.stdout))).shape == pixels(SCENE).shape
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_used_is_status_3(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("FOI_MODEL", str(tmp_path / "empty"))
    done = here("edit", str(SCENE), "-i", "make the ball blue")
    assert done.exit_code == 3
    assert "cannot be used" in one_line(done.stderr)


def test_a_result_that_cannot_be_written_is_status_1_and_told_as_json(here: Here, tmp_path: Path) -> None:
    shutil.copy(SCENE, tmp_path / "file")
    done = here("edit", str(SCENE), "-i", "make the ball blue", *FEW, "-o", "file/r.png", "--json")
    assert done.exit_code == 1
    assert told(done.stdout)["status"] == "failed"
    assert "file/r.png cannot be written" in one_line(done.stderr)


def test_a_format_that_cannot_hold_the_result_is_refused_before_anything_is_made(here: Here, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("1", (16_384, 2048)).save(wide)
    done = here("edit", str(wide), "-i", "make the ball blue", *FEW, "-o", "r.webp")
    assert done.exit_code == 2
    assert "png or jpeg: the picture is 16384x2048, and no side may be over 16383" in one_line(done.stderr)
    assert not (tmp_path / "r.webp").exists()
