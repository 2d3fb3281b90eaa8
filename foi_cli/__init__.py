"""The command line: `foi edit`, `foi serve`, `foi doctor` and the rest. Starting it loads no torch."""

import foi_core  # noqa: F401  before torch, whose threads it sets
