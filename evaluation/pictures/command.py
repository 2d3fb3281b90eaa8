"""What the commands on a user's own pictures share: options, where weights are, messages and exit statuses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.pictures.data import Item, read_items
from evaluation.pictures.problems import Problem, UsageError
from evaluation.pictures.weights import checked_source
from foi_core import FoiError

OK, BAD_LINES, CANNOT_START, INTERRUPTED = 0, 1, 2, 130


def status(command: Callable[[argparse.Namespace], int], given: argparse.Namespace) -> int:
    """The command's exit status; 2, and one line, if it could not start or go on."""
    try:
        return command(given)
    except (UsageError, FoiError, OSError) as error:  # OSError: the disk is full, a folder is no folder
        say(str(error))
        return CANNOT_START


def say(line: str) -> None:
    """On stderr: stdout is the table's."""
    print(line, file=sys.stderr, flush=True)


def tell(problems: Sequence[Problem]) -> None:
    for problem in problems:
        say(str(problem))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every command here has."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the pictures")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="JSON Lines, one edit a line (default: DIR/edits.jsonl)"
    )
    parser.add_argument("--model", required=True, help='folder or model id in diffusers\' layout, or "demo"')
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, help="for lines that name none (default: 0)")
    parser.add_argument("--clip", metavar="DIR_OR_ID", help="CLIP, for CLIP-I and CLIP-D")
    parser.add_argument("--allow-download", action="store_true", help="ids may be fetched from the Hugging Face hub")


def source(given: argparse.Namespace, name: str) -> str | None:
    """Where the weights of an option are; "demo" is the engine's own name for the bundled model."""
    value = getattr(given, name)
    if value is None or (name == "model" and value == "demo"):
        return value if value is None else str(value)
    return checked_source("--" + name.replace("_", "-"), value, given.allow_download)


def read_data(given: argparse.Namespace) -> tuple[list[Item], list[Problem]]:
    """The lines that can be used, and what is wrong with the others, which stderr has been told. Raises UsageError if
    there is none to use."""
    items, problems = read_items(given.file or given.data / "edits.jsonl", given.data)
    tell(problems)
    if not items:
        raise UsageError("there is no line that can be evaluated")
    return items, problems
