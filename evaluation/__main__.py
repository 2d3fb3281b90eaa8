"""`python -m evaluation`: see evaluation.pictures.cli."""

from __future__ import annotations

import sys

from evaluation.pictures.cli import main

if __name__ == "__main__":
    sys.exit(main())
