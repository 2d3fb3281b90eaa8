"""The FoI sampler: edits are admitted, stepped together in one UNet batch, and finished."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from foi_core import images, openmp
from foi_core.admission import admitted
from foi_core.checkpoint import load
from foi_core.denoising import Denoiser
from foi_core.errors import InvalidParameter, UnsafeResult
from foi_core.finishing import Decoded, decoded
from foi_core.graphs import PASSES_BEFORE_RECORDING, Compiler, CudaGraphs, GraphedUNet
from foi_core.heartbeat import Heartbeat
from foi_core.model import Model
from foi_core.preparing import at_working_size, check_size
from foi_core.previews import Previewer
from foi_core.recipe import Recipe
from foi_core.result import EditResult, Progress, Stage
from foi_core.safety import SafetyPolicy
from foi_core.spec import EditSpec, ModelDefaults, SubInstruction
from foi_core.state import EditState
from foi_core.streams import Streams
from foi_core.unet import UNet

OnProgress = Callable[[Progress], None]
Execution = Literal["auto", "eager", "graphs", "compiled"]


class Engine:
    """A warm model and the sampler. One thread steps; others may admit and decode, and any may prepare. `heartbeat` is
    heard while the networks work, and only where they are slow enough to be taken for hung: on a CPU."""

    def __init__(self, model: Model, execution: Execution = "auto") -> None:
        """`execution` says how passes of the UNet run: "eager"; "graphs", CUDA graphs, which "auto" is on CUDA; or
        "compiled", CUDA graphs of what torch.compile makes in the background."""
        self._model = model
        self._streams = Streams(model.device)
        self.heartbeat = Heartbeat()
        if model.device.type == "cpu":
            self.heartbeat.listen(model.unet.source)
            self.heartbeat.listen(model.vae)
        with torch.inference_mode():
            self._denoiser = Denoiser(model, _executed(model, execution))
            self._previewer = Previewer.fitted(model)

    @classmethod
    def load(
        cls,
        model: str = "demo",
        device: str = "auto",
        dtype: str = "auto",
        *,
        revision: str | None = None,
        allow_pickle: bool = False,
        safety_checker: SafetyPolicy = "block",
        execution: Execution = "auto",
    ) -> Engine:
        """Loads "demo", a folder or a model id of the InstructPix2Pix family, as `foi_core.checkpoint.load` does.

        On a CPU beside other processes it is fastest where foi_core was imported before torch: see `foi_core.openmp`.
        """
        loaded = load(model, device, dtype, revision=revision, allow_pickle=allow_pickle, safety_checker=safety_checker)
        if loaded.device.type == "cpu":
            openmp.spin_less()
        return cls(loaded, execution)

    @property
    def model(self) -> str:
        return self._model.name

    @property
    def device(self) -> str:
        return str(self._model.device)

    @property
    def dtype(self) -> str:
        """float32, float16 or bfloat16."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def defaults(self) -> ModelDefaults:
        return self._model.defaults

    @property
    def native_cells(self) -> int:
        """Latent cells of a picture of the model's own size."""
        return (self._model.resolution // self._model.latent_factor) ** 2

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height at which the model sees a picture of `size`."""
        return self._model.working_size(size)

    def warm_up(self, on_progress: OnProgress | None = None) -> int | None:
        """Takes masks once and modulates at the native size, until that is recorded where there are recordings: the
        first real edit meets no cold kernel. The bytes that a step took at most beside the model, on CUDA; else None.
        `on_progress` is told of every piece of work before it begins."""
        side, device = self._model.resolution, self._model.device
        steps = 1 + (1 if self._denoiser.predict is self._model.unet else PASSES_BEFORE_RECORDING)
        spec = EditSpec((SubInstruction("warm up"),), num_inference_steps=steps, strength=1.0, seed=0)
        on_cuda, most = device.type == "cuda", None
        before = torch.cuda.memory_allocated(device) if on_cuda else 0
        tell = on_progress or (lambda _: None)
        with self.heartbeat.measured():
            tell(Progress(0, 0, "encode"))
            state = self.admit(Image.new("RGB", (side, side)), spec)
            if on_cuda:
                torch.cuda.reset_peak_memory_stats(device)
            while state.step < state.steps:
                tell(Progress(state.step, state.steps, "denoise"))
                self.step([state])
            if on_cuda:
                torch.cuda.synchronize(device)
                most = torch.cuda.max_memory_allocated(device) - before
            tell(Progress(state.step, state.steps, "decode"))
            with suppress(UnsafeResult):
                self.decode(state)
        return most

    @torch.inference_mode()
    def edit(self, image: Image.Image, spec: EditSpec, on_progress: OnProgress | None = None) -> EditResult:
        """Edits one picture. `on_progress` is told of every step; what it raises ends the edit and reaches the caller.

        The picture is taken as PIL gives it: EXIF orientation and transparency are the caller's to settle. Raises
        InvalidParameter for a picture that is too small or too narrow and for a mask of another size, and ModelFailure
        where the model's numbers overflow.
        """

        def tell(stage: Stage, state: EditState | None = None) -> None:
            if on_progress is not None:
                on_progress(Progress(state.step if state else 0, state.steps if state else 0, stage))

        tell("encode")
        state = self.admit(image, spec)
        while state.step < state.steps:
            self.step([state])
            tell("denoise", state)
        tell("decode", state)
        return self.decode(state).drawn(image, [part.mask for part in spec.instructions])

    def preview(self, state: EditState) -> Image.Image | None:
        """The picture as it would be now, a pixel per latent cell; None before the first step, and where the latents
        are not finite. Needs no decoder."""
        return None if state.clean is None else self._previewer.picture(state.clean)

    @torch.inference_mode()
    def round_trip(self, image: Image.Image) -> Image.Image:
        """The picture encoded and decoded: what the VAE alone loses."""
        size = self.working_size(image.size)
        latents = self._model.encode_image(images.to_tensor(image.convert("RGB"), size))
        decoded = self._model.decode(latents * self._model.vae.config.scaling_factor)
        return images.resized(images.to_image(decoded[0]), image.size)

    def prepare(self, image: Image.Image, spec: EditSpec) -> tuple[Image.Image, EditSpec]:
        """The picture and the masks of `spec` as the model will see them: all work at the size of `image` that comes
        before an edit's first step. What is prepared stays as it is. Uses no network: any thread may prepare. Raises
        InvalidParameter as `edit` does."""
        check_size(image.size)
        return at_working_size(image, spec, self.working_size(image.size))

    def admit(self, image: Image.Image, spec: EditSpec, recipe: Recipe | None = None) -> EditState:
        """Everything before the first step. `recipe` None is the preset's. Raises as `edit` does."""
        image, spec = self.prepare(image, spec)
        with torch.inference_mode(), self._streams.beside(after_steps=False):
            state = admitted(self._model, image, spec, recipe)
            self._streams.keep_for_steps([value for value in vars(state).values() if isinstance(value, Tensor)])
        return state

    def step(self, states: list[EditState]) -> None:
        """One denoising step for edits of one latent size, each at its own step: one UNet batch, two or three rows an
        edit. If it raises, no state has changed, and the step may be tried again, unless the device has failed."""
        with torch.inference_mode(), self._streams.step():
            self._denoiser.step(states)

    def decode(self, state: EditState) -> Decoded:
        """Everything after the last step that needs a network. Raises ModelFailure and UnsafeResult."""
        with torch.inference_mode(), self._streams.beside(after_steps=True):
            return decoded(self._model, state)


def _executed(model: Model, execution: Execution) -> UNet | GraphedUNet:
    on_cuda = model.device.type == "cuda"
    if execution not in get_args(Execution) or (execution in ("graphs", "compiled") and not on_cuda):
        raise InvalidParameter("execution", execution, "auto or eager; on CUDA graphs and compiled too")
    if execution == "eager" or not on_cuda:
        return model.unet
    return GraphedUNet(model.unet, CudaGraphs(model.device), Compiler() if execution == "compiled" else None)
