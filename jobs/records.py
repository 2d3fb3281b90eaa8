"""The record of one edit, as it is stored: what came in, where it is, what came out.

queued ──> running ──> succeeded | failed        (terminal: the first one written stays)
   │          └─────> canceling ──> canceled
   └─────────────────────────────>
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict

from foi_core.spec import SEED_LIMIT, EditSpec, Method, Preset, SubInstruction

Status = Literal["queued", "running", "canceling", "succeeded", "failed", "canceled"]
Priority = Literal["high", "normal", "low"]
OutputFormat = Literal["png", "jpeg", "webp"]
OutputSize = Literal["input", "model"]
EndEvent = Literal["edit.succeeded", "edit.failed", "edit.canceled"]
MEDIA_TYPES: dict[OutputFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
MAX_SIDES: dict[OutputFormat, int] = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
"""Pixels that a side may have, as each format or its usual encoder allows it."""
LOSSY_QUALITY = 95
"""Of a JPEG or WEBP, where nothing else is asked for."""
INPUT_FILE = "input.png"
"""The picture as the model is shown it; made when somebody fetches it."""
UPLOAD = "upload"


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def new_edit_id() -> str:
    """An id that cannot be guessed: who knows it may read the edit."""
    return f"edit_{uuid.uuid4().hex}"


class Record(BaseModel):
    """Immutable once made: a change of state is a new record. What is wrong with one is told without its texts."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Problem(Record):
    """RFC 9457, as it stands in a failed edit."""

    type: str
    title: str
    detail: str


class Progress(Record):
    """`step` denoising steps of `steps` are done; `stage` is encode, denoise or decode."""

    step: int
    steps: int
    stage: str


class Instruction(Record):
    """One sub-instruction. `mask` is the stored file's name when the caller gave a mask."""

    text: str
    keyword: str | None = None
    keyword_source: Literal["given", "rule", "attention"] | None = None
    token_indices: tuple[int, ...] = ()
    intensity: float = 1.0
    mask: str | None = None


class EditInput(Record):
    """What was asked. None is the default of the model or of the preset; it is filled in when the edit is done. Output
    `i` of `n` has the seed `seed + i`."""

    instructions: tuple[Instruction, ...]
    method: Method
    preset: Preset
    num_inference_steps: int | None
    strength: float
    guidance_scale: float | None
    image_guidance_scale: float | None
    seed: int
    threshold: float | tuple[float, float] | None
    threshold_used: float | None = None
    mask_at: float | None
    modulation_end: float | None
    disentangle_end: float | None
    preserve_outside_mask: bool
    n: int = 1
    output_size: OutputSize = "input"
    output_format: OutputFormat
    output_quality: int | None = None
    width: int
    height: int

    @classmethod
    def from_spec(cls, spec: EditSpec, instructions: Sequence[Instruction], **rest: Any) -> EditInput:
        """`rest`: seed, n, output_size, output_format, output_quality, width and height, and threshold_used once it is
        known."""
        numbers = {name: getattr(spec, name) for name in cls.model_fields.keys() & EditSpec.__dataclass_fields__.keys()}
        return cls(**{**numbers, **rest, "instructions": tuple(instructions)})

    @property
    def seeds(self) -> list[int]:
        """Of every output."""
        return [(self.seed + i) % SEED_LIMIT for i in range(self.n)]

    def to_spec(self, masks: Sequence[Image.Image | None]) -> EditSpec:
        """The engine's view, with the stored masks loaded: one per sub-instruction, None where none was given."""
        parts = tuple(
            SubInstruction(part.text, part.keyword, part.intensity, mask)
            for part, mask in zip(self.instructions, masks, strict=True)
        )
        names = type(self).model_fields.keys() & EditSpec.__dataclass_fields__.keys()
        return EditSpec(**{**{name: getattr(self, name) for name in names}, "instructions": parts})


class StoredFile(Record):
    """Where a file's bytes are in the blob store, and what they are."""

    key: str
    media_type: str
    sha256: str
    size: int


class Output(Record):
    seed: int
    file: str
    width: int
    height: int


class Mask(Record):
    """Where sub-instruction `instruction` may change the output of `seed`; `area` is the share of it, 0 to 1."""

    instruction: int
    seed: int
    keyword: str | None
    file: str
    area: float


class AttentionMap(Record):
    instruction: int
    seed: int
    file: str


class Metrics(Record):
    """`change_outside_mask`: largest difference, 0 to 255, outside all masks; None where there are no masks."""

    queue_ms: int
    run_ms: int
    mask_area: float | None
    change_outside_mask: int | None


class Safety(Record):
    """The verdict of the model's safety checker: whether it flagged any of the edit's outputs."""

    flagged: bool


class EditWarning(Record):
    code: str
    message: str
    instruction: int | None


class Webhook(Record):
    """Who wants to hear of the edit's end, and of which ends."""

    url: str
    events: tuple[EndEvent, ...]


class Submission(Record):
    """What came in; never changes. After `deadline_at` the edit is stopped wherever it is. `owner` is the id of the API
    key that it came with, empty where keys are off. `upload` is the picture's file as it was sent: what a caller may
    fetch is made from it, without its metadata."""

    id: str
    owner: str = ""
    created_at: datetime
    input: EditInput
    metadata: dict[str, Any] | None
    upload: StoredFile
    files: dict[str, StoredFile] = {}
    priority: Priority = "normal"
    deadline_at: datetime | None = None
    previews: bool = False
    webhook: Webhook | None = None


class Outcome(Record):
    """What came out; written once."""

    status: Literal["succeeded", "failed", "canceled"]
    completed_at: datetime
    input: EditInput | None = None
    files: dict[str, StoredFile] = {}
    outputs: tuple[Output, ...] = ()
    masks: tuple[Mask, ...] = ()
    attention_maps: tuple[AttentionMap, ...] = ()
    metrics: Metrics | None = None
    safety: Safety | None = None
    warnings: tuple[EditWarning, ...] = ()
    error: Problem | None = None

    @classmethod
    def failed(cls, slug: str, title: str, detail: str, safety: Safety | None = None) -> Outcome:
        """An edit that ended without a result, with its reason as a problem."""
        problem = Problem(type=f"/problems/{slug}", title=title, detail=detail)
        return cls(status="failed", completed_at=now(), safety=safety, error=problem)

    @classmethod
    def canceled(cls, completed_at: datetime | None = None) -> Outcome:
        """An edit that its caller did not want any more."""
        return cls(status="canceled", completed_at=completed_at or now())

    def ended_at(self, moment: datetime) -> Outcome:
        """The same, with the time of Redis's clock instead of the worker's."""
        return self.model_copy(update={"completed_at": moment})


class EditRecord(Record):
    """One edit at one moment. `attempt` counts the starts: it is the fencing token of whoever runs the edit. `deaths`
    counts those that ended with their worker's death, a running one included until it has ended otherwise."""

    submission: Submission
    status: Status
    expires_at: datetime
    attempt: int = 0
    deaths: int = 0
    started_at: datetime | None = None
    progress: Progress | None = None
    outcome: Outcome | None = None

    @property
    def terminal(self) -> bool:
        return self.outcome is not None

    @property
    def input(self) -> EditInput:
        """What was asked, with every open number filled in once the edit is done."""
        return (self.outcome and self.outcome.input) or self.submission.input

    @property
    def files(self) -> dict[str, StoredFile]:
        """Every file that may be fetched, by its name."""
        return self.submission.files | (self.outcome.files if self.outcome else {})
