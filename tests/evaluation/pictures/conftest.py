"""Tiny real models with random weights, and a folder of pictures with its JSON Lines file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

from demo.edits import vocabulary
from demo.models import build_tokenizer
from tests.support import picture
from tests.tiny_model import build_tiny_model

SIDE = 64
Write = Callable[..., Path]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "ip2p")


@pytest.fixture(scope="session")
def text_to_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "text-to-image", unet_channels=4)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "clip"
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "dino"
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two pictures and, for the first, a mask of its left half and a target."""
    folder = tmp_path / "data"
    folder.mkdir()
    picture(SIDE, SIDE).save(folder / "a.png")
    picture(SIDE, SIDE).transpose(Image.Transpose.ROTATE_90).save(folder / "b.png")
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (0, 0, SIDE // 2, SIDE))
    mask.save(folder / "mask.png")
    Image.new("RGB", (SIDE, SIDE), "red").save(folder / "target.png")
    return folder


@pytest.fixture
def write(data: Path) -> Write:
    """Writes lines to the folder's edits.jsonl: objects as JSON, bytes as they are."""

    def write_lines(*lines: dict[str, Any] | bytes) -> Path:
        encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        (data / "edits.jsonl").write_bytes(b"\n".join(encoded) + b"\n")
        return data

    return write_lines
