"""How a text is read: its sub-instructions and the keyword of each, before a picture is there."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from foi_core.keywords import find_keyword
from service import auth, forms, lookup, openapi, parsing
from service.forms import Form

_FIELDS = openapi.CREATE_EDIT["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {name: _FIELDS[name] for name in ("instruction", "instructions")},
                    "oneOf": [{"required": ["instruction"]}, {"required": ["instructions"]}],
                }
            }
        },
    }
}


class SplitInstruction(BaseModel):
    text: str
    keyword: str | None = Field(
        description="As it was given, or as the rule finds it; null where it finds none: then the model's attention "
        "chooses a word."
    )


class SplitInstructions(BaseModel):
    """What an edit with the same fields would be asked to do."""

    instructions: list[SplitInstruction]


router = APIRouter(tags=["edits"])


@router.post(
    "/v1/instructions",
    summary="See how a text is read",
    openapi_extra=_FORM,
    response_model=SplitInstructions,
    responses=openapi.problem_responses(
        *auth.PROBLEMS,
        "malformed-body",
        "request-timeout",
        "payload-too-large",
        "unsupported-media-type",
        "invalid-parameter",
        "quota-exceeded",
        "unavailable",
    ),
)
async def read_instructions(request: Request, _: auth.Submitter) -> Response | SplitInstructions:
    """Takes `instruction` or `instructions` as an edit does, and tells the sub-instructions and where each would look.
    Needs no picture and no worker, and stores nothing."""
    try:
        form = await forms.read_form(request, lookup.intake(request).settings)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    try:
        return await lookup.in_thread(partial(_read, form))
    finally:
        await forms.close(form)


def _read(form: Form) -> SplitInstructions:
    parts = parsing.parse_texts(form)
    found = [SplitInstruction(text=part.text, keyword=part.keyword or find_keyword(part.text)) for part in parts]
    return SplitInstructions(instructions=found)
