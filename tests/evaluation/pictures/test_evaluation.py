"""The whole run, as a user starts it, with a tiny model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from evaluation.pictures.cli import main
from evaluation.pictures.data import Item
from evaluation.pictures.diffedit import DiffEdit
from evaluation.pictures.methods import Editor, Method, Outcome
from evaluation.pictures.pictures import open_picture
from foi_core import ModelFailure
from foi_core.engine import Engine
from tests.evaluation.pictures.conftest import Write
from tests.support import picture

FIRST = {
    "id": "first",
    "image": "a.png",
    "instructions": [{"text": "make the ball red", "keyword": "ball"}],
    "mask": "mask.png",
    "target": "target.png",
    "caption": "a blue ball",
    "target_caption": "a red ball",
}
SECOND = {"id": "second", "image": "b.png", "instruction": "add a sun"}


def evaluate(data: Path, model: Path, *options: object) -> int:
    given = ("--data", data, "--model", model, "--out", data.parent / "out", "--device", "cpu", "--steps", 2)
    return main([str(option) for option in (*given, *options)])


def results(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data.parent / "out" / "results.jsonl").read_text().splitlines()]


def summary(data: Path) -> dict[str, Any]:
    return dict(json.loads((data.parent / "out" / "summary.json").read_text()))


def test_every_method_is_measured_and_its_pictures_and_masks_are_there(
    write: Write, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(FIRST, SECOND)
    assert evaluate(data, model) == 0
    rows = results(data)
    assert [(row["id"], row["method"]) for row in rows] == [
        (name, method) for name in ("first", "second") for method in ("source", "ip2p", "foi", "foi-paper")
    ]
    for row in rows:
        assert all(open_picture(data.parent / "out" / name).size == (64, 64) for name in (row["image"], *row["masks"]))
    by_method = {row["method"]: row for row in rows if row["id"] == "first"}
    assert by_method["source"]["measures"]["mae_outside"] == 0
    assert by_method["source"]["seconds"] is None
    assert by_method["foi"]["measures"].keys() == {
        "mae_outside",
        "psnr_outside",
        "mae_target",
        "psnr_target",
        "mask_iou",
    }
    assert "mask_iou" not in by_method["ip2p"]["measures"]
    shown = capsys.readouterr()
    assert shown.out == (data.parent / "out" / "summary.md").read_text()
    assert shown.out.startswith("| method | pictures | MAE target ↓ |")
    assert "CLIP" not in shown.out
    assert "no weights given for --clip, --dino, --pickscore" in shown.err
    assert summary(data)["foi"]["pictures"] == 2
    assert summary(data)["foi"]["mae_outside"].keys() == {"mean", "low", "high", "pictures"}


def test_a_missing_picture_is_named_by_its_line_and_the_rest_is_evaluated(
    write: Write, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write({**FIRST, "image": "none.png"}, SECOND)
    assert evaluate(data, model, "--methods", "source") == 1
    assert "edits.jsonl:1: there is no file" in capsys.readouterr().err
    assert [row["id"] for row in results(data)] == ["second"]


def test_a_picture_that_the_engine_refuses_is_named_by_its_line_and_the_rest_is_evaluated(
    write: Write, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (400, 20)).save(data / "narrow.png")
    write({"image": "narrow.png", "instruction": "add a sun"}, SECOND)
    assert evaluate(data, model, "--methods", "foi") == 1
    assert "edits.jsonl:1: foi: image:" in capsys.readouterr().err
    assert [row["id"] for row in results(data)] == ["second"]


def test_without_a_single_good_line_nothing_starts(
    write: Write, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(write(b"{"), model) == 2
    assert "no line that can be evaluated" in capsys.readouterr().err


def test_the_engine_is_warm_before_the_first_edit_that_is_timed(
    write: Write, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    warm_up, edit = Engine.warm_up, Editor.edit

    def warmed(self: Engine) -> None:
        warm_up(self)
        happened.append("warm")

    def edited(self: Editor, method: Method, item: Item) -> Outcome:
        happened.append(method)
        return edit(self, method, item)

    monkeypatch.setattr(Engine, "warm_up", warmed)
    monkeypatch.setattr(Editor, "edit", edited)
    assert evaluate(write(SECOND), model, "--methods", "ip2p", "foi") == 0
    assert happened == ["warm", "ip2p", "foi"]


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Ctrl-C in the midst of the edit after `count`; returns the edits as they are made."""
    made: list[tuple[str, str]] = []
    edit = Editor.edit

    def watched(self: Editor, method: Method, item: Item) -> Outcome:
        if len(made) == count:
            raise KeyboardInterrupt
        made.append((item.id, method))
        return edit(self, method, item)

    monkeypatch.setattr(Editor, "edit", watched)
    return made


