"""The settings of the environment, for every command that runs something here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foi_cli.errors import UsageError, needing

if TYPE_CHECKING:  # an installation for `--server` alone does without
    from jobs.settings import Settings


def read_settings() -> Settings:
    """Raises UsageError that names the variables that are wrong, and UnusableError."""
    with needing("service,worker"):
        from pydantic import ValidationError

        from jobs.settings import Settings
    try:
        return Settings()
    except ValidationError as error:
        wrong = [f"{_variable(str(one['loc'][0]))}={one['input']}: {one['msg']}" for one in error.errors()]
        raise UsageError("; ".join(wrong)) from None


def _variable(name: str) -> str:
    """An alias is the variable itself."""
    return name if name.isupper() else f"FOI_{name.upper()}"
