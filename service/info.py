"""What this service is, what it allows and what it assumes, so that a client need not be told by other means."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from foi_core.spec import MAX_ASPECT, MAX_SUB_INSTRUCTIONS, MAX_TEXT_LENGTH, MIN_SIDE, PRESETS, RANGES
from jobs import presence
from jobs.queue import PRIORITIES
from jobs.records import MEDIA_TYPES
from jobs.settings import Settings
from service import auth, lookup, openapi
from service.edits import MAX_WAIT_S
from service.fields import EDIT_METHODS, MAX_DEADLINE_S, MAX_METADATA_BYTES, OUTPUT_SIZES, SCALARS
from service.submit import Intake


class Range(BaseModel):
    minimum: float
    maximum: float


class PerKey(BaseModel):
    """What one API key may have; without keys nothing here applies."""

    edits: int = Field(description="That wait or run.")
    requests_per_minute: int
    streams: int = Field(description="Event streams open at once.")


class Limits(BaseModel):
    body_bytes: int = Field(description="Of a whole request.")
    pixels: int = Field(description="Of a picture, after decoding.")
    side: int = Field(description="Pixels that a picture's sides have at least.")
    aspect: int = Field(description="How many times longer one side may be than the other.")
    instructions: int = Field(description="Sub-instructions of one edit.")
    instruction_characters: int = Field(description="Of one sub-instruction.")
    outputs: int = Field(description="Largest `n`.")
    metadata_bytes: int
    deadline_s: int = Field(description="Largest `deadline_s`.")
    wait_s: int = Field(description="Longest `Prefer: wait`.")
    upload_s: int = Field(description="In which a body must arrive.")
    run_s: int = Field(description="An edit that runs longer fails with deadline-exceeded.")
    retention_s: int = Field(description="How long an edit and its files are kept after its end.")
    queue: int = Field(description="Edits that may wait; further ones get 503 queue-full.")
    per_key: PerKey
    ranges: dict[str, Range] = Field(
        description="Of the numbers of a form, and of `intensity`; both ends belong to it."
    )


class Preset(BaseModel):
    """What it sets where a caller names nothing."""

    threshold: float | tuple[float, float]
    mask_at: float
    modulation_end: float
    disentangle_end: float


class Queue(BaseModel):
    queued: int = Field(description="Edits that wait.")
    started: int = Field(description="Edits that workers have.")


class Workers(BaseModel):
    """How many are in each state."""

    starting: int
    ready: int
    draining: int


class Info(BaseModel):
    version: str = Field(description="Of this software.")
    model: str = Field(description="As the operator named it.")
    revision: str | None = Field(
        description="Of the model's weights: the hub's commit or a hash; null until a worker has loaded it."
    )
    methods: tuple[str, ...]
    presets: dict[str, Preset]
    output_formats: tuple[str, ...]
    output_sizes: tuple[str, ...]
    priorities: tuple[str, ...]
    limits: Limits
    defaults: dict[str, bool | int | float | str | None] = Field(
        description="Of every field of the form that may be left out; null where it is the model's own, the preset's, "
        "drawn, or nothing."
    )
    queue: Queue
    workers: Workers


router = APIRouter(tags=["operations"])


@router.get(
    "/v1/info",
    summary="Limits, defaults, the model and the queue",
    responses=openapi.problem_responses(*auth.PROBLEMS, "quota-exceeded", "unavailable"),
)
async def get_info(request: Request, _: auth.Reader) -> Info:
    """What an edit may ask for here, what it gets where it asks for nothing, and how busy the service is."""
    intake, version = lookup.intake(request), request.app.version
    return await lookup.in_thread(lambda: _info(intake, version))


def _info(intake: Intake, version: str) -> Info:
    workers = presence.present(intake.repository.redis)
    loaded = next((worker for worker in workers if worker.revision), None)
    states = Counter(worker.state for worker in workers)
    return Info(
        version=version,
        model=loaded.model if loaded else intake.settings.model,
        revision=loaded.revision if loaded else None,
        methods=EDIT_METHODS,
        presets={name: Preset.model_validate(preset, from_attributes=True) for name, preset in PRESETS.items()},
        output_formats=tuple(MEDIA_TYPES),
        output_sizes=OUTPUT_SIZES,
        priorities=PRIORITIES,
        limits=_limits(intake.settings),
        defaults={name: field.schema.get("default") for name, field in SCALARS.items()},
        queue=Queue(queued=intake.queue.length(), started=intake.queue.running()),
        workers=Workers(**{state: states[state] for state in get_args(presence.State)}),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        body_bytes=settings.max_body_bytes,
        pixels=settings.max_pixels,
        side=MIN_SIDE,
        aspect=MAX_ASPECT,
        instructions=MAX_SUB_INSTRUCTIONS,
        instruction_characters=MAX_TEXT_LENGTH,
        outputs=settings.max_outputs,
        metadata_bytes=MAX_METADATA_BYTES,
        deadline_s=MAX_DEADLINE_S,
        wait_s=MAX_WAIT_S,
        upload_s=settings.upload_timeout_s,
        run_s=settings.edit_timeout_s,
        retention_s=settings.retention_s,
        queue=settings.max_queue,
        per_key=PerKey(
            edits=settings.max_edits_per_key,
            requests_per_minute=settings.max_requests_per_minute,
            streams=settings.max_streams_per_key,
        ),
        ranges={name: Range(minimum=low, maximum=high) for name, (low, high) in RANGES.items()},
    )
