"""A checkpoint's own safety checker (Stable Diffusion's: CLIP and a fixed list of concepts), as diffusers runs it."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers import CLIPImageProcessorPil

from foi_core import images
from foi_core.errors import UnsafeResult
from foi_core.finite import finite

SafetyPolicy = Literal["block", "report", "off"]

# The network's own warning says that a black picture is returned, which it is not.
diffusers_logging.get_logger(StableDiffusionSafetyChecker.__module__).setLevel(diffusers_logging.ERROR)


class SafetyChecker:
    """Looks at results. `policy`: "block" makes a flagged one an error, "report" only says so."""

    def __init__(
        self, network: StableDiffusionSafetyChecker, processor: CLIPImageProcessorPil, policy: SafetyPolicy
    ) -> None:
        self._network, self._processor, self._policy = network, processor, policy

    @torch.inference_mode()
    def flags(self, pixels: Tensor) -> bool:
        """Whether one decoded picture, (3, H, W) in [-1, 1], shows one of the checker's concepts.

        What is seen is the picture as the model made it, before anything of the input is put back, as in diffusers.
        Raises UnsafeResult where flagged results are blocked, and ModelFailure where it cannot tell.
        """
        picture = images.to_image(pixels)
        seen = self._processor(images=[picture], return_tensors="pt").pixel_values
        flagged = False

        def looked(network: StableDiffusionSafetyChecker) -> Tensor:
            """All that it compares: where one side is not a number, a comparison finds nothing."""
            nonlocal flagged
            embeddings: list[Tensor] = []
            hook = network.visual_projection.register_forward_hook(lambda *call: embeddings.append(call[-1]))
            try:
                # It blanks the pictures that it flags: it is given none of ours.
                _, (flagged,) = network(seen.to(network.device, network.dtype), torch.zeros(1))
            finally:
                hook.remove()
            concepts = (network.concept_embeds, network.special_care_embeds)
            limits = (network.concept_embeds_weights, network.special_care_embeds_weights)
            norms = (one.norm(dim=-1) for one in (*embeddings, *concepts))  # by which the comparison divides
            return torch.cat([*norms, *limits])

        finite("safety checker", self._network, looked)
        if flagged and self._policy == "block":
            raise UnsafeResult(
                "the model's safety checker flagged the result, which is withheld; other words or another seed may help"
            )
        return bool(flagged)
