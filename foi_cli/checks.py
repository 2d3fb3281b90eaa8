"""What an installation needs, looked at part by part."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Literal

from foi_cli.configuration import read_settings
from foi_cli.errors import CliError
from foi_cli.info import PACKAGE, without_password

if TYPE_CHECKING:  # that they can be imported is the first thing to find out
    from jobs.settings import Settings

State = Literal["ok", "warn", "fail"]
NEEDED = {"pydantic": "service", "rq": "service", "uvicorn": "service", "torch": "worker", "diffusers": "worker"}
"""One package of each extra's main parts."""
GIB = 2**30
FULL_BYTES, LOW_BYTES = GIB // 2, 5 * GIB


@dataclass(frozen=True)
class Finding:
    """`fix` is empty where nothing has to be done."""

    part: str
    state: State
    found: str
    fix: str = ""


def examine() -> Iterator[Finding]:
    """Without the packages or with settings that cannot be read, there is nothing else to look at."""
    packages = look_at_packages()
    yield packages
    if packages.state == "fail":
        return
    try:
        settings = read_settings()
    except CliError as error:
        yield Finding("settings", "fail", str(error), "correct these environment variables (docs/settings.md)")
        return
    yield look_at_access(settings)
    yield look_at_device(settings)
    yield look_at_redis(settings)
    yield look_at_store(settings)
    yield look_at_disk(settings.data_dir)
    yield look_at_port(settings.host, settings.port)
    yield look_at_model(settings)


def look_at_packages() -> Finding:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return Finding("packages", "ok", "all there")
    extras = ",".join(sorted({NEEDED[name] for name in missing}))
    return Finding("packages", "fail", f"not installed: {', '.join(missing)}", f"pip install '{PACKAGE}[{extras}]'")


def look_at_access(settings: Settings) -> Finding:
    from jobs.keys import AuthUndecidedError, keys_on

    try:
        on = keys_on(settings)
    except AuthUndecidedError:
        fix = "set FOI_AUTH=keys and make keys (foi keys create NAME), or FOI_AUTH=off behind something that guards it"
        return Finding("access", "fail", f"{settings.host} is open to others, and FOI_AUTH is not set", fix)
    return Finding("access", "ok", "with API keys" if on else f"without keys, on {settings.host}")


def look_at_device(settings: Settings) -> Finding:
    import torch

    build = f"torch {torch.__version__}" + (f" for CUDA {torch.version.cuda}" if torch.version.cuda else " for CPUs")
    serious: State = "fail" if settings.device.startswith("cuda") else "warn"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Finding("device", "ok", f"{names}; {build}")
    if gpu_is_here() and torch.version.cuda is None:
        fix = "install torch for your CUDA version, which nvidia-smi shows: https://pytorch.org/get-started/locally"
        return Finding("device", serious, f"there is a GPU, but {build} cannot use it", fix)
    if gpu_is_here():
        fix = "update the NVIDIA driver, or install torch for the CUDA version that nvidia-smi shows"
        return Finding("device", serious, f"there is a GPU, but {build} cannot use it with this driver", fix)
    if serious == "fail":
        fix = "set FOI_DEVICE=cpu; in a container, start it with the GPU (docker run --gpus all)"
        return Finding("device", "fail", f"FOI_DEVICE={settings.device}, but there is no GPU", fix)
    if torch.version.cuda is not None:
        fix = "nothing, if the CPU is enough; in a container, start it with the GPU (docker run --gpus all)"
        return Finding("device", "warn", f"no GPU; {build}", fix)
    return Finding("device", "ok", f"CPU; {build}")


