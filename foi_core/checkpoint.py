"""A checkpoint of the InstructPix2Pix family: found, downloaded, checked, and loaded straight to dtype and device."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from foi_core import layout
from foi_core.errors import UnsupportedCheckpoint
from foi_core.layout import Weights
from foi_core.model import DEFAULTS_FILE, Model, choose_device, choose_dtype, slowdown
from foi_core.safety import SafetyChecker, SafetyPolicy
from foi_core.source import Source, find
from foi_core.spec import EditSpec, ModelDefaults, SubInstruction
from foi_core.unet import UNet

log = logging.getLogger(__name__)
Network = TypeVar("Network", bound=nn.Module)
SLOW = 2
"""A precision that takes so many times as long as float32 is worth a warning."""


def load(
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    safety_checker: SafetyPolicy = "block",
) -> Model:
    """Loads a folder or model id in diffusers' layout, or "demo": the bundled demo model.

    `device` is auto, cpu, cuda or cuda:N; `dtype` auto (float16 on CUDA, float32 on a CPU), float32, float16 or
    bfloat16. `revision` is a commit, tag or branch of a model on the hub; None: the pinned commit of a known one, else
    the present one. Weights are safetensors, unless `allow_pickle`: other formats can hold code. Where the checkpoint
    has a safety checker, it is loaded too, but for `safety_checker` "off". Raises UnsupportedCheckpoint and
    InvalidParameter.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    if place.type == "cpu" and precision != torch.float32 and (times := slowdown(precision)) > SLOW:
        log.warning('this CPU computes %s %.0f times slower than float32: use dtype "auto"', dtype, times)
    source = _found(model, revision)
    defaults = read_defaults(source.folder / DEFAULTS_FILE)
    looks = safety_checker != "off" and layout.has_safety_checker(source.folder)
    chosen = {
        part: layout.choose_weights(
            model, part, source.names, half=precision == torch.float16, allow_pickle=allow_pickle
        )
        for part in (*layout.NETWORKS, *([layout.SAFETY_CHECKER] if looks else []))
    }
    source.fetch([weights.file for weights in chosen.values()])
    reader = _Reader(model, source.folder, chosen, place, precision)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    text_encoder = reader.network(CLIPTextModel, "text_encoder")
    if safety_checker != "off" and not looks:
        log.info("%s has no safety checker: nothing looks at its results", model)
    return Model(
        name=model,
        unet=UNet(reader.network(UNet2DConditionModel, "unet")),
        vae=reader.network(AutoencoderKL, "vae"),
        text_encoder=text_encoder,
        tokenizer=_tokenizer(model, source.folder, text_encoder.config.max_position_embeddings),
        scheduler=EulerAncestralDiscreteScheduler.from_config(
            EulerAncestralDiscreteScheduler.load_config(source.folder / "scheduler")
        ),
        defaults=defaults,
        device=place,
        dtype=precision,
        safety=_safety_checker(reader, safety_checker) if looks else None,
    )


def own_defaults(model: str, revision: str | None = None) -> ModelDefaults:
    """What `load` would give the model as defaults, known without its weights. Raises UnsupportedCheckpoint."""
    return read_defaults(_found(model, revision).folder / DEFAULTS_FILE)


def _found(model: str, revision: str | None) -> Source:
    """Where the model's files are; its small ones are there and checked."""
    source = find(str(_demo_folder()) if model == "demo" else model, revision)
    layout.check(model, source.folder, source.names)
    return source


@dataclass(frozen=True)
class _Reader:
    """Reads the networks of one checkpoint."""

    model: str
    folder: Path
    chosen: dict[str, Weights]
    place: torch.device
    precision: torch.dtype

    def network(self, kind: type[Network], part: str) -> Network:
        """Built without storage, then given its weights one by one, in dtype and on the device. Raises
        UnsupportedCheckpoint for weights that are broken, or not exactly those that its config describes."""
        weights = self.chosen[part]
        with _explained(self.model, weights.file):
            network, read = kind.from_pretrained(  # type: ignore[attr-defined]
                self.folder / part,
                variant=weights.variant,
                use_safetensors=weights.safe,
                dtype=self.precision,
                device_map={"": self.place},
                low_cpu_mem_usage=True,
                local_files_only=True,
                output_loading_info=True,
            )
            if read["missing_keys"]:
                raise ValueError(f"it lacks {min(read['missing_keys'])}")
        return network.eval().requires_grad_(False)  # type: ignore[no-any-return]


def _safety_checker(reader: _Reader, policy: SafetyPolicy) -> SafetyChecker:
    network = reader.network(StableDiffusionSafetyChecker, layout.SAFETY_CHECKER)
    with _explained(reader.model, "feature_extractor"):
        processor = CLIPImageProcessorPil.from_pretrained(reader.folder / "feature_extractor")
    return SafetyChecker(network, processor, policy)


def _tokenizer(model: str, folder: Path, longest: int) -> PreTrainedTokenizerBase:
    with _explained(model, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    if not tokenizer.is_fast:
        raise UnsupportedCheckpoint(f"{model!r} has a tokenizer without character offsets, which keywords need")
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer


@contextmanager
def _explained(model: str, file: str) -> Iterator[None]:
    """What the libraries raise for a file that is not as it should be, as UnsupportedCheckpoint in one line."""
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # the device's, not the checkpoint's
    except (OSError, SafetensorError, UnpicklingError) as error:
        raise UnsupportedCheckpoint(
            f"{model!r}: {file} cannot be read, it is broken or not whole: get it again ({_line(error)})"
        ) from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise UnsupportedCheckpoint(
            f"{model!r}: {file} does not fit the config beside it: get both from the same checkpoint ({_line(error)})"
        ) from error


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()).split(". If you ")[0]
    return text if len(text) <= 200 else text[:197] + "..."


def _demo_folder() -> Path:
    """Beside this package, in the project's folder and in its wheel alike."""
    folder = Path(__file__).parent.parent / "demo" / "model"
    if not (folder / "model_index.json").is_file():
        raise UnsupportedCheckpoint(f"the demo model is not installed: {folder} has no model_index.json")
    return folder


def read_defaults(path: Path) -> ModelDefaults:
    """What a foi.json recommends; the paper's settings where there is no such file. Raises UnsupportedCheckpoint."""
    if not path.is_file():
        return ModelDefaults()
    try:
        given = json.loads(path.read_text())
        if isinstance(given.get("threshold"), list):
            given["threshold"] = tuple(given["threshold"])
        defaults = ModelDefaults(**given)
        EditSpec((SubInstruction("x"),)).with_defaults(defaults, seed=0)
    except (ValueError, TypeError, AttributeError) as error:
        raise UnsupportedCheckpoint(f"{path}: {error}") from error
    return defaults
