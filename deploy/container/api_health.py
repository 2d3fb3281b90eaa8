"""Healthy while the HTTP service of this container answers at /livez; exit status 1 otherwise."""

from __future__ import annotations

import os
import sys
import urllib.request


def main() -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{os.environ['FOI_PORT']}/livez", timeout=3):
            return 0
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
