"""Who is measured: diffusers' pipeline as it is (A) and compiled (C), and our engine in each of its executions."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, StableDiffusionInstructPix2PixPipeline
from PIL import Image

from benchmarks.gpu.timing import say
from benchmarks.random_model import SD15, TINY, write_random_checkpoint
from foi_core.batching import BatchingEngine, Capacity
from foi_core.engine import Engine, Execution
from foi_core.spec import EditSpec

EXECUTIONS: dict[str, tuple[Execution, ...]] = {"cuda": ("eager", "graphs", "compiled"), "cpu": ("eager",)}
"""How the engine can run the UNet on each kind of device."""
BASELINES = {"A": "diffusers, eager", "C": "diffusers, channels_last, compiled with CUDA graphs"}
ROOM = 10**9
"""Latent cells: no limit but the number of edits."""


def ours(model: str, device: str, dtype: str, execution: Execution) -> Engine:
    """The one place that knows how an engine is made."""
    return Engine.load(model, device, dtype, safety_checker="off", execution=execution)


@contextmanager
def in_flight(engine: Engine, edits: int) -> Iterator[BatchingEngine]:
    """The engine with so many edits in a batch at most."""
    batching = BatchingEngine(engine, Capacity(edits, ROOM))
    try:
        yield batching
    finally:
        batching.close()


class Baseline:
    """diffusers' pipeline for plain InstructPix2Pix, one edit at a time. Always called from one thread: torch keeps the
    CUDA graphs of compiled code for the thread that captured them."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype, compile_mode: str | None) -> None:
        self.device = device
        self._pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        if compile_mode is not None:
            self._compile({"mode": compile_mode} if device.type == "cuda" else {"backend": "eager"})

    def edit(self, image: Image.Image, spec: EditSpec) -> Image.Image:
        """`spec`'s steps and scales, without its regions."""
        edited: Image.Image = self._pipeline(
            prompt=", ".join(part.text for part in spec.instructions),
            image=image,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            image_guidance_scale=spec.image_guidance_scale,
            generator=torch.Generator(self.device).manual_seed(spec.seed or 0),
        ).images[0]
        return edited

    def _compile(self, options: dict[str, str]) -> None:
        """As diffusers' documentation says; a CPU, which has no CUDA graphs, only traces."""
        unet, vae = self._pipeline.unet, self._pipeline.vae
        for network in (unet, vae):
            network.to(memory_format=torch.channels_last)
        unet.compile(dynamic=False, **options)
        vae.decode = torch.compile(vae.decode, dynamic=False, **options)  # type: ignore[call-overload]


@dataclass
class Subjects:
    """Each with its own weights on the device, made when it is first asked for, kept until it is released.

    `work` is a folder of this process; `checkpoint` the model's.
    """

    checkpoint: Path
    work: Path
    device: torch.device
    dtype: torch.dtype
    compile_mode: str
    _baselines: dict[str, Baseline] = field(default_factory=dict)
    _engines: dict[tuple[Execution, int], Engine] = field(default_factory=dict)

    def baseline(self, name: str) -> Baseline:
        if name not in self._baselines:
            say(f"  loading {name}: {BASELINES[name]}")
            mode = self.compile_mode if name == "C" else None
            self._baselines[name] = Baseline(self.checkpoint, self.device, self.dtype, mode)
        return self._baselines[name]

    def engine(self, execution: Execution, side: int) -> Engine:
        """Ours for pictures of this side; those for another side are released."""
        for key in [key for key in self._engines if key[1] != side]:
            del self._engines[key]
        if (execution, side) not in self._engines:
            say(f"  loading ours: {execution}, {side}x{side}")
            dtype = str(self.dtype).removeprefix("torch.")
            self._engines[execution, side] = ours(str(self.folder(side)), str(self.device), dtype, execution)
        return self._engines[execution, side]

    def folder(self, side: int) -> Path:
        """The checkpoint as if `side` were its native one, which is what the engine brings a picture to."""
        folder = self.work / f"model-{side}"
        if not folder.exists():
            for file in [file for file in self.checkpoint.rglob("*") if file.is_file()]:
                link = folder / file.relative_to(self.checkpoint)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
            config, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
            config["sample_size"] = side // 2 ** (len(vae["block_out_channels"]) - 1)
            (folder / "unet" / "config.json").unlink()
            (folder / "unet" / "config.json").write_text(json.dumps(config))
        return folder

    def release(self, keep: Execution | None = None) -> None:
        """Frees the memory of all, or of the engines but the execution `keep`, and leaves the baselines then."""
        if keep is None:
            self._baselines.clear()
            torch.compiler.reset()
        for key in [key for key in self._engines if key[0] != keep]:
            del self._engines[key]
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def checkpoint(model: str | None, *, tiny: bool, work: Path, device: torch.device, dtype: torch.dtype) -> Path:
    """The folder of `model`: a folder, a model id (which is fetched), or None: random weights, written to `work`."""
    if model is None:
        say("making random weights")
        return write_random_checkpoint(work / "random", TINY if tiny else SD15, device, dtype)
    if Path(model).is_dir():
        return Path(model).resolve()
    return Path(DiffusionPipeline.download(model, use_safetensors=True))
