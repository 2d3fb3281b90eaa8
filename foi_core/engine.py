"""The FoI sampler: edits are admitted, stepped together in one UNet batch, and finished."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from foi_core import attention, guidance, images, masks, regions, schedule, warnings
from foi_core.errors import InvalidParameter, ModelFailure
from foi_core.keywords import find_keyword
from foi_core.model import Model, load
from foi_core.result import EditResult, Keyword, Progress, Stage
from foi_core.spec import MAX_ASPECT, MIN_SIDE, SEED_LIMIT, EditSpec, ModelDefaults, SubInstruction
from foi_core.state import EditState
from foi_core.tokens import tokenise

OnProgress = Callable[[Progress], None]


class Engine:
    """A warm model and the sampler. One thread at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        with torch.inference_mode():
            ids = model.tokenizer("", padding="max_length", max_length=model.tokenizer.model_max_length)["input_ids"]
            self._null_states = model.encode_text(tuple(ids))

    @classmethod
    def load(cls, model: str = "demo", device: str = "auto", dtype: str = "auto") -> Engine:
        """Loads "demo", a folder or a model id of the InstructPix2Pix family.

        `device` is auto, cpu, cuda or cuda:N; `dtype` auto (float16 on CUDA, float32 on a CPU), float32, float16 or
        bfloat16.
        """
        return cls(load(model, device, dtype))

    @property
    def model(self) -> str:
        return self._model.name

    @property
    def device(self) -> str:
        return str(self._model.device)

    @property
    def defaults(self) -> ModelDefaults:
        return self._model.defaults

    def warm_up(self) -> None:
        """Takes masks once and modulates once at the native size: the first real edit meets no cold kernel."""
        side = self._model.resolution
        spec = EditSpec((SubInstruction("warm up"),), num_inference_steps=2, strength=1.0, seed=0)
        self.edit(Image.new("RGB", (side, side)), spec)

    @torch.inference_mode()
    def edit(self, image: Image.Image, spec: EditSpec, on_progress: OnProgress | None = None) -> EditResult:
        """Edits one picture. `on_progress` is told of every step; what it raises ends the edit and reaches the caller.

        The picture is taken as PIL gives it: EXIF orientation and transparency are the caller's to settle. Raises
        InvalidParameter for a picture that is too small or too narrow and for a mask of another size, and ModelFailure
        where the model's numbers overflow.
        """
        begun = time.perf_counter()

        def tell(stage: Stage, state: EditState | None = None) -> None:
            if on_progress is not None:
                on_progress(Progress(state.step if state else 0, state.steps if state else 0, stage))

        tell("encode")
        state = self._admit(image.convert("RGB"), spec)
        while state.step < state.steps:
            self._step([state])
            tell("denoise", state)
        tell("decode", state)
        return self._finish(state, begun)

    def _admit(self, image: Image.Image, spec: EditSpec) -> EditState:
        """Everything before the first step: keywords found, text and picture encoded, the first noise drawn."""
        model = self._model
        _check_picture(image, spec)
        spec = spec.with_defaults(model.defaults, seed=secrets.randbelow(SEED_LIMIT))
        assert spec.seed is not None
        assert spec.num_inference_steps is not None
        assert spec.image_guidance_scale is not None
        assert spec.guidance_scale is not None
        words = tuple(find_keyword(s.text) if s.keyword is None else s.keyword.strip() for s in spec.instructions)
        text = tokenise(model.tokenizer, spec.instructions, words)
        size = images.model_size(*image.size, model.resolution)
        image_latents = model.encode_image(images.to_tensor(image, size)).float()
        steps = schedule.make_schedule(model.scheduler, spec.num_inference_steps, spec.strength)
        generator = torch.Generator().manual_seed(spec.seed)
        noise = _noise(image_latents, generator)
        return EditState(
            spec=spec,
            image=image,
            text=text,
            threshold=_draw_threshold(spec),
            s_I=spec.image_guidance_scale,
            s_T=spec.guidance_scale,
            schedule=steps,
            generator=generator,
            latents=schedule.start_latents(steps, image_latents * model.vae.config.scaling_factor, noise),
            image_latents=image_latents,
            text_states=model.encode_text(text.ids),
            keywords=[
                Keyword(word, tokens, "rule" if part.keyword is None else "given") if word else None
                for part, word, tokens in zip(spec.instructions, words, text.keywords, strict=True)
            ],
        )

    def _step(self, states: list[EditState]) -> None:
        """One denoising step for edits of one latent size, each at its own step: one UNet batch, three rows an edit."""
        model = self._model
        latents = torch.cat([s.latents for s in states])
        sigma = schedule.as_column([float(s.schedule.sigmas[s.step]) for s in states], latents)
        sigma_next = schedule.as_column([float(s.schedule.sigmas[s.step + 1]) for s in states], latents)
        eIT, eI0, e00 = self._predict(states, schedule.model_input(latents, sigma))

        s_I = schedule.as_column([s.s_I for s in states], latents)
        s_T = schedule.as_column([s.s_T for s in states], latents)
        unions = [s.union for s in states]
        if any(union is not None for union in unions):
            everywhere = torch.ones(latents.shape[-2:], device=latents.device)
            where = torch.stack([everywhere if union is None else union for union in unions])[:, None]
            prediction = guidance.disentangled_guidance(e00, eI0, eIT, s_I, s_T, where)
        else:
            prediction = guidance.ip2p_guidance(e00, eI0, eIT, s_I, s_T)

        clean = schedule.denoised(latents, prediction, sigma, model.scheduler.config.prediction_type)
        noise = torch.cat([_noise(s.latents, s.generator) for s in states])
        stepped = schedule.euler_ancestral_step(latents, clean, sigma, sigma_next, noise)
        for state, one in zip(states, stepped.split(1), strict=True):
            state.latents = one
            state.step += 1

    def _predict(self, states: list[EditState], noisy: Tensor) -> tuple[Tensor, ...]:
        """e_IT, e_I0 and e_00 (INSTRUCTION, NULL_INSTRUCTION, UNCONDITIONAL), float32 (n, C, h, w) each.

        Takes the masks of the edits that are at their mask step.
        """
        model, n = self._model, len(states)
        timesteps = torch.stack([s.schedule.timesteps[s.step] for s in states])
        condition = torch.cat([s.image_latents for s in states])
        conditions = torch.cat([condition, condition, torch.zeros_like(condition)])
        text = torch.cat([*(s.text_states for s in states), *[self._null_states] * (2 * n)])
        plan = attention.Plan(
            latent_size=(noisy.shape[-2], noisy.shape[-1]),
            watch=tuple(i for i, s in enumerate(states) if s.takes_masks),
            focus=tuple(
                attention.FocusRow(i, n + i, s.modulating, attention.xi(float(t) / model.train_timesteps))
                for i, (s, t) in enumerate(zip(states, timesteps, strict=True))
                if s.modulating is not None
            ),
        )
        with model.cross_attention.apply(plan):
            output: Tensor = model.unet(
                torch.cat([torch.cat([noisy] * 3), conditions], dim=1).to(model.dtype),
                timesteps.repeat(3).to(model.device),
                encoder_hidden_states=text,
            ).sample
        self._take_masks(states, plan)
        return output.float().chunk(3)

    def _take_masks(self, states: list[EditState], watched: attention.Plan) -> None:
        """Eq. 2 for the edits whose attention was watched in this step."""
        if not watched.watch:
            return
        for seen, index in zip(watched.attention(self._model.cross_attention.level), watched.watch, strict=True):
            state = states[index]
            found = [self._region(state, i, seen) for i in range(len(state.spec.instructions))]
            intensities = [part.intensity for part in state.spec.instructions]
            state.regions = regions.assemble(found, state.text, intensities)

    def _region(self, state: EditState, i: int, seen: Tensor) -> regions.Region:
        """Where sub-instruction i acts; remembers its map, and its keyword if attention had to choose it."""
        given = state.spec.instructions[i].mask
        if given is not None:
            state.attention_maps.append(None)
            grid = (seen.shape[0], seen.shape[1])
            return regions.Region(images.mask_to_grid(given, grid).to(seen.device), given)
        state.keywords[i] = regions.settle_keyword(state.keywords[i], state.text.words[i], seen)
        enhanced = regions.attention_map(state.keywords[i], seen)
        state.attention_maps.append(enhanced)
        return regions.Region(masks.binarise(enhanced, state.threshold))

    def _finish(self, state: EditState, begun: float) -> EditResult:
        """Decoded, at the input's size, the input put back outside the masks, and what the caller should know."""
        if not torch.isfinite(state.latents).all():
            raise ModelFailure("the model gave numbers that are not finite; try dtype float32")
        size = state.image.size
        edited = images.to_image(self._model.decode(state.latents)[0], size)
        found = tuple(region.picture(size) for region in state.regions.each) if state.regions else ()
        if found and state.spec.preserve_outside_mask:
            edited = images.composite(edited, state.image, images.union(list(found)))
        return EditResult(
            image=edited,
            masks=found,
            attention_maps=tuple(None if m is None else m.cpu().numpy() for m in state.attention_maps),
            keywords=tuple(state.keywords) if found else (),
            warnings=(
                *warnings.text_warnings(state.text),
                *warnings.mask_warnings(found, state.keywords, state.spec.instructions),
                *warnings.change_warnings(self._change(state)),
            ),
            spec=state.spec,
            threshold=state.threshold,
            seconds=time.perf_counter() - begun,
        )

    def _change(self, state: EditState) -> float | None:
        """How much the latents changed where they could."""
        inside = torch.ones(state.latents.shape[-2:], device=state.latents.device)
        if state.regions is not None:
            inside = state.regions.union((inside.shape[0], inside.shape[1]))
        after = state.latents / self._model.vae.config.scaling_factor
        return warnings.relative_change(after, state.image_latents, inside)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on every device, by the edit's own generator."""
    return torch.randn(like.shape, generator=generator).to(like.device)


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
