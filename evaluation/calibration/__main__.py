"""`python -m evaluation.calibration`: see evaluation.calibration.cli."""

from __future__ import annotations

import sys

from evaluation.calibration.cli import main

if __name__ == "__main__":
    sys.exit(main())