def gpu_is_here() -> bool:
    """NVIDIA's device nodes, or WSL's."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def look_at_redis(settings: Settings) -> Finding:
    from jobs.connection import RedisError, connect
    from jobs.redis_server import MIN_VERSION, RedisUnavailableError, find_binary

    if not settings.redis_url:
        try:
            return Finding("redis", "ok", f"embedded: {find_binary()}")
        except RedisUnavailableError as error:
            return Finding("redis", "fail", "there is none", str(error))
    shown = without_password(settings.redis_url)
    try:
        with connect(settings.redis_url, decode=True) as redis:
            about = redis.info()
    except (RedisError, ValueError) as error:
        fix = "start it, or correct FOI_REDIS_URL; without that an embedded one is used"
        return Finding("redis", "fail", f"{shown} does not answer: {error}", fix)
    version = str(about["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < MIN_VERSION:
        wanted = ".".join(map(str, MIN_VERSION))
        return Finding("redis", "fail", f"{shown} is version {version}", f"use Redis or Valkey {wanted} or later")
    policy = about.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        fix = "set maxmemory-policy noeviction: under another one records of edits vanish when memory is short"
        return Finding("redis", "warn", f"{shown}, version {version}, evicts: {policy}", fix)
    return Finding("redis", "ok", f"{shown}, version {version}")


def look_at_store(settings: Settings) -> Finding:
    from obstore.exceptions import BaseError as StoreError

    from jobs import logs
    from jobs.blobs import BlobStore
    from jobs.object_store import StoreSettingError, reason

    logs.configure(settings.model_copy(update={"log_level": "ERROR"}))
    if not settings.store:
        return look_at_folder(settings.data_dir)
    try:
        BlobStore.of(settings).check_writable()
    except StoreSettingError as error:
        return Finding("store", "fail", str(error), "correct FOI_STORE, or the credentials in the environment")
    except (StoreError, OSError) as error:
        fix = "is its endpoint right, and reachable from here?"
        return Finding("store", "fail", f"{settings.store} cannot be written: {reason(error)}", fix)
    return Finding("store", "ok", settings.store)


def look_at_folder(data_dir: Path) -> Finding:
    """Makes nothing that stays."""
    place = nearest(data_dir)
    try:
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        fix = "set FOI_DATA_DIR to a folder that this user may write, or change this one's owner"
        return Finding("store", "fail", f"{place.absolute()} cannot be written: {error.strerror}", fix)
    return Finding("store", "ok", f"{data_dir.absolute()} is writable")


def look_at_disk(data_dir: Path) -> Finding:
    free = shutil.disk_usage(nearest(data_dir)).free
    found = f"{free / GIB:.1f} GiB free for {data_dir.absolute()}"
    if free >= LOW_BYTES:
        return Finding("disk", "ok", found)
    fix = "make room, set FOI_DATA_DIR to another disk, or keep edits shorter (FOI_RETENTION_S)"
    return Finding("disk", "fail" if free < FULL_BYTES else "warn", found, fix)


def nearest(folder: Path) -> Path:
    """The folder, or the first one above it that exists."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def look_at_port(host: str, port: int) -> Finding:
    from worker.supervisor import try_port

    try:
        try_port(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _is_ours(host, port):
            return Finding("port", "ok", f"the service runs on {host}:{port} already")
        fix = "set FOI_PORT to a free port, and FOI_HOST to an address of this machine"
        return Finding("port", "fail", f"cannot listen on {host}:{port}: {error.strerror}", fix)
    return Finding("port", "ok", f"{host}:{port} is free")


def _is_ours(host: str, port: int) -> bool:
    place = f"[{host}]" if ":" in host else host
    try:
        with urllib.request.urlopen(f"http://{place}:{port}/livez", timeout=2) as answer:
            return b"alive" in answer.read(100)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def look_at_model(settings: Settings) -> Finding:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported: looking downloads nothing
    from worker.loading import UnusableModelError, load_engine

    try:
        engine = load_engine(settings, settings.device)
    except UnusableModelError as error:
        if _is_absent(error):
            fix = "the first start downloads it, where the network allows; or set FOI_MODEL to its folder"
            return Finding("model", "warn", f"{settings.model} is not whole in the cache of this machine", fix)
        return Finding("model", "fail", str(error), "set FOI_MODEL to one that can be used (docs/checkpoints.md)")
    return Finding("model", "ok", f"{engine.model} is loaded on {engine.device}")


def _is_absent(error: BaseException | None) -> bool:
    """Whether it is for the hub alone that a model could not be found."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RevisionResolutionError

    while error is not None:
        if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | RevisionResolutionError):
            return True
        error = error.__cause__
    return False
