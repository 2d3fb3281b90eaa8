"""One denoising step of many edits: Eq. 1 and 9, and Euler ancestral."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from foi_core import attention, guidance, schedule
from foi_core.batch import Batch, union
from foi_core.finding import take_masks
from foi_core.model import Model
from foi_core.state import EditState, Found, Numbers


class Denoiser:
    """`predict` is a pass of the model's UNet, however it runs; `null_text` (1, tokens, keys and values) is the null
    instruction's."""

    def __init__(self, model: Model, predict: Callable[..., Tensor]) -> None:
        ids = model.tokenizer("", padding="max_length", max_length=model.tokenizer.model_max_length)["input_ids"]
        self.predict, self.null_text = predict, model.encode_text(tuple(ids))
        self._model = model

    def step(self, states: list[EditState]) -> None:
        """One step for edits of one latent size, each at its own: one UNet batch, two or three rows an edit. If it
        raises, no state has changed, and the step may be tried again."""
        model, states = self._model, sorted(states, key=lambda state: not state.role.in_focus)
        batch = Batch.of(states, self.null_text, model.unet.sizes(states[0].latent_size))
        numbers = Numbers(*torch.stack([s.numbers[s.step] for s in states])[:, :, None, None, None].unbind(1))
        latents = torch.cat([s.latents for s in states])
        (eIT, eI0, e00), found = self._predictions(states, batch, numbers.input_scale * latents, numbers)

        where = union(states, found, batch.roles) if batch.watch else batch.where
        if where is None:
            prediction = guidance.ip2p_guidance(e00, eI0, eIT, numbers.s_I, numbers.s_T)
        else:
            prediction = guidance.disentangled_guidance(e00, eI0, eIT, numbers.s_I, numbers.s_T, where)
        clean = schedule.denoised(latents, prediction, numbers.skip, numbers.out)
        for i, (state, one) in enumerate(zip(states, found, strict=True)):
            if one is not None and state.recipe.outside is not None:
                source = state.image_latents[0] * model.vae.config.scaling_factor
                clean[i] = state.recipe.outside(clean[i], source, one.regions.union(state.latent_size))
        noise = torch.stack([s.noise[s.step] for s in states])
        stepped = schedule.euler_ancestral_step(latents, clean, numbers.drift, numbers.up, noise)
        for i, state in enumerate(states):
            state.latents, state.clean, state.found = stepped[i : i + 1], clean[i : i + 1], found[i]
            state.unet_rows += batch.owners.count(i)
            state.step += 1
            if state.step == state.steps:
                state.batch = None  # it waits for its decoding, and holds nobody's texts meanwhile

    def _predictions(
        self, states: list[EditState], batch: Batch, noisy: Tensor, numbers: Numbers
    ) -> tuple[tuple[Tensor, Tensor, Tensor], list[Found | None]]:
        """e_IT, e_I0 and e_00 (INSTRUCTION, NULL_INSTRUCTION, UNCONDITIONAL), float32 (n, C, h, w) each, and what is
        found so far, masks that are taken in this step included.

        Where an edit has no unconditional row, e_I0 stands for e_00, whose weight is zero.
        """
        model, n = self._model, len(states)
        watch = attention.Watch(batch.watch, model.map_level)
        output = self.predict(
            torch.cat([noisy.to(model.dtype)[batch.rows], batch.condition], dim=1),
            torch.stack([s.time_shifts[s.step] for s in states])[batch.rows],
            batch.text,
            batch.focus(numbers.xi.flatten()),
            (watch, *batch.rewrites) if batch.watch else batch.rewrites,
        ).float()
        eIT, eI0, e00 = output[:n], output[n : 2 * n], output[batch.e00]
        found = [s.found for s in states]
        if batch.watch:
            found = take_masks(states, batch, watch, output, eI0)
        return (eIT, eI0, e00), found
