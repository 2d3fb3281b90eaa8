"""The FoI sampler: edits are admitted, stepped together in one UNet batch, and finished."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from foi_core import attention, guidance, images, regions, schedule, warnings
from foi_core.errors import InvalidParameter, ModelFailure
from foi_core.keywords import find_keyword
from foi_core.mask_sources import Seen
from foi_core.model import Model, load
from foi_core.previews import Previewer
from foi_core.recipe import RECIPES, Recipe
from foi_core.result import EditResult, Keyword, Progress, Stage
from foi_core.spec import MAX_ASPECT, MIN_SIDE, SEED_LIMIT, EditSpec, ModelDefaults, SubInstruction
from foi_core.state import EditState, Found
from foi_core.tokens import TokenisedInstruction, tokenise

OnProgress = Callable[[Progress], None]


class Engine:
    """A warm model and the sampler. One thread at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        with torch.inference_mode():
            ids = model.tokenizer("", padding="max_length", max_length=model.tokenizer.model_max_length)["input_ids"]
            self._null_states = model.encode_text(tuple(ids))
            self._previewer = Previewer.fitted(model)

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

    @property
    def native_cells(self) -> int:
        """Latent cells of a picture of the model's own size."""
        return (self._model.resolution // self._model.latent_factor) ** 2

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height at which the model sees a picture of `size`."""
        return images.model_size(*size, self._model.resolution)

    def warm_up(self) -> int | None:
        """Takes masks once and modulates once at the native size: the first real edit meets no cold kernel. The bytes
        that it took at most beside the model, on CUDA; None elsewhere."""
        side, device = self._model.resolution, self._model.device
        spec = EditSpec((SubInstruction("warm up"),), num_inference_steps=2, strength=1.0, seed=0)
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
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

    @torch.inference_mode()
    def admit(self, image: Image.Image, spec: EditSpec, recipe: Recipe | None = None) -> EditState:
        """Everything before the first step: keywords found, text and picture encoded, the first noise drawn.

        `recipe` None is the preset's. Raises InvalidParameter as `edit` does.
        """
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
            s_I=spec.image_guidance_scale,
            s_T=spec.guidance_scale,
            schedule=steps,
            noise=torch.cat(later).to(model.device),
            latents=schedule.start_latents(
                steps, image_latents * model.vae.config.scaling_factor, first.to(model.device)
            ),
            image_latents=image_latents,
            text_states=model.encode_text(text.ids),
            texts_apart=texts_apart,
            states_apart=torch.cat([model.encode_text(t.ids) for t in texts_apart]) if texts_apart else None,
        )

    @torch.inference_mode()
    def step(self, states: list[EditState]) -> None:
        """One denoising step for edits of one latent size, each at its own step: one UNet batch, two or three rows an
        edit. If it raises, no state has changed, and the step may be tried again."""
        model = self._model
        latents = torch.cat([s.latents for s in states])
        sigma = schedule.as_column([float(s.schedule.sigmas[s.step]) for s in states], latents)
        sigma_next = schedule.as_column([float(s.schedule.sigmas[s.step + 1]) for s in states], latents)
        (eIT, eI0, e00), found, rows = self._predict(states, schedule.model_input(latents, sigma))

        s_I = schedule.as_column([s.s_I for s in states], latents)
        s_T = schedule.as_column([s.s_T for s in states], latents)
        unions = [state.union(one) for state, one in zip(states, found, strict=True)]
        if any(union is not None for union in unions):
            everywhere = torch.ones(latents.shape[-2:], device=latents.device)
            where = torch.stack([everywhere if union is None else union for union in unions])[:, None]
            prediction = guidance.disentangled_guidance(e00, eI0, eIT, s_I, s_T, where)
        else:
            prediction = guidance.ip2p_guidance(e00, eI0, eIT, s_I, s_T)

        clean = schedule.denoised(latents, prediction, sigma, model.scheduler.config.prediction_type)
        for i, (state, one) in enumerate(zip(states, found, strict=True)):
            if one is not None and state.recipe.outside is not None:
                source = state.image_latents[0] * model.vae.config.scaling_factor
                clean[i] = state.recipe.outside(clean[i], source, one.regions.union(state.latent_size))
        noise = torch.stack([s.noise[s.step] for s in states])
        stepped = schedule.euler_ancestral_step(latents, clean, sigma, sigma_next, noise)
        for i, state in enumerate(states):
            state.latents, state.clean, state.found = stepped[i : i + 1], clean[i : i + 1], found[i]
            state.unet_rows += rows.count(i)
            state.step += 1

    def _predict(
        self, states: list[EditState], noisy: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], list[Found | None], list[int]]:
        """e_IT, e_I0 and e_00 (INSTRUCTION, NULL_INSTRUCTION, UNCONDITIONAL), float32 (n, C, h, w) each; what is found
        so far, masks that are taken in this step included; and each row's edit.

        The batch: every edit's (I, T) rows, n of the null instruction, and the unconditional ones that are needed.
        Where one is not, e_I0 stands for e_00, whose weight is zero.
        """
        model, n = self._model, len(states)
        timesteps = torch.stack([s.schedule.timesteps[s.step] for s in states])
        condition = torch.cat([s.image_latents for s in states])
        instructions = [s.instruction_rows for s in states]
        instructed = [i for i, rows in enumerate(instructions) for _ in rows]
        unconditional = [i for i, s in enumerate(states) if s.needs_unconditional]
        m, u = len(instructed), len(unconditional)
        owners = [*instructed, *range(n), *unconditional]  # each row's edit
        first = [instructed.index(i) for i in range(n)]  # each edit's first (I, T) row
        plan = attention.Plan(
            latent_size=(noisy.shape[-2], noisy.shape[-1]),
            watch=tuple(
                row
                for row, i in enumerate(instructed)
                if states[i].takes_masks and (row > first[i]) == states[i].watches_apart
            ),
            focus=tuple(
                focus
                for i, s in enumerate(states)
                if (focus := self._focus(s, first[i], m + i, float(timesteps[i]))) is not None
            ),
        )
        conditions = torch.cat([condition[instructed], condition, torch.zeros_like(condition[unconditional])])
        with model.cross_attention.apply(plan):
            output: Tensor = model.unet(
                torch.cat([noisy[owners], conditions], dim=1).to(model.dtype),
                timesteps[owners].to(model.device),
                encoder_hidden_states=torch.cat([*instructions, self._null_states.expand(n + u, -1, -1)]),
            ).sample
        eIT, eI0, some_e00 = output.float().split([m, n, u])
        e00 = eI0
        if unconditional:
            e00 = eI0.clone()
            e00[unconditional] = some_e00
        found = [s.found for s in states]
        if plan.watch:
            found = self._take_masks(states, plan, instructed, eIT - eI0[instructed])
        return (eIT[first], eI0, e00), found, owners

    def _focus(self, state: EditState, row: int, null_row: int, timestep: float) -> attention.FocusRow | None:
        if state.modulating is None or state.recipe.attention is None:
            return None
        apart = state.text_states if state.states_apart is None else state.states_apart
        xi_t = attention.xi(timestep / self._model.train_timesteps)
        return attention.FocusRow(row, null_row, state.modulating, xi_t, state.recipe.attention, apart)

    def _take_masks(
        self, states: list[EditState], watched: attention.Plan, owners: list[int], differences: Tensor
    ) -> list[Found | None]:
        """Eq. 2 for the edits that were watched in this step; `owners` and `differences` are of the (I, T) rows."""
        seen: dict[int, list[Seen]] = {}
        maps = watched.attention(self._model.cross_attention.level)
        for place, (row, one) in enumerate(zip(watched.watch, maps, strict=True)):
            seen.setdefault(owners[row], []).append(Seen(one, differences[row], place))
        return [self._found(state, seen[i]) if i in seen else state.found for i, state in enumerate(states)]

    def _found(self, state: EditState, rows: list[Seen]) -> Found:
        parts = state.spec.instructions
        each = rows if state.watches_apart else rows * len(parts)
        found, maps, keywords = zip(*(self._region(state, i, seen) for i, seen in enumerate(each)), strict=True)
        return Found(regions.assemble(list(found), state.text, [part.intensity for part in parts]), maps, keywords)

    def _region(self, state: EditState, i: int, seen: Seen) -> tuple[regions.Region, Tensor | None, Keyword | None]:
        """Where sub-instruction i acts, the map that says so, and its keyword: attention's if there was none."""
        given, keyword = state.spec.instructions[i].mask, state.keywords[i]
        if given is not None:
            grid = (seen.attention.shape[0], seen.attention.shape[1])
            return regions.Region.from_picture(given, grid, seen.attention.device), None, keyword
        text, at = (state.texts_apart[i], 0) if state.watches_apart else (state.text, i)
        tokens = text.keywords[at]
        if keyword is None and text.words[at]:
            word, tokens = regions.most_concentrated(text.words[at], seen.attention)
            in_whole = dict(state.text.words[i]).get(word, ()) if state.watches_apart else tokens
            keyword = Keyword(word, in_whole, "attention")
        soft = state.recipe.mask_source.soft_map(seen, tokens)
        return state.recipe.mask_source.region(soft, state.threshold, state.image), soft, keyword

    @torch.inference_mode()
    def finish(self, states: list[EditState]) -> list[EditResult]:
        """Finished edits of one latent size: decoded together, at the input's size, the input put back outside the
        masks, and what the caller should know. Raises ModelFailure."""
        latents = torch.cat([s.latents for s in states])
        if not torch.isfinite(latents).all():
            raise ModelFailure("the model gave numbers that are not finite; try dtype float32")
        edited = [s for s in states if s.spec.method != "masks"]
        pixels = self._model.decode(torch.cat([s.latents for s in edited])) if edited else ()
        pictures = iter([self._picture(state, one) for state, one in zip(edited, pixels, strict=True)])
        return [self._result(s, s.image if s.spec.method == "masks" else next(pictures)) for s in states]

    def _picture(self, state: EditState, pixels: Tensor) -> Image.Image:
        edited = images.to_image(pixels, state.image.size)
        if state.found is None or not state.spec.preserve_outside_mask:
            return edited
        return state.recipe.compositor(edited, state.image, images.union(list(_masks(state))))

    def _result(self, state: EditState, image: Image.Image) -> EditResult:
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
