"""Measurements of the method: how well it does, not what it is."""

import foi_core  # noqa: F401  before torch, whose threads it sets
