"""What the worker says that it has loaded, and how its settings reach the checkpoint."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from foi_core.hub import PINNED
from jobs.settings import Settings
from tests.support import python
from tests.tiny_model import build_tiny_model
from worker.loading import UnusableModelError
from worker.main import EXIT_MODEL, _revision, _warm_engine

ID = "somebody/instruct-tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the cache of the hub's library, whose branch main was last seen at COMMIT; there is no network."""
    folder = tmp_path / f"models--{ID.replace('/', '--')}"
    build_tiny_model(folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder / "snapshots" / COMMIT


@pytest.mark.parametrize("asked", [None, "main", COMMIT])
def test_a_models_revision_is_the_hubs_commit_that_was_loaded(asked: str | None, cached: Path) -> None:
    assert cached.is_dir()
    settings = Settings(model=ID, model_revision=asked, device="cpu")
    _warm_engine(settings, 0, lambda: None).close()
    assert _revision(ID, asked) == COMMIT


def test_a_known_models_revision_is_its_pinned_commit() -> None:
    assert _revision("timbrooks/instruct-pix2pix", None) == PINNED["timbrooks/instruct-pix2pix"]


def test_a_folders_revision_changes_with_its_weights(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model")
    before = _revision(str(folder), None)
    assert len(before) == 12
    (folder / "README.md").write_text("x")
    assert _revision(str(folder), None) == before
    shutil.copy(folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "vae" / "other.bin")
    assert _revision(str(folder), None) != before


def test_the_settings_reach_the_checkpoint(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UnusableModelError, match="FOI_ALLOW_PICKLE"):
        _warm_engine(Settings(model=str(folder), device="cpu"), 0, lambda: None)
    with pytest.raises(UnusableModelError, match="cannot be read"):  # it is no pickle
        _warm_engine(Settings(model=str(folder), device="cpu", allow_pickle=True), 0, lambda: None)


@pytest.mark.parametrize(("variable", "value"), [("FOI_DEVICE", "cuda:99"), ("FOI_EXECUTION", "graphs")])
def test_a_setting_that_this_machine_cannot_serve_ends_the_worker_for_good_and_names_it(
    variable: str, value: str, tmp_path: Path, redis_url: str
) -> None:
    environment = {"FOI_DEVICE": "cpu", variable: value, "FOI_DATA_DIR": str(tmp_path), "REDIS_URL": redis_url}
    worker = python("-m", "worker", environment=environment, stderr=subprocess.PIPE)
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == EXIT_MODEL
    assert f"foi: {variable}: {variable.removeprefix('FOI_').lower()}: '{value}' is not allowed" in said


def test_a_model_whose_numbers_overflow_as_it_warms_up_ends_the_worker_for_good(tmp_path: Path, redis_url: str) -> None:
    folder = build_tiny_model(tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(weights).items()}, weights)
    environment = {"FOI_MODEL": str(folder), "FOI_DATA_DIR": str(tmp_path), "REDIS_URL": redis_url}
    worker = python("-m", "worker", environment=environment, stderr=subprocess.PIPE)
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == EXIT_MODEL
    assert "cannot be used: the model's keys and values of the text are not finite" in said
