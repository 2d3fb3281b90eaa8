"""Judges of pictures: CLIP, DINO and PickScore, from weights that the user gives.

Every picture is prepared by the judge's own processor; CLIP's and DINO's cut out the middle square.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from evaluation.pictures.problems import UsageError


class Clip:
    """CLIP, or PickScore, which is a CLIP: pictures and texts as vectors of one space."""

    def __init__(self, option: str, source: str, device: str) -> None:
        self._model, self._processor, self._device = *_load(option, source, device), device
        if not hasattr(self._model, "get_text_features"):
            raise UsageError(f"{option} {source} is no CLIP model")
        self._tokenizer = _from(AutoTokenizer, option, source)

    @torch.inference_mode()
    def picture(self, picture: Image.Image) -> Tensor:
        """(1, d), unit length."""
        pixels = self._processor(images=[picture], return_tensors="pt").to(self._device)
        return normalize(_vectors(self._model.get_image_features(**pixels)))

    @torch.inference_mode()
    def text(self, text: str) -> Tensor:
        """(1, d), unit length; what is too long for the model is cut off."""
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer([text], truncation=True, max_length=length, padding=True, return_tensors="pt")
        return normalize(_vectors(self._model.get_text_features(**tokens.to(self._device))))

    def direction(self, before: Image.Image, after: Image.Image, caption: str, target_caption: str) -> float:
        """CLIP-D: the cosine of the pictures' change and the captions' change, in [-1, 1]; 0 for no change.

        StyleGAN-NADA (Gal et al., 2022), in the form of InstructPix2Pix (metrics/clip_similarity.py).
        """
        change = self.picture(after) - self.picture(before)
        return float(cosine_similarity(change, self.text(target_caption) - self.text(caption)))

    def agreement(self, picture: Image.Image, text: str) -> float:
        """PickScore's score: the logit exp(s) cos(text, picture); only differences of one text's scores mean
        anything."""
        return float(self._model.logit_scale.exp() * (self.text(text) * self.picture(picture)).sum())


class Dino:
    """DINO or DINOv2: a picture as its class token."""

    def __init__(self, option: str, source: str, device: str) -> None:
        self._model, self._processor, self._device = *_load(option, source, device), device

    @torch.inference_mode()
    def picture(self, picture: Image.Image) -> Tensor:
        """(1, d), unit length."""
        pixels = self._processor(images=[picture], return_tensors="pt").to(self._device)
        return normalize(self._model(**pixels).last_hidden_state[:, 0])


def similarity(judge: Clip | Dino, one: Image.Image, other: Image.Image) -> float:
    """CLIP-I or DINO-I: the cosine of two pictures' vectors, in [-1, 1]."""
    return float((judge.picture(one) * judge.picture(other)).sum())


def _load(option: str, source: str, device: str) -> tuple[Any, Any]:
    model = _from(AutoModel, option, source, use_safetensors=True, dtype=torch.float32)
    return model.eval().requires_grad_(False).to(device), _from(AutoImageProcessor, option, source)


def _from(kind: Any, option: str, source: str, **options: Any) -> Any:
    """transformers' `kind` from `source`; what it cannot load is a UsageError in one line."""
    try:
        return kind.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{option} {source} cannot be loaded: {str(error).splitlines()[0]}") from error


def _vectors(output: Any) -> Tensor:
    """transformers 5 gives features as the pooled output of a record, 4 as they are."""
    vectors: Tensor = getattr(output, "pooler_output", output)
    return vectors
