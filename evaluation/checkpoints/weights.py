"""Weights read without running code: safetensors, or torch.load(weights_only=True). Anything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Training frameworks leave bookkeeping (callbacks, optimiser states) beside the weights. It is read as inert objects:
# the real classes are neither imported nor called.
BOOKKEEPING = ("pytorch_lightning.", "lightning.", "numpy.")


class CheckpointError(Exception):
    """A checkpoint that cannot be converted; one line that says why and what to do."""


class _Inert:
    """Stands for an object of a bookkeeping class: takes everything, does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.ckpt`, `.pt`, `.pth` or `.bin` file by name, memory-mapped where it can be.

    What an original checkpoint nests ("state_dict", DeepSpeed's "module") is unwrapped, a prefix "module." that all
    names share (DistributedDataParallel) is cut off, and what is no tensor is left out. Raises CheckpointError for a
    file that is missing, broken, without tensors, or that holds code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    while isinstance(content, dict):
        inner = next((content[key] for key in ("state_dict", "module") if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path} holds no weights by name, so it is no checkpoint")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no whole safetensors file: {error}") from error


def _read_pickle(path: Path) -> Any:
    """torch.load that can only make tensors, plain containers and `_Inert`; whatever else the file asks for is
    refused."""
    zipped = _is_zip(path)
    wanted = _foreign_classes(path) if zipped else []
    unknown = sorted(name for name in wanted if not name.startswith(BOOKKEEPING))
    if unknown:
        raise CheckpointError(
            f"{path} is refused: loading it would run {', '.join(unknown)}, and a file of weights needs no such code. "
            "Get the weights as safetensors, or from a source that you trust, saved as plain tensors."
        )
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in wanted]):
            # Only the zipped form (torch >= 1.6) can be memory-mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a file made to harm can raise anything
        reason = str(error).split("\n", 1)[0][:200]
        raise CheckpointError(
            f"{path} is refused: it cannot be read as plain weights (torch.load, weights_only=True): {reason}"
        ) from error


def _foreign_classes(path: Path) -> list[str]:
    """Full names of everything that the file wants to use and torch does not itself allow; found without loading."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:  # as above
        raise CheckpointError(f"{path} is no checkpoint of torch: {error}") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
