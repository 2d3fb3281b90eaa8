"""Downloads the model that the settings name to HF_HOME, and loads it once."""

from __future__ import annotations

import sys

from foi_core.checkpoint import load
from foi_core.errors import UnsupportedCheckpoint
from jobs import logs
from jobs.settings import Settings


def main() -> int:
    settings = Settings()
    logs.configure(settings)
    try:
        model = load(
            settings.model,
            "cpu",
            settings.dtype,
            revision=settings.model_revision,
            allow_pickle=settings.allow_pickle,
            safety_checker=settings.safety_checker,
        )
    except UnsupportedCheckpoint as error:
        print(f"foi: the model {settings.model!r} cannot be used: {error}", file=sys.stderr)
        return 1
    print(f"{model.name} is baked in, as {model.dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
