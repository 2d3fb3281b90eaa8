"""Weights are read without running what a file may hold."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch

from evaluation.checkpoints.weights import CheckpointError, read_weights


class Harmful:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def save_zipped(content: object, path: Path) -> None:
    torch.save(content, path)


def save_in_the_old_form(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_as_a_bare_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [save_zipped, save_in_the_old_form, save_as_a_bare_pickle])
@pytest.mark.parametrize("environment", ["", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_a_file_that_would_run_a_command_is_refused_and_the_command_does_not_run(
    save: object, environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv(environment, "1")
    assert callable(save)
    harmed = tmp_path / "harmed"
    save({"state_dict": {"a": torch.zeros(2)}, "callbacks": Harmful(harmed)}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="is refused"):
        read_weights(tmp_path / "model.ckpt")
    assert not harmed.exists()


def test_the_refusal_names_what_the_file_would_run(tmp_path: Path) -> None:
    torch.save({"a": Harmful(tmp_path / "harmed")}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"would run (posix|nt)\.system"):
        read_weights(tmp_path / "model.ckpt")


def test_a_trainers_bookkeeping_beside_the_weights_is_passed_over_without_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    callback = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", types.ModuleType("pytorch_lightning.callbacks"))
    state = callback()
    state.best = 0.5
    torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": {callback: state}}, tmp_path / "model.ckpt")
    for loaded in ("", ".callbacks", ".callbacks.model_checkpoint"):
        monkeypatch.delitem(sys.modules, "pytorch_lightning" + loaded)
    assert read_weights(tmp_path / "model.ckpt")["a"].tolist() == [1, 1]
    assert "pytorch_lightning" not in sys.modules


def test_nested_and_prefixed_weights_are_found_and_the_rest_is_left_out(tmp_path: Path) -> None:
    content = {"module": {"state_dict": {"module.a": torch.ones(1), "module.b": torch.zeros(1), "step": 3}}, "epoch": 1}
    torch.save(content, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt").keys() == {"a", "b"}


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_broken_file_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CheckpointError, match=name):
        read_weights(tmp_path / name)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(tmp_path / "model.ckpt")
