"""Everything about an edit before its first step."""

from __future__ import annotations

import random
import secrets
import time

import torch
from PIL import Image
from torch import Tensor

from foi_core import attention, images, schedule
from foi_core.keywords import find_keyword
from foi_core.model import Model
from foi_core.recipe import RECIPES, Recipe
from foi_core.result import Keyword
from foi_core.spec import SEED_LIMIT, EditSpec
from foi_core.state import EditState, Numbers
from foi_core.tokens import TokenisedInstruction, tokenise


def admitted(model: Model, image: Image.Image, spec: EditSpec, recipe: Recipe | None = None) -> EditState:
    """Keywords found, text and picture encoded, the noise of all steps drawn. `image` and the masks of `spec` have the
    model's size, as `at_working_size` gives them. `recipe` None is the preset's. Raises ModelFailure."""
    begun = time.perf_counter()
    spec = spec.with_defaults(model.defaults, seed=secrets.randbelow(SEED_LIMIT))
    assert spec.seed is not None
    assert spec.num_inference_steps is not None
    assert spec.image_guidance_scale is not None
    assert spec.guidance_scale is not None
    recipe = recipe or RECIPES[spec.preset]
    words = tuple(find_keyword(s.text) if s.keyword is None else s.keyword.strip() for s in spec.instructions)
    text = tokenise(model.tokenizer, spec.instructions, words)
    image_latents = model.encode_image(images.to_tensor(image, image.size)).float()
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
        numbers=_numbers(model, steps, spec.image_guidance_scale, spec.guidance_scale).to(model.device),
        time_shifts=model.unet.time_shifts(steps.timesteps.to(model.device)),
        noise=torch.cat(later).to(model.device),
        latents=schedule.start_latents(steps, image_latents * model.vae.config.scaling_factor, first.to(model.device)),
        image_latents=image_latents,
        instruction_text=model.encode_text(text.ids),
        texts_apart=texts_apart,
        apart_text=torch.cat([model.encode_text(t.ids) for t in texts_apart]) if texts_apart else None,
    )


def _numbers(model: Model, steps: schedule.Schedule, s_I: float, s_T: float) -> Tensor:
    """Every step's `Numbers`, (steps, 8)."""
    xi = torch.tensor([attention.xi(float(t) / model.train_timesteps) for t in steps.timesteps])
    constant = torch.ones(len(steps))
    euler = schedule.coefficients(steps.sigmas, model.scheduler.config.prediction_type)
    return torch.stack(Numbers(*euler, s_I=s_I * constant, s_T=s_T * constant, xi=xi), dim=1).float()


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on every device."""
    return torch.randn(like.shape, generator=generator)


def _draw_threshold(spec: EditSpec) -> float:
    """tau: the given number, or drawn uniformly from the range by the edit's own seed, apart from its noise."""
    assert spec.threshold is not None
    if isinstance(spec.threshold, tuple):
        return random.Random(spec.seed).uniform(*spec.threshold)
    return spec.threshold
