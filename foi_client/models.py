"""What comes back: frozen, typed, and each with `raw`, the JSON that it was read from. What a newer service adds is
found there; the client reads what it knows and lets the rest be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from foi_client.errors import AnswerError, EditCanceled, EditFailed, NotEndedError

Raw = Mapping[str, Any]
_FILE = re.compile(r"/v1/edits/[A-Za-z0-9_-]+/files/(?P<name>[A-Za-z0-9_-][A-Za-z0-9._-]*)\Z")


@dataclass(frozen=True, kw_only=True)
class Model:
    raw: Raw = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class File(Model):
    """`url` is a path of the service. `sha256`: of its bytes, in hexadecimal; None where the service does not tell."""

    url: str
    seed: int
    sha256: str | None = None

    @property
    def path(self) -> str:
        """Its address below the client's own: a message may name another host, which must not get the API key."""
        return self._match[0]

    @property
    def name(self) -> str:
        """`result.png`, `mask-1.png`, ...; safe as the name of a local file."""
        return self._match["name"]

    @property
    def _match(self) -> re.Match[str]:
        match = _FILE.search(self.url)
        if match is None:
            raise AnswerError(f"{self.url!r} is no address of an edit's file")
        return match


@dataclass(frozen=True, kw_only=True)
class Output(File):
    """One edited picture; its size in pixels."""

    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Mask(File):
    """Where sub-instruction `instruction` (from 0) may change the output of `seed`: an 8-bit grey PNG of the picture's
    size, white = may change. `area` is the share of it, 0 to 1."""

    instruction: int
    keyword: str | None
    area: float


@dataclass(frozen=True, kw_only=True)
class AttentionMap(File):
    """The soft map that a mask was made from."""

    instruction: int


@dataclass(frozen=True, kw_only=True)
class Progress(Model):
    """`step` denoising steps of `steps` are done; `stage` is encode, denoise or decode."""

    step: int
    steps: int
    stage: str


@dataclass(frozen=True, kw_only=True)
class Problem(Model):
    """Why an edit failed; `kind` is the last part of `type`: out-of-memory, deadline-exceeded, unsafe-result,
    worker-lost or internal."""

    type: str
    title: str
    detail: str

    @property
    def kind(self) -> str:
        return self.type.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class EditWarning(Model):
    """What looks wrong, and what to try; `instruction` (from 0) is None where it is none of them."""

    code: str
    message: str
    instruction: int | None


@dataclass(frozen=True, kw_only=True)
class Metrics(Model):
    """`change_outside_mask`: largest difference, 0 to 255, outside all masks; None where there are no masks."""

    queue_ms: int
    run_ms: int
    mask_area: float | None
    change_outside_mask: int | None


@dataclass(frozen=True, kw_only=True)
class Safety(Model):
    """The verdict of the model's safety checker: whether it flagged any of the edit's outputs."""

    flagged: bool


@dataclass(frozen=True, kw_only=True)
class Instruction(Model):
    """A sub-instruction as the service understood it; `keyword` is None until it is found."""

    text: str
    keyword: str | None
    keyword_source: str | None
    token_indices: tuple[int, ...]
    intensity: float
    has_mask: bool


@dataclass(frozen=True, kw_only=True)
class Input(Model):
    """What was asked. Omitted numbers are None until the edit is done, then they say what the model used; `width` and
    `height` in pixels."""

    instructions: tuple[Instruction, ...]
    method: str
    preset: str
    num_inference_steps: int | None
    strength: float
    guidance_scale: float | None
    image_guidance_scale: float | None
    seed: int
    threshold: float | tuple[float, float] | None
    threshold_used: float | None
    mask_at: float | None
    modulation_end: float | None
    disentangle_end: float | None
    preserve_outside_mask: bool
    n: int
    output_size: str
    output_format: str
    output_quality: int | None
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Edit(Model):
    """One edit at one moment, or one look for masks. `status` is queued, running, canceling, succeeded, failed or
    canceled. `queue_position` 1 is the next that is taken; `eta_s`: seconds until its end, as estimated."""

    id: str
    status: str
    priority: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime
    deadline_at: datetime | None
    progress: Progress | None
    queue_position: int | None
    eta_s: int | None
    input: Input
    outputs: tuple[Output, ...]
    masks: tuple[Mask, ...]
    attention_maps: tuple[AttentionMap, ...]
    metrics: Metrics | None
    warnings: tuple[EditWarning, ...]
    error: Problem | None
    safety: Safety | None
    metadata: Raw | None = field(hash=False)

    @property
    def ended(self) -> bool:
        return self.completed_at is not None

    def raise_for_status(self) -> Edit:
        """Itself, where it has succeeded. Raises EditFailed, EditCanceled, NotEndedError."""
        if not self.ended:
            raise NotEndedError(f"{self.id} is {self.status}; wait for its end")
        if self.status == "canceled":
            raise EditCanceled(self)
        if self.status != "succeeded":
            raise EditFailed(self)
        return self


@dataclass(frozen=True, kw_only=True)
class Attempt(Model):
    """One try to deliver a webhook: the status that it was answered with, or why there was no answer."""

    at: datetime
    status: int | None
    error: str | None
    ms: int


@dataclass(frozen=True, kw_only=True)
class Delivery(Model):
    """A webhook's message; `state` is pending, succeeded, failed or stopped. `id` is the `webhook-id` of each attempt,
    the last of which are in `attempts`, the oldest first."""

    id: str
    url: str
    state: str
    next_at: datetime | None
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, kw_only=True)
class Info(Model):
    """What the service is, allows and assumes. `revision` is None until a worker has loaded the model. `workers` says
    how many are in each state, `queue` how many edits are queued and started."""

    version: str
    model: str
    revision: str | None
    methods: tuple[str, ...]
    presets: Raw
    output_formats: tuple[str, ...]
    output_sizes: tuple[str, ...]
    priorities: tuple[str, ...]
    limits: Raw
    defaults: Raw
    queue: Mapping[str, int]
    workers: Mapping[str, int]
