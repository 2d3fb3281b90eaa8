"""Runs the Dockerfile's very steps without a container engine: `python deploy/run_steps.py --target api --root DIR`.

Every COPY and RUN of the target's stages is done, in order, in folders below DIR that stand for the image's own
(`/opt` is DIR/opt, ...), with the environment that ENV and ARG give. What cannot be the same: there is no base image
(this Python and this system stand for it), stages share one DIR, and steps that need root are left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from string import Template
from typing import NamedTuple

from dockerfile_parse import DockerfileParser  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent
FOLDERS = ("app", "cache", "data", "opt", "src", "wheels")
"""Of an image; paths below them are moved below DIR."""
NEEDS_ROOT = ("apt-get", "groupadd", "useradd")
_PATH = re.compile(rf"(?<![\w.:/-])/({'|'.join(FOLDERS)})(?![\w.-])")


class Step(NamedTuple):
    instruction: str
    value: str


@dataclass
class Image:
    """What the steps made: where, and how a container of it would start. `left_out` are the steps that were not run."""

    root: Path
    environment: dict[str, str]
    workdir: Path
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def moved(self, text: str) -> str:
        """Paths of the image, as they are here."""
        return _PATH.sub(rf"{self.root}/\1", text)


def stages(dockerfile: Path) -> dict[str, list[Step]]:
    """Each stage's steps, FROM first. ARGs before the first FROM name the base image, which is not used here."""
    found: dict[str, list[Step]] = {}
    with dockerfile.open("rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    steps: list[Step] = []
    for entry in structure:
        step = Step(entry["instruction"].upper(), entry["value"])
        if step.instruction == "COMMENT":
            continue
        if step.instruction == "FROM":
            words = step.value.split()
            steps = found[words[-1] if "AS" in words else str(len(found))] = []
        steps.append(step)
    return found


def needed(target: str, found: dict[str, list[Step]]) -> Iterator[str]:
    """The stages that the target is made of and takes files from, in the order in which they are built."""
    for step in found[target]:
        for name in re.findall(r"^(\S+) AS |from=([\w-]+)", step.value):
            other = name[0] if step.instruction == "FROM" else name[1]
            if other in found:
                yield from needed(other, found)
    yield target


def run(target: str, root: Path, arguments: dict[str, str] | None = None) -> Image:
    """`arguments` as of `--build-arg`. Raises CalledProcessError where a step fails."""
    found = stages(ROOT / "Dockerfile")
    image = Image(root.resolve(), _base_environment(), root.resolve())
    for folder in FOLDERS:
        (image.root / folder).mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(needed(target, found)):
        for step in found[name]:
            _do(step, image, arguments or {})
    return image


def _do(step: Step, image: Image, arguments: dict[str, str]) -> None:
    print(f"{step.instruction} {step.value}", flush=True)
    if step.instruction == "ARG":
        name, _, default = step.value.partition("=")
        image.environment[name] = arguments.get(name, default)
    elif step.instruction == "ENV":
        for word in shlex.split(step.value):
            name, _, value = word.partition("=")
            image.environment[name] = Template(image.moved(value)).safe_substitute(image.environment)
    elif step.instruction == "WORKDIR":
        image.workdir = Path(image.moved(step.value))
        image.workdir.mkdir(parents=True, exist_ok=True)
    elif step.instruction == "COPY":
        *sources, destination = step.value.split()
        _copy(sources, image.workdir / image.moved(destination))
    elif step.instruction == "RUN":
        _run(step.value, image)
    elif step.instruction == "CMD":
        image.command = json.loads(step.value)
    elif step.instruction == "HEALTHCHECK":
        image.health = json.loads(step.value.partition("CMD")[2])
    elif step.instruction not in ("FROM", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"):
        raise ValueError(f"{step.instruction}: this script does not know what it does")


def _run(value: str, image: Image) -> None:
    command = image.moved(re.sub(r"--mount=\S+\s+", "", value))
    if any(program in command for program in NEEDS_ROOT):
        image.left_out.append(value)
        print("  left out: it needs root", flush=True)
        return
    subprocess.run(["sh", "-c", command], cwd=image.workdir, env=image.environment, check=True)


def _copy(sources: list[str], destination: Path) -> None:
    """From the build context: the checkout without what .dockerignore names."""
    for source in sources:
        origin = ROOT / source
        files = [origin] if origin.is_file() else _files_below(origin)
        for path in files:
            if not ignored(path.relative_to(ROOT)):
                goal = destination / (path.name if origin.is_file() else path.relative_to(origin))
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, goal)


def _files_below(folder: Path) -> Iterator[Path]:
    """But for hidden folders, which are large and of which none is part of an image."""
    for entry in sorted(folder.iterdir()):
        if entry.is_file():
            yield entry
        elif not entry.name.startswith("."):
            yield from _files_below(entry)


def ignored(path: Path) -> bool:
    """As .dockerignore has it: the last line that names the path, or a folder above it, decides."""
    names = [name.as_posix() for name in (path, *path.parents)]
    decision = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and any(fnmatch(name, line.removeprefix("!")) for name in names):
            decision = not line.startswith("!")
    return decision


def _base_environment() -> dict[str, str]:
    """A container's: of this process's own only what leads to programs and packages."""
    kept = re.compile(r"LANG|HOME|TMPDIR|SSL_CERT_.*|PIP_.*|(?i:https?|no)_PROXY")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if kept.fullmatch(name)} | {"PATH": path}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="api")
    parser.add_argument("--root", type=Path, required=True, help="an empty folder")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    given = dict(argument.split("=", 1) for argument in arguments.build_arg)
    image = run(arguments.target, arguments.root, given)
    print(f"left out, as they need root: {image.left_out or 'nothing'}\nit would start: {shlex.join(image.command)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
