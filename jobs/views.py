"""The edit as callers see it, over HTTP and in webhooks: no keys of stores, no internals, addresses instead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from foi_core.spec import Method, Preset
from jobs.records import (
    EditInput,
    EditRecord,
    Metrics,
    Outcome,
    OutputFormat,
    OutputSize,
    Priority,
    Problem,
    Progress,
    Safety,
    Status,
)
from jobs.records import EditWarning as Warned


class InstructionView(BaseModel):
    text: str
    keyword: str | None = Field(
        description="The words whose cross-attention grounds this sub-instruction; null until found."
    )
    keyword_source: Literal["given", "rule", "attention"] | None
    token_indices: tuple[int, ...]
    intensity: float
    has_mask: bool = Field(description="Whether the caller gave a mask.")


class InputView(BaseModel):
    """What was asked. Omitted numbers are null until the edit is done, then they say what the model used."""

    instructions: tuple[InstructionView, ...]
    method: Method
    preset: Preset
    num_inference_steps: int | None
    strength: float
    guidance_scale: float | None
    image_guidance_scale: float | None
    seed: int
    threshold: float | tuple[float, float] | None
    threshold_used: float | None = Field(
        description="tau as it was used; drawn by the seed where threshold is a range."
    )
    mask_at: float | None
    modulation_end: float | None
    disentangle_end: float | None
    preserve_outside_mask: bool
    n: int
    output_size: OutputSize
    output_format: OutputFormat
    output_quality: int | None = Field(description="Of a jpeg or webp, where the caller gave one.")
    width: int
    height: int


class OutputView(BaseModel):
    seed: int
    url: str
    sha256: str
    width: int
    height: int


class MaskView(BaseModel):
    instruction: int
    seed: int = Field(description="Of the output that it belongs to.")
    keyword: str | None
    url: str = Field(description="8-bit grey PNG of the picture's size; white = may change.")
    sha256: str
    area: float


class AttentionMapView(BaseModel):
    instruction: int
    seed: int
    url: str
    sha256: str


class Urls(BaseModel):
    self: str
    events: str
    cancel: str


class Edit(BaseModel):
    """One edit, or one look for masks. A failed edit is no HTTP error: its `error` is a problem object."""

    id: str
    status: Status
    priority: Priority
    deadline_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime
    progress: Progress | None
    queue_position: int | None = Field(description="1: the next that is taken; null unless it waits.")
    eta_s: int | None = Field(
        description="Seconds until its end, estimated from the last edits; null where nothing is known."
    )
    input: InputView
    outputs: tuple[OutputView, ...]
    masks: tuple[MaskView, ...]
    attention_maps: tuple[AttentionMapView, ...]
    metrics: Metrics | None
    safety: Safety | None = Field(
        description="The verdict of the model's own safety checker; null where none has looked at a result."
    )
    warnings: tuple[Warned, ...]
    error: Problem | None
    metadata: dict[str, Any] | None
    urls: Urls


class EditList(BaseModel):
    """One page."""

    data: list[Edit]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


Addressed = TypeVar("Addressed", OutputView, MaskView, AttentionMapView)


class ProblemView(BaseModel):
    """RFC 9457 problem details; `errors` only where fields are to blame."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[dict[str, str]] | None = Field(
        None, description="`pointer` (RFC 6901, into the form) and `detail` of each."
    )


def edit_url(edit_id: str) -> str:
    return f"/v1/edits/{edit_id}"


def view(record: EditRecord, queue_position: int | None = None, eta_s: int | None = None) -> Edit:
    """Addresses are paths, so that they hold behind any proxy."""
    submission, outcome = record.submission, record.outcome
    edit_id = submission.id
    return Edit(
        id=edit_id,
        status=record.status,
        priority=submission.priority,
        deadline_at=submission.deadline_at,
        created_at=submission.created_at,
        started_at=record.started_at,
        completed_at=outcome.completed_at if outcome else None,
        expires_at=record.expires_at,
        progress=record.progress,
        queue_position=queue_position,
        eta_s=eta_s,
        input=_input(record.input),
        outputs=output_views(edit_id, outcome) if outcome else (),
        masks=mask_views(edit_id, outcome) if outcome else (),
        attention_maps=_attention_map_views(edit_id, outcome) if outcome else (),
        metrics=outcome.metrics if outcome else None,
        safety=outcome.safety if outcome else None,
        warnings=outcome.warnings if outcome else (),
        error=outcome.error if outcome else None,
        metadata=submission.metadata,
        urls=_urls(edit_id),
    )


def absolute(edit: Edit, base: str) -> Edit:
    """With addresses for those who do not know where they come from; `base` like `https://edits.example.org`."""

    def moved(views: Sequence[Addressed]) -> tuple[Addressed, ...]:
        return tuple(view.model_copy(update={"url": base + view.url}) for view in views)

    urls = Urls(**{name: base + path for name, path in edit.urls.model_dump().items()})
    return edit.model_copy(
        update={
            "outputs": moved(edit.outputs),
            "masks": moved(edit.masks),
            "attention_maps": moved(edit.attention_maps),
            "urls": urls,
        }
    )


def output_views(edit_id: str, outcome: Outcome) -> tuple[OutputView, ...]:
    return tuple(
        OutputView(
            seed=o.seed,
            url=_file_url(edit_id, o.file),
            sha256=outcome.files[o.file].sha256,
            width=o.width,
            height=o.height,
        )
        for o in outcome.outputs
    )


def mask_views(edit_id: str, outcome: Outcome) -> tuple[MaskView, ...]:
    return tuple(
        MaskView(
            instruction=m.instruction,
            seed=m.seed,
            keyword=m.keyword,
            url=_file_url(edit_id, m.file),
            sha256=outcome.files[m.file].sha256,
            area=m.area,
        )
        for m in outcome.masks
    )


def _attention_map_views(edit_id: str, outcome: Outcome) -> tuple[AttentionMapView, ...]:
    return tuple(
        AttentionMapView(
            instruction=m.instruction,
            seed=m.seed,
            url=_file_url(edit_id, m.file),
            sha256=outcome.files[m.file].sha256,
        )
        for m in outcome.attention_maps
    )


def _file_url(edit_id: str, name: str) -> str:
    return f"{edit_url(edit_id)}/files/{name}"


def _urls(edit_id: str) -> Urls:
    here = edit_url(edit_id)
    return Urls(self=here, events=f"{here}/events", cancel=f"{here}/cancel")


def _input(given: EditInput) -> InputView:
    parts = tuple(
        InstructionView(**part.model_dump(exclude={"mask"}), has_mask=part.mask is not None)
        for part in given.instructions
    )
    return InputView(**{**given.model_dump(exclude={"instructions"}), "instructions": parts})
