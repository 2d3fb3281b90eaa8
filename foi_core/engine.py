"""The FoI sampler: edits are admitted, stepped together in one UNet batch, and finished."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from foi_core import attention, guidance, images, masks, schedule
from foi_core.errors import InvalidParameter
from foi_core.keywords import find_keyword
from foi_core.model import Model, load
from foi_core.result import EditResult, EditWarning, Keyword, Progress, Stage
from foi_core.spec import SEED_LIMIT, EditSpec, ModelDefaults, SubInstruction
from foi_core.tokens import TokenisedInstruction, tokenise
from foi_core.warnings import edit_warnings

OnProgress = Callable[[Progress], None]


@dataclass
class EditState:
    """Loop state of one edit in flight; everything else about it is in `spec`."""

    spec: EditSpec
    image: Image.Image
    text: TokenisedInstruction
    threshold: float
    plan: schedule.Schedule
    generator: torch.Generator
    latents: Tensor  # (1, C, h, w), scaled, float32
    image_latents: Tensor  # (1, C, h, w), unscaled
    text_states: Tensor  # (1, tokens, width)
    step: int = 0
    keywords: list[Keyword | None] = field(default_factory=list)
    attention_maps: list[Tensor | None] = field(default_factory=list)
    focus: attention.Focus | None = None
    union: Tensor | None = None  # (h, w) at the latent's resolution

    @property
    def done(self) -> bool:
        return self.step == len(self.plan)

    @property
    def mask_step(self) -> int:
        return min(int(self.spec.mask_at * len(self.plan)), len(self.plan) - 1)

    @property
    def takes_masks(self) -> bool:
        return self.spec.method == "foi" and self.step == self.mask_step

    @property
    def modulated(self) -> bool:
        return self.focus is not None and self.step < round(self.spec.modulation_end * len(self.plan))

    @property
    def disentangled(self) -> bool:
        return self.union is not None and self.step < round(self.spec.disentangle_end * len(self.plan))


class Engine:
    """A warm model and the sampler. One thread at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        with torch.inference_mode():
            self._null_states = model.encode_text(self._null_ids())

    @classmethod
    def load(cls, model: str = "demo", device: str = "auto") -> Engine:
        """Loads "demo", a folder or a model id of the InstructPix2Pix family; `device` is auto, cpu, cuda or cuda:N."""
        return cls(load(model, device))

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
        """One short edit at the native size, so that the first real one meets no cold kernel."""
        side = self._model.resolution
        self.edit(Image.new("RGB", (side, side)), EditSpec((SubInstruction("warm up"),), num_inference_steps=2, seed=0))

    @torch.inference_mode()
    def edit(self, image: Image.Image, spec: EditSpec, on_progress: OnProgress | None = None) -> EditResult:
        """Edits one picture. `on_progress` is called after every step; what it raises ends the edit and reaches the
        caller.

        Raises InvalidParameter for a keyword that is not in its text or a mask that is not of the picture's size.
        """
        begun = time.perf_counter()

        def tell(stage: Stage, state: EditState | None = None) -> None:
            if on_progress is not None:
                on_progress(Progress(state.step if state else 0, len(state.plan) if state else 0, stage))

        tell("encode")
        state = self._admit(image.convert("RGB"), spec)
        while not state.done:
            self._step([state])
            tell("denoise", state)
        tell("decode", state)
        return self._finish(state, begun)

    def _admit(self, image: Image.Image, spec: EditSpec) -> EditState:
        """Everything before the first step: keywords, text and picture encoded, noise drawn from the edit's own
        seed."""
        model = self._model
        _check_masks(image, spec)
        spec = spec.with_defaults(model.defaults, seed=secrets.randbelow(SEED_LIMIT))
        assert spec.seed is not None
        assert spec.num_inference_steps is not None
        words = tuple(find_keyword(s.text) if s.keyword is None else s.keyword.strip() for s in spec.instructions)
        text = tokenise(model.tokenizer, spec.instructions, words)
        size = images.model_size(*image.size, model.resolution)
        image_latents = model.encode_image(images.to_tensor(image, size)).float()
        plan = schedule.make_schedule(model.scheduler, spec.num_inference_steps, spec.strength)
        generator = torch.Generator().manual_seed(spec.seed)
        noise = self._noise(image_latents, generator)
        return EditState(
            spec=spec,
            image=image,
            text=text,
            threshold=_draw_threshold(spec),
            plan=plan,
            generator=generator,
            latents=schedule.start_latents(plan, image_latents * model.vae.config.scaling_factor, noise),
            image_latents=image_latents,
            text_states=model.encode_text(text.ids),
            keywords=[
                Keyword(word, tokens, "rule" if part.keyword is None else "given") if word else None
                for part, word, tokens in zip(spec.instructions, words, text.keywords, strict=True)
            ],
        )

    def _step(self, states: list[EditState]) -> None:
        """One denoising step for edits of one latent size, each at its own step: one UNet batch of three rows an
        edit."""
        model, n = self._model, len(states)
        timesteps = torch.stack([s.plan.timesteps[s.step] for s in states])
        sigma = schedule.as_column([float(s.plan.sigmas[s.step]) for s in states], states[0].latents)
        sigma_next = schedule.as_column([float(s.plan.sigmas[s.step + 1]) for s in states], states[0].latents)
        latents = torch.cat([s.latents for s in states])

        noisy = schedule.model_input(latents, sigma)
        condition = torch.cat([s.image_latents for s in states])
        rows = torch.cat([noisy] * 3), torch.cat([condition, condition, torch.zeros_like(condition)])
        text = torch.cat([*(s.text_states for s in states), *[self._null_states] * (2 * n)])
        pass_plan = attention.Plan(
            latent_size=(latents.shape[-2], latents.shape[-1]),
            watch=tuple(i for i, s in enumerate(states) if s.takes_masks),
            focus=tuple(
                attention.FocusRow(
                    i, n + i, s.focus, attention.xi(float(timesteps[i]) / model.scheduler.config.num_train_timesteps)
                )
                for i, s in enumerate(states)
                if s.modulated and s.focus is not None
            ),
        )
        with model.cross_attention.apply(pass_plan):
            output = model.unet(
                torch.cat(rows, dim=1).to(model.dtype), timesteps.repeat(3).to(model.device), encoder_hidden_states=text
            ).sample
        eIT, eI0, e00 = output.float().chunk(3)  # INSTRUCTION, NULL_INSTRUCTION, UNCONDITIONAL
        self._take_masks(states, pass_plan)

        s_I = schedule.as_column([s.spec.image_guidance_scale or 0.0 for s in states], latents)
        s_T = schedule.as_column([s.spec.guidance_scale or 0.0 for s in states], latents)
        prediction = guidance.ip2p_guidance(e00, eI0, eIT, s_I, s_T)
        if any(s.disentangled for s in states):
            everywhere = torch.ones(latents.shape[-2:], device=latents.device)
            where = [s.union if s.disentangled and s.union is not None else everywhere for s in states]
            prediction = guidance.disentangled_guidance(e00, eI0, eIT, s_I, s_T, torch.stack(where)[:, None])
        clean = schedule.denoised(latents, prediction, sigma, model.scheduler.config.prediction_type)
        noise = torch.cat([self._noise(s.latents, s.generator) for s in states])
        latents = schedule.euler_ancestral_step(latents, clean, sigma, sigma_next, noise)
        for state, stepped in zip(states, latents.chunk(n), strict=True):
            state.latents = stepped
            state.step += 1

    def _take_masks(self, states: list[EditState], plan: attention.Plan) -> None:
        """Eq. 2 for the edits whose attention was watched in this step, and Eq. 8 for their union."""
        if not plan.watch:
            return
        for seen, index in zip(plan.attention(self._model.cross_attention.level), plan.watch, strict=True):
            state, grid = states[index], (seen.shape[0], seen.shape[1])
            found = []
            for i, part in enumerate(state.spec.instructions):
                if part.mask is not None:
                    found.append(images.mask_to_grid(part.mask, grid).to(seen.device))
                    state.attention_maps.append(None)
                    continue
                attention_map = self._attention_map(state, i, seen)
                found.append(masks.binarise(attention_map, state.threshold))
                state.attention_maps.append(attention_map)
            regions = torch.stack(found)
            alpha = [part.intensity for part in state.spec.instructions]
            state.focus = attention.Focus(
                masks=regions,
                owner=torch.tensor(state.text.owner, device=seen.device),
                alpha=torch.tensor([*alpha, 1.0], device=seen.device)[list(state.text.owner)],
            )
            state.union = self._latent_union(state, regions)

    def _attention_map(self, state: EditState, i: int, seen: Tensor) -> Tensor:
        """The enhanced map of sub-instruction i; its keyword is settled here where no rule found one."""
        keyword = state.keywords[i]
        if keyword is None and state.text.words[i]:
            word, tokens = min(state.text.words[i], key=lambda w: masks.entropy(masks.keyword_map(seen, list(w[1]))))
            keyword = state.keywords[i] = Keyword(word, tokens, "attention")
        if keyword is None or not keyword.token_indices:
            return seen.new_zeros(seen.shape[:2])
        return masks.enhance(masks.smooth(masks.keyword_map(seen, list(keyword.token_indices))))

    def _latent_union(self, state: EditState, regions: Tensor) -> Tensor:
        """M_union of Eq. 8; a caller's mask comes straight from its picture, at the latent's own resolution."""
        size = (state.latents.shape[-2], state.latents.shape[-1])
        at_latent = [
            images.mask_to_grid(part.mask, size).to(regions.device)
            if part.mask is not None
            else masks.interpolate(region, size)
            for part, region in zip(state.spec.instructions, regions, strict=True)
        ]
        return masks.union(torch.stack(at_latent))

    def _finish(self, state: EditState, begun: float) -> EditResult:
        """Decoded, at the input's size, the input put back outside the masks, and what the caller should know."""
        size = state.image.size
        edited = images.to_image(self._model.decode(state.latents)[0], size)
        found: tuple[Image.Image, ...] = ()
        if state.focus is not None:
            found = tuple(
                images.picture_mask(part.mask) if part.mask is not None else images.mask_to_image(region, size)
                for part, region in zip(state.spec.instructions, state.focus.masks, strict=True)
            )
        if found and state.spec.preserve_outside_mask:
            edited = images.composite(edited, state.image, images.union(list(found)))
        scaled = state.latents / self._model.vae.config.scaling_factor
        return EditResult(
            image=edited,
            masks=found,
            attention_maps=tuple(None if m is None else m.cpu().numpy() for m in state.attention_maps),
            keywords=tuple(state.keywords) if found else (),
            warnings=self._warnings(state, found, scaled),
            spec=state.spec,
            threshold=state.threshold,
            seconds=time.perf_counter() - begun,
        )

    def _warnings(self, state: EditState, found: tuple[Image.Image, ...], latents: Tensor) -> tuple[EditWarning, ...]:
        inside = state.union if state.union is not None else torch.ones(latents.shape[-2:], device=latents.device)
        return edit_warnings(state.text, found, state.keywords, latents, state.image_latents, inside)

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Drawn on the CPU, so that a seed means the same on every device, by the edit's own generator."""
        return torch.randn(like.shape, generator=generator).to(like.device)

    def _null_ids(self) -> tuple[int, ...]:
        tokenizer = self._model.tokenizer
        return tuple(tokenizer("", padding="max_length", max_length=tokenizer.model_max_length)["input_ids"])


def _draw_threshold(spec: EditSpec) -> float:
    """tau: the given number, or drawn uniformly from the range by the edit's own seed, apart from its noise."""
    assert spec.threshold is not None
    if isinstance(spec.threshold, tuple):
        return random.Random(spec.seed).uniform(*spec.threshold)
    return spec.threshold


def _check_masks(image: Image.Image, spec: EditSpec) -> None:
    for i, part in enumerate(spec.instructions):
        if part.mask is not None and part.mask.size != image.size:
            raise InvalidParameter(
                f"instructions[{i}].mask", part.mask.size, f"a mask of the picture's size {image.size}"
            )
