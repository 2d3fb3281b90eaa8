"""Examples of the API's description: made by the code that answers, so that they cannot grow stale."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.records import (
    AttentionMap,
    EditInput,
    EditRecord,
    Instruction,
    Mask,
    Metrics,
    Outcome,
    Output,
    StoredFile,
    Submission,
)
from jobs.views import view
from service.problems import KINDS, Problem

_ID = "edit_5f7dfe0546154de6b3f42ea4083bc1de"
_BEGUN = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def queued() -> dict[str, Any]:
    """An edit as it is right after its submit."""
    record = EditRecord(submission=_submission(), status="queued", expires_at=_BEGUN + timedelta(days=1))
    return view(record, queue_position=1, eta_s=3).model_dump(mode="json")


def succeeded() -> dict[str, Any]:
    """The same edit when it is done."""
    hat = Instruction(
        text="make the hat black", keyword="hat", keyword_source="rule", token_indices=(4,), intensity=1.0
    )
    files = {
        name: StoredFile(key="", media_type="image/png", sha256=_SHA256, size=1)
        for name in ("result.png", "mask-1.png", "attention-1.png")
    }
    outcome = Outcome(
        status="succeeded",
        completed_at=_BEGUN + timedelta(seconds=3),
        input=_input(hat, num_inference_steps=100, guidance_scale=7.5, image_guidance_scale=1.5, threshold_used=0.5),
        files=files,
        outputs=(Output(seed=7, file="result.png", width=768, height=512),),
        masks=(Mask(instruction=0, seed=7, keyword="hat", file="mask-1.png", area=0.0412),),
        attention_maps=(AttentionMap(instruction=0, seed=7, file="attention-1.png"),),
        metrics=Metrics(queue_ms=6, run_ms=2850, mask_area=0.0412, change_outside_mask=0),
    )
    record = EditRecord(
        submission=_submission(),
        status="succeeded",
        expires_at=_BEGUN + timedelta(days=1, seconds=3),
        started_at=_BEGUN + timedelta(milliseconds=6),
        outcome=outcome,
    )
    return view(record).model_dump(mode="json")


def problem(slug: str) -> dict[str, Any]:
    """A problem document of this kind."""
    errors = [{"pointer": "/strength", "detail": "strength: '2' is not allowed; expected a number from 0 to 1"}]
    shown = Problem(slug, KINDS[slug][1] + ".", errors if slug == "invalid-parameter" else ())
    return shown.body(f"/v1/edits/{_ID}")


def _submission() -> Submission:
    return Submission(
        id=_ID,
        created_at=_BEGUN,
        input=_input(Instruction(text="make the hat black")),
        metadata={"order": 7},
        upload=StoredFile(key="", media_type="image/jpeg", sha256=_SHA256, size=1),
    )


def _input(instruction: Instruction, **changes: Any) -> EditInput:
    values = {
        "num_inference_steps": None,
        "guidance_scale": None,
        "image_guidance_scale": None,
        "threshold": None,
        "mask_at": None,
        "modulation_end": None,
        "disentangle_end": None,
        **changes,
    }
    return EditInput(
        instructions=(instruction,),
        method="foi",
        preset="default",
        strength=0.8,
        seed=7,
        preserve_outside_mask=True,
        output_format="png",
        width=768,
        height=512,
        **values,
    )
