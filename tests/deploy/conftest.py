"""What the tests of several files of `deploy/` need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.support import ROOT


@pytest.fixture
def read() -> Callable[[str], list[Any]]:
    """Every document of a YAML file in the checkout."""

    def documents(name: str) -> list[Any]:
        return list(yaml.safe_load_all((ROOT / name).read_text()))

    return documents
