"""Measurements of the service: what it holds out, and how fast it is. Not of the method: that is `evaluation`."""

import foi_core  # noqa: F401  before torch, whose threads it sets