def test_after_ctrl_c_the_same_command_goes_on_where_it_stopped(
    write: Write, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(FIRST, SECOND)
    options = ("--methods", "source", "ip2p")
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        assert evaluate(data, model, *options) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert summary(data)["ip2p"]["pictures"] == 1
    with monkeypatch.context() as patch:
        made = stop_after(99, patch)
        assert evaluate(data, model, *options) == 0
    assert made == [("second", "ip2p")]
    assert summary(data)["ip2p"]["pictures"] == 2


def test_a_line_that_a_crash_cut_off_is_made_again(write: Write, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(FIRST, SECOND)
    evaluate(data, model, "--methods", "source")
    path = data.parent / "out" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    made = stop_after(99, monkeypatch)
    assert evaluate(data, model, "--methods", "source") == 0
    assert made == [("second", "source")]
    assert len(results(data)) == 2


@pytest.mark.parametrize("options", [("--seed", 1), ("--steps", 3)])
def test_other_settings_are_refused_and_nothing_is_overwritten(
    options: Sequence[object], write: Write, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(SECOND)
    evaluate(data, model, "--methods", "source")
    before = results(data)
    assert evaluate(data, model, "--methods", "source", *options) == 2
    assert "give another --out" in capsys.readouterr().err
    assert results(data) == before


def test_a_changed_line_is_made_again_and_its_new_result_counts(
    write: Write, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(FIRST, SECOND)
    evaluate(data, model, "--methods", "source")
    made = stop_after(99, monkeypatch)
    evaluate(write(FIRST, {**SECOND, "instruction": "remove the sun"}), model, "--methods", "source")
    assert made == [("second", "source")]
    assert summary(data)["source"]["pictures"] == 2


def test_judges_that_come_later_measure_the_stored_pictures_without_a_new_edit(
    write: Write, model: Path, clip: Path, dino: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(FIRST, SECOND)
    evaluate(data, model, "--methods", "source", "ip2p")
    made = stop_after(99, monkeypatch)
    evaluate(data, model, "--methods", "source", "ip2p", "--clip", clip, "--dino", dino, "--pickscore", clip)
    assert not made
    table = summary(data)
    assert table["source"]["clip_i"]["mean"] == pytest.approx(1)
    assert table["source"]["dino_i"]["mean"] == pytest.approx(1)
    assert table["source"]["clip_d"]["mean"] == 0
    assert table["ip2p"]["clip_i"]["mean"] < 1
    assert {"clip_i_target", "dino_i_target", "clip_d"} <= table["ip2p"].keys()


def test_diffedit_runs_with_a_text_to_image_model_where_there_are_captions(
    write: Write, model: Path, text_to_image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(FIRST, SECOND)
    assert (
        evaluate(data, model, "--methods", "source", "diffedit", "--diffedit-model", text_to_image, "--steps", 4) == 0
    )
    row = results(data)[1]
    assert (row["id"], row["method"]) == ("first", "diffedit")
    assert len(row["masks"]) == 1
    assert row["measures"]["mae_outside"] > 0
    assert "1 of 2 lines have no caption" in capsys.readouterr().err


def test_a_black_picture_of_a_broken_decoder_is_no_result_of_diffedit(text_to_image: Path) -> None:
    diffedit = DiffEdit(str(text_to_image), "cpu")
    with torch.inference_mode():
        diffedit._pipeline.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(ModelFailure, match="not finite"):
        diffedit.edit(picture(64, 64), "a blue ball", "a red ball", steps=4, seed=0)


def test_diffedit_says_which_model_it_needs(write: Write, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(FIRST)
    assert evaluate(data, model, "--methods", "diffedit") == 2
    assert "give --diffedit-model" in capsys.readouterr().err
    assert evaluate(data, model, "--diffedit-model", model, "--steps", 1) == 2
    assert "at least 2 steps" in capsys.readouterr().err
    assert evaluate(data, model, "--diffedit-model", model) == 2
    assert "no text-to-image model: its UNet takes 8 channels" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--model", "--clip", "--dino", "--pickscore", "--diffedit-model"])
def test_an_id_is_not_downloaded_unless_that_was_allowed(
    option: str, write: Write, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(write(FIRST), model, option, "somebody/some-model") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{option} somebody/some-model: there is no such folder.")
    assert "--allow-download" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--steps", 0), "num_inference_steps: 0 is not allowed"),
        (("--seed", -1), "seed: -1 is not allowed"),
        (("--device", "xpu"), "device: 'xpu' is not allowed"),
        (("--out", __file__), "File exists"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_the_first_edit(
    options: Sequence[object], says: str, write: Write, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(FIRST)
    assert evaluate(data, model, *options) == 2
    assert says in capsys.readouterr().err
    assert not (data.parent / "out").exists()


@pytest.mark.parametrize("option", ["--clip", "--dino"])
def test_a_folder_that_is_no_judge_is_refused_in_one_line(
    option: str, write: Write, data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(write(FIRST), model, option, data) == 2
    assert f"{option} {data} cannot be loaded" in capsys.readouterr().err


def test_a_judge_of_another_kind_is_refused(
    write: Write, model: Path, dino: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(write(FIRST), model, "--clip", dino) == 2
    assert "is no CLIP model" in capsys.readouterr().err
