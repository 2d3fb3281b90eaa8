"""`python -m evaluation.checkpoints SOURCE OUT_FOLDER`: a published checkpoint as a folder that `--model` takes."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from evaluation.checkpoints.architectures import ARCHITECTURES
from evaluation.checkpoints.folder import convert_folder
from evaluation.checkpoints.original import convert_original, find_architecture
from evaluation.checkpoints.weights import CheckpointError, read_weights


def main(arguments: list[str] | None = None) -> int:
    """Converts; exit code 0, or 1 with one line on stderr that says why not."""
    given = _parser().parse_args(arguments)
    out: Path = given.out
    if out.exists():
        print(f"{out} is there already: give a folder that is not", file=sys.stderr)
        return 1
    try:
        _convert(given.source, out, given.tokenizer, given.base, given.size)
    except CheckpointError as error:
        shutil.rmtree(out, ignore_errors=True)
        print(error, file=sys.stderr)
        return 1
    print(f"{out}: ready, for example: python -m evaluation --model {out} --data DIR")
    return 0


def _convert(source: Path, out: Path, tokenizer: Path | None, base: str | None, size: int) -> None:
    if source.is_dir():
        convert_folder(source, out)
        return
    if tokenizer is None:
        raise CheckpointError(
            "an original checkpoint has no tokenizer: give --tokenizer, a folder with CLIP's (the folder tokenizer "
            "of any Stable Diffusion in diffusers' layout, or openai/clip-vit-large-patch14)"
        )
    weights = read_weights(source)
    architecture = ARCHITECTURES[base] if base else find_architecture(weights)
    convert_original(weights, architecture, tokenizer, size, out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation.checkpoints", description=__doc__)
    parser.add_argument("source", type=Path, help="an original .ckpt or .safetensors, or a diffusers folder")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER", help="a folder that is not there yet")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="CLIP's tokenizer, for an original checkpoint")
    parser.add_argument("--base", choices=ARCHITECTURES, help="found from the text encoder if not given")
    parser.add_argument("--size", type=int, default=512, metavar="PIXELS", help="native side (default: 512)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
