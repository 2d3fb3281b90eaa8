"""From JSON to models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, TypeVar

from foi_client.models import (
    Attempt,
    AttentionMap,
    Delivery,
    Edit,
    EditWarning,
    Input,
    Instruction,
    Mask,
    Metrics,
    Model,
    Output,
    Problem,
    Progress,
    Raw,
    Safety,
)

M = TypeVar("M", bound=Model)
_MOMENTS = ("created_at", "started_at", "completed_at", "expires_at", "deadline_at")


def read(kind: type[M], raw: Raw, **parsed: Any) -> M:
    """A model from JSON; `parsed` are the fields that are more than JSON's own types. Raises KeyError for what is
    missing."""
    values = {
        one.name: _tuples(raw[one.name])
        for one in fields(kind)
        if one.name not in ("raw", *parsed) and (one.name in raw or one.default is MISSING)
    }
    return kind(**values, **parsed, raw=raw)


def read_edit(raw: Raw) -> Edit:
    asked = raw["input"]
    return read(
        Edit,
        raw,
        **{name: _moment(raw[name]) for name in _MOMENTS},
        progress=_optional(Progress, raw["progress"]),
        input=read(Input, asked, instructions=_all(Instruction, asked["instructions"])),
        outputs=_all(Output, raw["outputs"]),
        masks=_all(Mask, raw["masks"]),
        attention_maps=_all(AttentionMap, raw["attention_maps"]),
        metrics=_optional(Metrics, raw["metrics"]),
        warnings=_all(EditWarning, raw["warnings"]),
        error=_optional(Problem, raw["error"]),
        safety=_optional(Safety, raw.get("safety")),
    )


def read_deliveries(raw: Raw) -> tuple[Delivery, ...]:
    return tuple(
        read(
            Delivery,
            one,
            next_at=_moment(one["next_at"]),
            attempts=tuple(read(Attempt, attempt, at=_moment(attempt["at"])) for attempt in one["attempts"]),
        )
        for one in raw["data"]
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _all(kind: type[M], raws: Sequence[Raw]) -> tuple[M, ...]:
    return tuple(read(kind, raw) for raw in raws)


def _optional(kind: type[M], raw: Raw | None) -> M | None:
    return None if raw is None else read(kind, raw)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
