"""Checkpoints from a hub: which files come, what the log tells, and what stands in the way."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from foi_core import hub
from foi_core.checkpoint import load
from foi_core.errors import UnsupportedCheckpoint
from foi_core.hub import PINNED, Progress, find
from tests.fake_hub import COMMIT, FakeHub
from tests.tiny_model import build_tiny_model

ID = "somebody/instruct-tiny"
KNOWN = "timbrooks/instruct-pix2pix"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as they are: the same weights in every form, an original checkpoint, pictures."""
    folder = build_tiny_model(tmp_path_factory.mktemp("published"))
    for weights in list(folder.rglob("*.safetensors")):
        weights.with_suffix(".fp16.safetensors").write_bytes(weights.read_bytes())
        weights.with_suffix(".bin").write_bytes(b"no")
    for name in ("instruct-tiny.ckpt", "instruct-tiny.safetensors", "README.md", "sample.png"):
        (folder / name).write_bytes(b"no")
    return folder


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache of the hub's library, with a machine that reaches no hub."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    _point_at(f"http://127.0.0.1:{_closed_port()}", monkeypatch)
    close_session()
    yield
    close_session()


@pytest.fixture
def serve(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeHub]]:
    stops = []

    def start(model: str = ID, **options: object) -> FakeHub:
        served = FakeHub(published, model, **options)  # type: ignore[arg-type]
        context = served.serving()
        _point_at(context.__enter__(), monkeypatch)
        stops.append(context)
        return served

    yield start
    close_session()
    for context in stops:
        context.__exit__(None, None, None)


Serve = Callable[..., FakeHub]


def _point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does, which the library reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + template)


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def reason(model: str, revision: str | None = None) -> str:
    with pytest.raises(UnsupportedCheckpoint) as caught:
        load(model, "cpu", revision=revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("dtype", "unet"), [("float32", UNET), ("float16", UNET.replace(".", ".fp16."))])
def test_only_what_is_loaded_is_downloaded(dtype: str, unet: str, serve: Serve) -> None:
    served = serve()
    assert load(ID, "cpu", dtype).resolution == 64
    weights = [file for file in served.fetched if not file.endswith((".json", ".txt"))]
    assert len(weights) == len(set(weights)) == 3
    assert unet in weights
    assert not [file for file in weights if "fp16" in file] or dtype == "float16"


def test_nothing_is_downloaded_where_the_small_files_tell_that_it_cannot_edit(serve: Serve, tmp_path: Path) -> None:
    served = serve()
    served.folder = build_tiny_model(tmp_path / "text-to-image", unet_channels=4)
    assert "4 channels, not 8" in reason(ID)
    assert UNET not in served.fetched


def test_a_model_without_a_given_revision_is_logged_with_its_commit_and_how_to_keep_it(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    serve()
    assert find(ID).commit == COMMIT
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"FOI_MODEL_REVISION={COMMIT}" in line


@pytest.mark.parametrize(("model", "revision", "commit"), [(KNOWN, None, PINNED[KNOWN]), (ID, COMMIT, COMMIT)])
def test_a_pinned_model_is_taken_at_its_commit_without_a_word(
    model: str, revision: str | None, commit: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    serve(model, commit=commit)
    assert find(model, revision).commit == commit
    assert hub.cached_commit(model, revision) == commit
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_a_pinned_model_that_is_whole_in_the_cache_needs_no_hub(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    load(ID, "cpu", revision=COMMIT)
    asked = len(served.asked)
    load(ID, "cpu", revision=COMMIT)
    assert len(served.asked) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(ID, "cpu", revision=COMMIT).resolution == 64


def test_without_a_hub_a_branch_is_at_the_commit_where_it_was_last_seen(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    load(ID, "cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load(ID, "cpu")
    assert hub.cached_commit(ID) == COMMIT


def test_the_log_tells_how_far_a_download_is(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "foi_core")
    monkeypatched = serve()
    source = find(ID, COMMIT)
    source.fetch([UNET, "vae/diffusion_pytorch_model.safetensors"])
    lines = [record.getMessage() for record in caplog.records]
    assert f"downloading {ID} at {COMMIT}: 2 files" in lines[0]
    assert "100 %" in lines[-2]
    assert lines[-1] == f"downloaded {ID}"
    assert monkeypatched.fetched[-1].startswith("vae/")


def test_progress_is_told_every_tenth_and_not_for_every_chunk(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "foi_core")
    progress = Progress(ID, 1_000_000_000)
    for _ in range(1000):
        with progress(desc="a file", total=3) as bar:
            bar.update(1_000_000)
            bar.update_transfer(500_000)  # fewer came over the network: not counted twice
    assert [record.getMessage() for record in caplog.records] == [
        f"downloading {ID}: {10 * i} %, {i / 10:.2f} GB of 1.00 GB" for i in range(1, 11)
    ]


def test_a_slow_download_is_told_of_by_time(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "foi_core")
    monkeypatch.setattr(hub, "TOLD_EVERY_S", 0)
    progress = Progress(ID, 10**9)
    progress.update(1)
    assert len(caplog.records) == 1


def test_a_broken_connection_is_taken_up_where_it_broke(
    serve: Serve, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = 50_000
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", chunk)
    served = serve(cut=1)
    find(ID, COMMIT).fetch([UNET])
    half = (published / UNET).stat().st_size // 2 // chunk * chunk
    assert [(file, part) for method, file, part in served.asked if method == "GET" and file == UNET] == [
        (UNET, None),
        (UNET, f"bytes={half}-"),
    ]
    assert (find(ID, COMMIT).folder / UNET).read_bytes() == (published / UNET).read_bytes()


def test_after_an_abort_only_the_files_that_are_missing_are_fetched(serve: Serve) -> None:
    served = serve()
    vae = "vae/diffusion_pytorch_model.safetensors"
    find(ID, COMMIT).fetch([vae])
    before = len(served.fetched)
    find(ID, COMMIT).fetch([vae, UNET])
    assert served.fetched[before:] == [UNET]


@pytest.mark.parametrize(
    ("refusal", "tells"),
    [
        ((401, "RepoNotFound"), ("no public model of that id", "HF_TOKEN")),
        ((403, "GatedRepo"), ("gated", f"https://huggingface.co/{ID}", "HF_TOKEN")),
        ((400, "Odd"), ("the hub does not give it", "400")),
    ],
)
def test_what_a_hub_refuses_is_told_with_what_to_do(
    refusal: tuple[int, str], tells: tuple[str, ...], serve: Serve
) -> None:
    serve(refusal=refusal)
    for revision in (None, COMMIT):
        assert all(part in reason(ID, revision) for part in tells)


def test_an_unknown_id_and_an_unknown_revision_are_told_apart(serve: Serve) -> None:
    serve()
    assert "no folder 'somebody/else' here and no public model" in reason("somebody/else")
    assert "no revision 'v9'" in reason(ID, "v9")
    assert "nor is that a model id" in reason("no/such/folder")


def test_without_a_network_or_offline_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "check the network" in reason(ID)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in reason(KNOWN)


def test_a_cache_that_lacks_a_weight_file_says_so_offline(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()
    find(ID, COMMIT).fetch([UNET])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "not whole in the cache" in reason(ID, COMMIT)


def test_a_folder_has_no_revision(published: Path) -> None:
    assert "leave 'main' out" in reason(str(published), "main")
