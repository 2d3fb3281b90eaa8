"""The whole command, as a user starts it, with tiny models."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.calibration.cli import main
from evaluation.calibration.settings import THRESHOLDS, Trials
from evaluation.calibration.target import Target
from evaluation.pictures.data import Item
from evaluation.pictures.methods import Outcome
from evaluation.scenes.metrics import iou
from foi_core import EditSpec, ModelDefaults, SubInstruction
from foi_core.engine import Engine
from tests.evaluation.pictures.conftest import Write
from tests.support import ROOT, picture, wait_until
from tests.tiny_model import build_tiny_sd1

PLAIN = {"id": "plain", "image": "a.png", "instructions": [{"text": "make the ball red", "keyword": "ball"}], "seed": 3}
JUDGED = {**PLAIN, "id": "judged", "mask": "mask.png", "target": "target.png"}
OTHER = {"id": "other", "image": "b.png", "instruction": "add a sun"}
FEW = ("--guidance-scales", "1.5", "3", "--image-guidance-scales", "1.5")


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Path:
    """A folder of the model that may be written to."""
    return Path(shutil.copytree(model, tmp_path / "own"))


def options(data: Path, model: Path | str, *more: object) -> list[str]:
    given = ("--data", data, "--model", model, "--work", data.parent / "work", "--device", "cpu", "--steps", 2)
    return [str(option) for option in (*given, *FEW, *more)]


def calibrate(data: Path, model: Path | str, *more: object) -> int:
    return main(options(data, model, *more))


def results(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data.parent / "work" / "results.jsonl").read_text().splitlines()]


def written(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def watch(monkeypatch: pytest.MonkeyPatch, stop_after: int = 99) -> list[tuple[str, str]]:
    """The trials as they are made; Ctrl-C in the one after `stop_after`."""
    made: list[tuple[str, str]] = []
    edit = Trials.edit

    def watched(self: Trials, method: str, item: Item) -> Outcome:
        if len(made) == stop_after:
            raise KeyboardInterrupt
        made.append((item.id, method))
        return edit(self, method, item)

    monkeypatch.setattr(Trials, "edit", watched)
    return made


def test_what_the_figures_choose_is_written_and_the_engine_takes_it(
    write: Write, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(JUDGED, OTHER)
    spec = EditSpec((SubInstruction("make the ball red", "ball"),), method="masks", num_inference_steps=2, seed=3)
    engine = Engine.load(str(own), "cpu")
    truth = np.asarray(Image.open(data / "mask.png")) > 0
    looked = {
        t: engine.edit(Image.open(data / "a.png"), EditSpec(**{**vars(spec), "threshold": t}))
        for t in (None, *THRESHOLDS)
    }
    ious = {t: iou(np.asarray(result.masks[0]) > 0, truth) for t, result in looked.items()}

    assert calibrate(data, own) == 0
    found = written(own / "foi.json")
    assert ious[found["threshold"]] >= max(ious.values()) - 0.01
    assert ious[found["threshold"]] > min(ious.values()) + 0.01, "the case could not tell"
    errors = {
        (row["method"]): row["measures"]["mae_target"]
        for row in results(data)
        if row["id"] == "judged" and row["method"].startswith("edit")
    }
    s_T, s_I = found["guidance_scale"], found["image_guidance_scale"]
    (chosen,) = [name for name in errors if name.endswith(f"-{s_T:g}-{s_I:g}")]
    assert errors[chosen] <= min(errors.values()) * 1.05
    assert found["num_inference_steps"] == 100, "the few steps of the trials are not for every edit"

    engine = Engine.load(str(own), "cpu")
    assert engine.defaults == ModelDefaults(**found)
    used = engine.edit(picture(64, 64), EditSpec((SubInstruction("add a sun"),), seed=1, num_inference_steps=1)).spec
    assert (used.threshold, used.guidance_scale, used.image_guidance_scale) == (found["threshold"], s_T, s_I)
    shown = capsys.readouterr()
    assert "best masks:" in shown.out
    assert "best scales:" in shown.out
    assert f"written to {own / 'foi.json'}" in shown.err


def test_the_sheet_has_every_setting_in_a_column_and_every_picture_in_a_row(write: Write, own: Path) -> None:
    calibrate(write(PLAIN, OTHER), own)
    with Image.open(own.parent / "work" / "calibration.png") as one:
        two_rows = one.size
    calibrate(write(PLAIN), own)
    with Image.open(own.parent / "work" / "calibration.png") as one:
        assert one.width == two_rows[0] > 9 * 224, "the picture, and eight settings of masks"
        assert two_rows[1] - one.height > 2 * 224, "a row of masks and a row of edits"


def test_without_truth_nothing_is_written_and_the_user_is_asked(
    write: Write, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(PLAIN)
    assert calibrate(data, own) == 0
    assert not (own / "foi.json").exists()
    error = capsys.readouterr().err
    assert "nothing is written" in error
    assert "--choose threshold=0.4,guidance_scale=7.5" in error
    assert (own.parent / "work" / "calibration.png").is_file()


def test_what_the_user_chooses_is_written_without_a_run_and_the_rest_stays(
    write: Write, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "foi.json").write_text('{"num_inference_steps": 30, "image_guidance_scale": 1.2}')
    made = watch(monkeypatch)
    assert calibrate(write(PLAIN), own, "--choose", "threshold=0.4, guidance_scale=5") == 0
    assert not made
    assert Engine.load(str(own), "cpu").defaults == ModelDefaults(30, 5.0, 1.2, 0.4)
    assert calibrate(write(PLAIN), own, "--choose", "threshold=0.4-0.6") == 0
    assert Engine.load(str(own), "cpu").defaults == ModelDefaults(30, 5.0, 1.2, (0.4, 0.6))
    assert calibrate(write(PLAIN), own, "--choose", "threshold=default") == 0
    assert Engine.load(str(own), "cpu").defaults == ModelDefaults(30, 5.0, 1.2, None)


def test_a_foi_json_that_is_there_is_kept_and_the_difference_shown(
    write: Write, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = ['{"guidance_scale": 4}', '{"guidance_scale": 6}']
    data = write(PLAIN)
    for content in contents:
        (own / "foi.json").write_text(content)
        assert calibrate(data, own, "--choose", "guidance_scale=5") == 0
    assert [(own / name).read_text() for name in ("foi.json.old", "foi.json.old-2")] == contents
    error = capsys.readouterr().err
    assert "guidance_scale: 5.0 (before: 4)" in error
    assert f"kept as {own / 'foi.json.old-2'}" in error
    assert calibrate(data, own, "--choose", "guidance_scale=5") == 0
    assert not (own / "foi.json.old-3").exists(), "nothing was replaced"


def test_masks_of_the_preset_are_its_own_although_the_model_recommends_others(write: Write, own: Path) -> None:
    data = write(PLAIN)
    calibrate(data, own)
    before = masks(data)
    shutil.rmtree(data.parent / "work")
    (own / "foi.json").write_text('{"threshold": 0.9}')
    calibrate(data, own)
    after = masks(data)
    assert before == {name: after[name] for name in before}
    assert after.keys() - before.keys() == {"masks-0.9"}
    assert after["masks-0.9"] != after["masks-default"]
    assert [row["method"] for row in results(data)][-3:] == ["edit-0.9-7.5-1.5", "edit-0.9-1.5-1.5", "edit-0.9-3-1.5"]


def masks(data: Path) -> dict[str, bytes]:
    work = data.parent / "work"
    rows = [row for row in results(data) if row["method"].startswith("masks")]
    return {row["method"]: Image.open(work / row["masks"][0]).tobytes() for row in rows}


def test_a_killed_run_goes_on_where_it_was(write: Write, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(JUDGED, OTHER)
    file = data.parent / "work" / "results.jsonl"
    command = [sys.executable, "-m", "evaluation.calibration", *options(data, own)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: file.is_file() and len(file.read_bytes().splitlines()) >= 3, 120)
        process.send_signal(signal.SIGKILL)
    assert not (own / "foi.json").exists()
    with file.open("ab") as torn:
        torn.write(b'{"id": "judg')
    done = {(row["id"], row["method"]) for row in map(json.loads, file.read_bytes().splitlines()[:-1])}
    made = watch(monkeypatch)
    assert calibrate(data, own) == 0
    assert not done & set(made)
    assert len(done) + len(made) == len(results(data)) == 2 * (8 + 3)
    assert (own / "foi.json").is_file()


def test_after_ctrl_c_the_same_command_goes_on(
    write: Write, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(PLAIN)
    with monkeypatch.context() as patch:
        watch(patch, 9)
        assert calibrate(data, own) == 130
    assert "the same command goes on" in capsys.readouterr().err
    made = watch(monkeypatch)
    assert calibrate(data, own) == 0
    assert made == [("plain", "edit-default-1.5-1.5"), ("plain", "edit-default-3-1.5")]


def test_clip_and_captions_choose_the_scales_and_nobody_the_masks(
    write: Write, own: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write({**PLAIN, "caption": "a blue ball", "target_caption": "a red ball"})
    assert calibrate(data, own, "--clip", clip) == 0
    shown = capsys.readouterr()
    assert "CLIP-D" in shown.out
    assert "no figures tell the best of threshold" in shown.err
    measured = [row["measures"] for row in results(data) if row["method"].startswith("edit")]
    assert all(one.keys() == {"clip_i", "clip_d"} for one in measured)
    assert (own / "foi.json").is_file() == (max(one["clip_d"] for one in measured) > 0)


def test_a_picture_that_the_engine_refuses_is_named_and_the_others_decide(
    write: Write, own: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (400, 20)).save(data / "narrow.png")
    write({"image": "narrow.png", "instruction": "add a sun"}, JUDGED)
    assert calibrate(data, own) == 1
    assert "edits.jsonl:1: masks-default: image:" in capsys.readouterr().err
    assert {row["id"] for row in results(data)} == {"judged"}
    assert (own / "foi.json").is_file()


def test_a_model_without_a_folder_of_the_users_own_is_left_alone(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(PLAIN)
    before = (ROOT / "demo" / "model" / "foi.json").read_bytes()
    for value in ("5", "6"):
        assert calibrate(data, "demo", "--choose", f"guidance_scale={value}") == 0
    assert (ROOT / "demo" / "model" / "foi.json").read_bytes() == before
    assert written(data.parent / "work" / "foi.json") == {
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
        "image_guidance_scale": 1.5,
        "threshold": None,
    }
    assert "set FOI_MODEL to that folder" in capsys.readouterr().err


def test_for_an_id_of_the_hub_the_file_lies_in_the_working_folder_and_its_use_is_told(tmp_path: Path) -> None:
    target = Target.of("owner/model", None, tmp_path)
    told = " ".join(target.write(ModelDefaults(), ModelDefaults(threshold=0.5)))
    assert written(tmp_path / "foi.json")["threshold"] == 0.5
    assert "hf download owner/model" in told
    assert "set FOI_MODEL to that folder" in told


def test_another_file_can_be_named_and_what_it_says_is_gone_on_from(write: Write, own: Path) -> None:
    data, file = write(PLAIN), own.parent / "new" / "settings.json"
    assert calibrate(data, own, "--out", file, "--choose", "guidance_scale=5") == 0
    assert calibrate(data, own, "--out", file, "--choose", "threshold=0.5") == 0
    assert (written(file)["guidance_scale"], written(file)["threshold"]) == (5.0, 0.5)
    assert not (own / "foi.json").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--choose", "tau=0.4"), "write NAME=VALUE"),
        (("--choose", "threshold"), "write NAME=VALUE"),
        (("--choose", "threshold=0.4,threshold=0.5"), "at most once"),
        (("--choose", "guidance_scale=much"), "'much' is not a value of guidance_scale"),
        (("--choose", "guidance_scale=nan"), "guidance_scale: nan is not allowed"),
        (("--choose", "guidance_scale=99"), "guidance_scale: 99.0 is not allowed"),
        (("--choose", "threshold=0.7-0.4"), "threshold: (0.7, 0.4) is not allowed"),
        (("--guidance-scales", "99"), "guidance_scale: 99.0 is not allowed"),
        (("--steps", "0"), "num_inference_steps: 0 is not allowed"),
        (("--out", str(ROOT)), "is a folder: give a file"),
        (("--model", str(ROOT)), "no model_index.json"),
        (("--model", "somebody/some-model"), "--allow-download"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(
    wrong: tuple[str, str], says: str, write: Write, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(write(PLAIN), own, *wrong) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (own / "foi.json").exists()
    assert not (own.parent / "work").exists()


def test_a_file_that_cannot_be_written_is_said_with_what_to_do(
    write: Write, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own.parent / "file").write_text("")
    assert calibrate(write(PLAIN), own, "--out", own.parent / "file" / "foi.json", "--choose", "threshold=0.5") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_model_of_stable_diffusions_own_blocks_is_calibrated(write: Write, data: Path, tmp_path: Path) -> None:
    model = build_tiny_sd1(tmp_path / "sd1")
    for name in ("a.png", "mask.png", "target.png"):
        Image.open(data / name).resize((128, 96), Image.Resampling.NEAREST).save(data / name)
    assert calibrate(write(JUDGED), model, "--steps", 1) == 0
    assert written(model / "foi.json").keys() == vars(ModelDefaults()).keys()
