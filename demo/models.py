"""The demo model's three networks and tokenizer, untrained: SD 1.5's own classes and layout, in small."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

MAX_TOKENS = 40  # four sub-instructions; few padding tokens keep the null branch's attention honest
TEXT_WIDTH = 128
LATENT_CHANNELS = 4
LATENT_SCALING = 0.5


@dataclass(frozen=True)
class Shape:
    """The sizes of text encoder and UNet. The latents' deviation times `latent_scaling` is what the noise adds to."""

    widths: tuple[int, ...]  # channels of each level, a multiple of 32; the first level has 16x16 cells
    cross_attention: tuple[bool, ...]  # which levels attend to the text, and to themselves
    text_layers: int
    latent_scaling: float


class Networks(nn.Module):
    """What a training trains, and what its moving average copies."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet


def build_tokenizer(words: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level BPE whose merges spell each of `words` as one token; anything else falls into bytes."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        initial_alphabet=alphabet, end_of_word_suffix="</w>", min_frequency=1, vocab_size=10_000, show_progress=False
    )
    bpe.train_from_iterator(words, trainer)
    merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(a + "</w>" for a in alphabet), *("".join(m) for m in merges), start, end]
    tokenizer = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, merges=merges)
    tokenizer.model_max_length = MAX_TOKENS
    return tokenizer


def token_ids(tokenizer: CLIPTokenizer, texts: list[str], length: int) -> Tensor:
    """Padded to one length, `length` or that of the longest text: (n, tokens) int64."""
    rows = tokenizer(texts).input_ids
    longest = max(length, *map(len, rows))
    return torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])


def token_columns(tokenizer: CLIPTokenizer, text: str, span: tuple[int, int]) -> list[int]:
    """The tokens of `text` that hold any of its characters span[0] to span[1] (exclusive)."""
    offsets = tokenizer(text, return_offsets_mapping=True).offset_mapping
    return [j for j, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]]


def build_text_encoder(tokenizer: CLIPTokenizer, layers: int = 2) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae() -> AutoencoderKL:
    """Factor 8 and 4 channels, as SD 1.5's: a 128x128 picture is a 16x16x4 latent."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=LATENT_SCALING,
        mid_block_add_attention=False,
    )


ATTENDING = Shape(widths=(96, 160), cross_attention=(True, True), text_layers=2, latent_scaling=LATENT_SCALING)


def build_unet(shape: Shape = ATTENDING, in_channels: int = 2 * LATENT_CHANNELS) -> UNet2DConditionModel:
    """Eight input channels are IP2P's: the noisy latent and the image latent."""
    kinds = ["CrossAttn" * attends + "{}Block2D" for attends in shape.cross_attention]
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        block_out_channels=shape.widths,
        down_block_types=tuple(kind.format("Down") for kind in kinds),
        up_block_types=tuple(kind.format("Up") for kind in reversed(kinds)),
        layers_per_block=1,
        attention_head_dim=tuple(w // 32 for w in shape.widths),  # diffusers reads this as the number of heads
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


def build_scheduler() -> EulerAncestralDiscreteScheduler:
    return EulerAncestralDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="linspace",
        prediction_type="v_prediction",
    )
