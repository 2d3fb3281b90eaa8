"""DiffEdit's mask (Couairon et al. 2022) with InstructPix2Pix: where the instruction changes the predicted noise."""

from __future__ import annotations

import torch
from PIL import Image

from foi_core import EditSpec, SubInstruction, images, masks
from foi_core.engine import Engine

NOISES = 10
STRENGTH = 0.5
THRESHOLD = 0.5


@torch.inference_mode()
def diffedit_mask(engine: Engine, image: Image.Image, part: SubInstruction, seed: int) -> Image.Image:
    """Mean over NOISES noises at STRENGTH of |e_IT - e_I0| summed over channels, min-max scaled, cut at THRESHOLD.

    "L" of the picture's size, 255 = may change. Costs 2 NOISES rows of the UNet.
    """
    model = engine._model
    state = engine.admit(image, EditSpec((part,), method="ip2p", strength=STRENGTH, seed=seed))
    sigma = float(state.schedule.sigmas[0])
    source = state.image_latents * model.vae.config.scaling_factor
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((NOISES, *source.shape[1:]), generator=generator).to(source.device)
    noisy = (source + sigma * noise) * float(state.numbers[0, 0])  # as the UNet wants it
    rows = torch.cat([noisy, state.image_latents.expand(NOISES, -1, -1, -1)], dim=1).repeat(2, 1, 1, 1)
    texts = torch.cat([state.instruction_text, engine._denoiser.null_text]).repeat_interleave(NOISES, dim=0)
    output = model.unet(rows.to(model.dtype), state.time_shifts[:1].expand(2 * NOISES, -1), texts, None, ()).float()
    with_text, without = output.chunk(2)
    soft = masks.normalise((with_text - without).abs().sum(dim=1).mean(dim=0))
    return images.mask_to_image(masks.binarise(soft, THRESHOLD), image.size)
