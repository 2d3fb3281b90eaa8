"""The papers of the project say the same as the project."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import ROOT


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_what_its_schema_allows() -> None:
    checker = str(Path(sys.executable).parent / "check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.citation-file-format", str(ROOT / "CITATION.cff")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_citation_names_this_version_its_licence_and_the_paper(read: Callable[[str], list[Any]]) -> None:
    (citation,) = read("CITATION.cff")
    assert (citation["version"], citation["license"]) == (project()["version"], project()["license"])
    assert citation["preferred-citation"]["title"].startswith("Focus on Your Instruction: Fine-grained")


def test_images_and_manifests_are_of_this_version(read: Callable[[str], list[Any]]) -> None:
    version = project()["version"]
    (compose,), (kustomization,) = read("docker-compose.yml"), read("deploy/kubernetes/base/kustomization.yaml")
    images = [compose["services"][name]["image"] for name in ("api", "worker", "webhooks")]
    assert images == [f"foi-api:{version}", f"foi-worker:{version}", f"foi-api:{version}"]
    assert {image["newTag"] for image in kustomization["images"]} == {version}
