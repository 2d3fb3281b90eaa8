"""What no edit can be faster than: the model's counted work at the rate of a big matrix product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.gpu.bench import Bench

MATMUL = {"cuda": 8192, "cpu": 256}
PRODUCTS = 20
ROWS = 3
"""UNet rows of a step: the instruction's, the null instruction's, the unconditional one."""


def roof(bench: Bench) -> dict[str, Any]:
    """The rate of a big matrix product in the model's own precision, and the model's counted work at each side, in
    FLOP: what no edit can be faster than."""
    size, dtype = MATMUL[bench.device.type], bench.subjects.dtype
    a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)

    def products() -> None:
        for _ in range(PRODUCTS):
            torch.matmul(a, b, out=out)

    timed = bench.meter.in_turn({"products": bench.meter.timed(products)})
    rates = [PRODUCTS * 2 * size**3 / seconds for seconds in timed.seconds.get("products", ())]
    work = {str(side): counted(bench.subjects.folder(side), side) for side in bench.settings.sides}
    return {"size": size, "dtype": str(dtype), "flop_per_s": rates, "flop": work, "failed": timed.failed}


def counted(folder: Path, side: int) -> dict[str, int]:
    """FLOP of each part of an edit of a side x side picture, by torch's own counter on a model without weights (1
    multiplication and 1 addition are 2 FLOP; the normalisations and activations are not counted)."""
    with torch.device("meta"), torch.inference_mode():
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder, subfolder="unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
        cells = side // 2 ** (len(vae.config.block_out_channels) - 1)
        latents = torch.empty(1, vae.config.latent_channels, cells, cells)
        tokens = torch.zeros(1, text.config.max_position_embeddings, dtype=torch.long)
        states = torch.empty(1, tokens.shape[1], text.config.hidden_size)
        parts: dict[str, Callable[[], object]] = {
            "unet_row": lambda: unet(torch.cat([latents] * 2, 1), torch.zeros(1), encoder_hidden_states=states),
            "encode": lambda: vae.encode(torch.empty(1, 3, side, side)),
            "decode": lambda: vae.decode(latents),
            "text": lambda: text(tokens),
        }
        return {name: _flop(part) for name, part in parts.items()}


def _flop(part: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        part()
    return int(counter.get_total_flops())


def edit_flop(work: dict[str, int], steps: int) -> int:
    """A plain edit's, from the parts that were counted."""
    return work["text"] + work["encode"] + steps * ROWS * work["unet_row"] + work["decode"]
