"""The FoI sampler: edits are admitted, stepped together in one UNet batch, and finished."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from foi_core import attention, guidance, images, regions, schedule, warnings
from foi_core.batch import Batch, union
from foi_core.checkpoint import load
from foi_core.errors import InvalidParameter, ModelFailure, UnsafeResult
from foi_core.graphs import PASSES_BEFORE_RECORDING, Compiler, CudaGraphs, GraphedUNet
from foi_core.keywords import find_keyword
from foi_core.mask_sources import Seen
from foi_core.model import Model
from foi_core.previews import Previewer
from foi_core.recipe import RECIPES, Recipe
from foi_core.result import EditResult, Keyword, Progress, Stage
from foi_core.safety import SafetyPolicy
from foi_core.spec import MAX_ASPECT, MIN_SIDE, SEED_LIMIT, EditSpec, ModelDefaults, SubInstruction
from foi_core.state import EditState, Found, Numbers
from foi_core.streams import Streams
from foi_core.tokens import TokenisedInstruction, tokenise
from foi_core.unet import UNet

OnProgress = Callable[[Progress], None]
Execution = Literal["auto", "eager", "graphs", "compiled"]


class Engine:
    """A warm model and the sampler. One thread steps; others may admit and finish."""

    def __init__(self, model: Model, execution: Execution = "auto") -> None:
        """`execution` says how passes of the UNet run: "eager"; "graphs", CUDA graphs, which "auto" is on CUDA; or
        "compiled", CUDA graphs of what torch.compile makes in the background."""
        self._model = model
        self._predict_noise = _executed(model, execution)
        self._streams = Streams(model.device)
        with torch.inference_mode():
            ids = model.tokenizer("", padding="max_length", max_length=model.tokenizer.model_max_length)["input_ids"]
            self._null_text = model.encode_text(tuple(ids))
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
        """Loads "demo", a folder or a model id of the InstructPix2Pix family, as `foi_core.checkpoint.load` does."""
        loaded = load(model, device, dtype, revision=revision, allow_pickle=allow_pickle, safety_checker=safety_checker)
        return cls(loaded, execution)

    @property
    def model(self) -> str:
        return self._model.name

    @property
    def device(self) -> str:
        return str(self._model.device)

    @property
    def defaults(self) -> ModelDefaults:
        return self._model.defaults

    @property
    def native_cells(self) -> int:
        """Latent cells of a picture of the model's own size."""
        return (self._model.resolution // self._model.latent_factor) ** 2

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height at which the model sees a picture of `size`."""
        return images.model_size(*size, self._model.resolution)

    def warm_up(self) -> int | None:
        """Takes masks once and modulates at the native size, until that is recorded where there are recordings: the
        first real edit meets no cold kernel. The bytes that it took at most beside the model, on CUDA; else None."""
        side, device = self._model.resolution, self._model.device
        steps = 1 + (1 if self._predict_noise is self._model.unet else PASSES_BEFORE_RECORDING)
        spec = EditSpec((SubInstruction("warm up"),), num_inference_steps=steps, strength=1.0, seed=0)
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        with suppress(UnsafeResult):
            self.edit(Image.new("RGB", (side, side)), spec)
        return torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None

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
        state = self.admit(image.convert("RGB"), spec)
        while state.step < state.steps:
            self.step([state])
            tell("denoise", state)
        tell("decode", state)
        return self.finish([state])[0]

    def preview(self, state: EditState) -> Image.Image | None:
        """The picture as it would be now, a pixel per latent cell; None before the first step. Needs no decoder."""
        return None if state.clean is None else self._previewer.picture(state.clean)

    @torch.inference_mode()
    def round_trip(self, image: Image.Image) -> Image.Image:
        """The picture encoded and decoded: what the VAE alone loses."""
        size = self.working_size(image.size)
        latents = self._model.encode_image(images.to_tensor(image.convert("RGB"), size))
        return images.to_image(self._model.decode(latents * self._model.vae.config.scaling_factor)[0], image.size)

    def admit(self, image: Image.Image, spec: EditSpec, recipe: Recipe | None = None) -> EditState:
        """Everything before the first step: keywords found, text and picture encoded, the first noise drawn.

        `recipe` None is the preset's. Raises InvalidParameter as `edit` does.
        """
        with self._streams.beside():
            state = self._admitted(image, spec, recipe)
            self._streams.keep_for_steps([value for value in vars(state).values() if isinstance(value, Tensor)])
        return state

    @torch.inference_mode()
    def _admitted(self, image: Image.Image, spec: EditSpec, recipe: Recipe | None) -> EditState:
        model, begun = self._model, time.perf_counter()
        _check_picture(image, spec)
        spec = spec.with_defaults(model.defaults, seed=secrets.randbelow(SEED_LIMIT))
        assert spec.seed is not None
        assert spec.num_inference_steps is not None
        assert spec.image_guidance_scale is not None
        assert spec.guidance_scale is not None
        recipe = recipe or RECIPES[spec.preset]
        words = tuple(find_keyword(s.text) if s.keyword is None else s.keyword.strip() for s in spec.instructions)
        text = tokenise(model.tokenizer, spec.instructions, words)
        size = self.working_size(image.size)
        image_latents = model.encode_image(images.to_tensor(image, size)).float()
        steps = schedule.make_schedule(model.scheduler, spec.num_inference_steps, spec.strength)
        generator = torch.Generator().manual_seed(spec.seed)
        first, *later = (_noise(image_latents, generator) for _ in range(1 + len(steps)))
        texts_apart: tuple[TokenisedInstruction, ...] = ()
        # One sub-instruction by itself already is the whole instruction.
        if len(words) > 1 and recipe.apart and spec.method != "ip2p":
            pairs = zip(spec.instructions, words, strict=True)
            texts_apart = tuple(tokenise(model.tokenizer, (part,), (word,)) for part, word in pairs)
        return EditState(
            spec=spec,
            begun=begun,
            recipe=recipe,
            image=image,
            text=text,
            keywords=tuple(
                Keyword(word, tokens, "rule" if part.keyword is None else "given") if word else None
                for part, word, tokens in zip(spec.instructions, words, text.keywords, strict=True)
            ),
            threshold=_draw_threshold(spec),
            schedule=steps,
            numbers=self._numbers(steps, spec.image_guidance_scale, spec.guidance_scale).to(model.device),
            time_shifts=model.unet.time_shifts(steps.timesteps.to(model.device)),
            noise=torch.cat(later).to(model.device),
            latents=schedule.start_latents(
                steps, image_latents * model.vae.config.scaling_factor, first.to(model.device)
            ),
            image_latents=image_latents,
            instruction_text=model.encode_text(text.ids),
            texts_apart=texts_apart,
            apart_text=torch.cat([model.encode_text(t.ids) for t in texts_apart]) if texts_apart else None,
        )

    def _numbers(self, steps: schedule.Schedule, s_I: float, s_T: float) -> Tensor:
        """Every step's `Numbers`, (steps, 5)."""
        xi = [attention.xi(float(t) / self._model.train_timesteps) for t in steps.timesteps]
        constant = torch.ones(len(steps))
        columns = Numbers(steps.sigmas[:-1], steps.sigmas[1:], s_I * constant, s_T * constant, torch.tensor(xi))
        return torch.stack(columns, dim=1).float()

    @torch.inference_mode()
    def step(self, states: list[EditState]) -> None:
        """One denoising step for edits of one latent size, each at its own step: one UNet batch, two or three rows an
        edit. If it raises, no state has changed, and the step may be tried again."""
        states = sorted(states, key=lambda state: not state.part.in_focus)
        with self._streams.step():
            stepped, clean, found, batch = self._stepped(states)
        for i, state in enumerate(states):
            state.latents, state.clean, state.found = stepped[i : i + 1], clean[i : i + 1], found[i]
            state.unet_rows += batch.owners.count(i)
            state.step += 1

    def _stepped(self, states: list[EditState]) -> tuple[Tensor, Tensor, list[Found | None], Batch]:
        """The latents after this step and the clean ones that the prediction stands for, (n, C, h, w) each."""
        model = self._model
        batch = Batch.of(states, self._null_text, model.unet.sizes(states[0].latent_size))
        numbers = Numbers(*torch.stack([s.numbers[s.step] for s in states])[:, :, None, None, None].unbind(1))
        latents = torch.cat([s.latents for s in states])
        (eIT, eI0, e00), found = self._predict(states, batch, schedule.model_input(latents, numbers.sigma), numbers)

        where = union(states, found, batch.parts) if batch.watch else batch.where
        if where is None:
            prediction = guidance.ip2p_guidance(e00, eI0, eIT, numbers.s_I, numbers.s_T)
        else:
            prediction = guidance.disentangled_guidance(e00, eI0, eIT, numbers.s_I, numbers.s_T, where)
        clean = schedule.denoised(latents, prediction, numbers.sigma, model.scheduler.config.prediction_type)
        for i, (state, one) in enumerate(zip(states, found, strict=True)):
            if one is not None and state.recipe.outside is not None:
                source = state.image_latents[0] * model.vae.config.scaling_factor
                clean[i] = state.recipe.outside(clean[i], source, one.regions.union(state.latent_size))
        noise = torch.stack([s.noise[s.step] for s in states])
        stepped = schedule.euler_ancestral_step(latents, clean, numbers.sigma, numbers.sigma_next, noise)
        return stepped, clean, found, batch

    def _predict(
        self, states: list[EditState], batch: Batch, noisy: Tensor, numbers: Numbers
    ) -> tuple[tuple[Tensor, Tensor, Tensor], list[Found | None]]:
        """e_IT, e_I0 and e_00 (INSTRUCTION, NULL_INSTRUCTION, UNCONDITIONAL), float32 (n, C, h, w) each, and what is
        found so far, masks that are taken in this step included.

        Where an edit has no unconditional row, e_I0 stands for e_00, whose weight is zero.
        """
        model, n = self._model, len(states)
        watch = attention.Watch(batch.watch, model.map_level)
        output = self._predict_noise(
            torch.cat([noisy.to(model.dtype)[batch.rows], batch.condition], dim=1),
            torch.stack([s.time_shifts[s.step] for s in states])[batch.rows],
            batch.text,
            batch.focus(numbers.xi.flatten()),
            (watch, *batch.rewrites) if batch.watch else batch.rewrites,
        ).float()
        eIT, eI0, e00 = output[:n], output[n : 2 * n], output[batch.e00]
        found = [s.found for s in states]
        if batch.watch:
            found = self._take_masks(states, batch, watch, output, eI0)
        return (eIT, eI0, e00), found

    def _take_masks(
        self, states: list[EditState], batch: Batch, watch: attention.Watch, output: Tensor, eI0: Tensor
    ) -> list[Found | None]:
        """Eq. 2 for the edits that were watched in this step."""
        seen: dict[int, list[Seen]] = {}
        for place, (row, one) in enumerate(zip(watch.rows, watch.attention, strict=True)):
            i = batch.owners[row]
            seen.setdefault(i, []).append(Seen(one, output[row] - eI0[i], place))
        return [self._found(state, seen[i]) if i in seen else state.found for i, state in enumerate(states)]

    def _found(self, state: EditState, rows: list[Seen]) -> Found:
        parts = state.spec.instructions
        each = rows if state.part.watches_apart else rows * len(parts)
        found, maps, keywords = zip(*(self._region(state, i, seen) for i, seen in enumerate(each)), strict=True)
        return Found(regions.assemble(list(found), state.text, [part.intensity for part in parts]), maps, keywords)

    def _region(self, state: EditState, i: int, seen: Seen) -> tuple[regions.Region, Tensor | None, Keyword | None]:
        """Where sub-instruction i acts, the map that says so, and its keyword: attention's if there was none."""
        given, keyword = state.spec.instructions[i].mask, state.keywords[i]
        if given is not None:
            grid = (seen.attention.shape[0], seen.attention.shape[1])
            return regions.Region.from_picture(given, grid, seen.attention.device), None, keyword
        text, at = (state.texts_apart[i], 0) if state.part.watches_apart else (state.text, i)
        tokens = text.keywords[at]
        if keyword is None and text.words[at]:
            word, tokens = regions.most_concentrated(text.words[at], seen.attention)
            in_whole = dict(state.text.words[i]).get(word, ()) if state.part.watches_apart else tokens
            keyword = Keyword(word, in_whole, "attention")
        soft = state.recipe.mask_source.soft_map(seen, tokens)
        return state.recipe.mask_source.region(soft, state.threshold, state.image), soft, keyword

    def finish(self, states: list[EditState]) -> list[EditResult]:
        """Finished edits of one latent size: decoded together, at the input's size, the input put back outside the
        masks, and what the caller should know. Raises ModelFailure and UnsafeResult."""
        with self._streams.beside():
            return self._finished(states)

    @torch.inference_mode()
    def _finished(self, states: list[EditState]) -> list[EditResult]:
        latents = torch.cat([s.latents for s in states])
        if not torch.isfinite(latents).all():
            raise ModelFailure("the model gave numbers that are not finite; try dtype float32")
        edited = [s for s in states if s.spec.method != "masks"]
        pixels = self._model.decode(torch.cat([s.latents for s in edited])) if edited else ()
        pictures = iter([self._picture(state, one) for state, one in zip(edited, pixels, strict=True)])
        flags = iter([self._model.safety.flags(one) if self._model.safety else None for one in pixels])
        return [
            self._result(s, s.image, None) if s.spec.method == "masks" else self._result(s, next(pictures), next(flags))
            for s in states
        ]

    def _picture(self, state: EditState, pixels: Tensor) -> Image.Image:
        edited = images.to_image(pixels, state.image.size)
        if state.found is None or not state.spec.preserve_outside_mask:
            return edited
        return state.recipe.compositor(edited, state.image, images.union(list(_masks(state))))

    def _result(self, state: EditState, image: Image.Image, flagged: bool | None) -> EditResult:
        found, masks = state.found, _masks(state)
        return EditResult(
            image=image,
            masks=masks,
            attention_maps=tuple(None if m is None else m.cpu().numpy() for m in found.attention_maps) if found else (),
            keywords=found.keywords if found else (),
            warnings=(
                *warnings.text_warnings(state.text),
                *warnings.mask_warnings(masks, found.keywords if found else (), state.spec.instructions),
                *warnings.change_warnings(self._change(state)),
            ),
            spec=state.spec,
            threshold=state.threshold,
            seconds=time.perf_counter() - state.begun,
            unet_rows=state.unet_rows,
            flagged=flagged,
        )

    def _change(self, state: EditState) -> float | None:
        """How much the latents changed where they could; None for an edit that only wanted masks."""
        if state.spec.method == "masks":
            return None
        inside = torch.ones(state.latent_size, device=state.latents.device)
        if state.found is not None:
            inside = state.found.regions.union(state.latent_size)
        after = state.latents / self._model.vae.config.scaling_factor
        return warnings.relative_change(after, state.image_latents, inside)


def _executed(model: Model, execution: Execution) -> UNet | GraphedUNet:
    on_cuda = model.device.type == "cuda"
    if execution not in get_args(Execution) or (execution in ("graphs", "compiled") and not on_cuda):
        raise InvalidParameter("execution", execution, "auto or eager; on CUDA graphs and compiled too")
    if execution == "eager" or not on_cuda:
        return model.unet
    return GraphedUNet(model.unet, CudaGraphs(), Compiler() if execution == "compiled" else None)


def _masks(state: EditState) -> tuple[Image.Image, ...]:
    size = state.image.size
    return tuple(region.picture(size) for region in state.found.regions.each) if state.found else ()


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on every device."""
    return torch.randn(like.shape, generator=generator)


def _draw_threshold(spec: EditSpec) -> float:
    """tau: the given number, or drawn uniformly from the range by the edit's own seed, apart from its noise."""
    assert spec.threshold is not None
    if isinstance(spec.threshold, tuple):
        return random.Random(spec.seed).uniform(*spec.threshold)
    return spec.threshold


def _check_picture(image: Image.Image, spec: EditSpec) -> None:
    if min(image.size) < MIN_SIDE or max(image.size) > MAX_ASPECT * min(image.size):
        allowed = f"sides of at least {MIN_SIDE} pixels, one at most {MAX_ASPECT} times the other"
        raise InvalidParameter("image", image.size, allowed)
    for i, part in enumerate(spec.instructions):
        if part.mask is not None and part.mask.size != image.size:
            raise InvalidParameter(
                f"instructions[{i}].mask", part.mask.size, f"a mask of the picture's size {image.size}"
            )
