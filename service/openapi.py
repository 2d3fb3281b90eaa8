"""The description of the API, as /docs and openapi.yaml show it (`python -m service.openapi` prints that).

The form is parsed by hand, to refuse what is unknown, and described from the same table."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foi_core.spec import MAX_ASPECT, MAX_SUB_INSTRUCTIONS, MAX_TEXT_LENGTH, MIN_SIDE, RANGES
from jobs.settings import Settings
from jobs.views import Edit, ProblemView
from service import examples
from service.fields import SCALARS
from service.problems import KINDS, MEDIA_TYPE, RETRY_AFTER_S

_LOW, _HIGH = RANGES["intensity"]

_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_LENGTH, "pattern": r"\S"}
_INSTRUCTIONS = {
    "type": "string",
    "description": (
        'Instead of `instruction`: a JSON list of `{"text", "keyword"?, "intensity"?, "mask"?}`. '
        "`keyword`: words of the text whose attention finds the region (default: found by a rule). "
        f"`intensity`: alpha of Eq. 6, {_LOW:g} to {_HIGH:g} (default 1). "
        "`mask`: the name of a further file of this form (PNG, JPEG, WEBP; the picture's size; white = may change)."
    ),
    "contentMediaType": "application/json",
    "contentSchema": {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_SUB_INSTRUCTIONS,
        "items": {
            "type": "object",
            "properties": {
                "text": _TEXT,
                "keyword": {"type": ["string", "null"]},
                "intensity": {"type": ["number", "null"], "minimum": _LOW, "maximum": _HIGH, "default": 1},
                "mask": {"type": ["string", "null"]},
            },
            "required": ["text"],
            "additionalProperties": False,
        },
    },
    "examples": ['[{"text": "make the hat black", "keyword": "hat", "intensity": 1.5}]'],
}


_FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "image": {
            "type": "string",
            "format": "binary",
            "description": "This, or `image_url`. PNG, JPEG or WEBP, not animated; "
            f"sides of at least {MIN_SIDE}, at most {MAX_ASPECT}:1.",
        },
        "instruction": {
            "type": "array",
            "items": _TEXT,
            "minItems": 1,
            "maxItems": MAX_SUB_INSTRUCTIONS,
            "description": "Once: the whole text, which is split into sub-instructions. Several times: one each.",
        },
        "instructions": _INSTRUCTIONS,
        **{name: field.schema for name, field in SCALARS.items()},
    },
    "additionalProperties": {"type": "string", "format": "binary", "description": "A mask that `instructions` names."},
    "oneOf": [
        {"required": [picture, text]} for picture in ("image", "image_url") for text in ("instruction", "instructions")
    ],
}
_ENCODING = {"image": {"contentType": "image/png, image/jpeg, image/webp"}}

CREATE_EDIT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": _FORM_SCHEMA, "encoding": _ENCODING}},
    },
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "schema": {"type": "string", "examples": ["wait=30"]},
            "description": "`wait=N`: answer when the edit is done, or after N seconds (at most 60).",
        },
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "Any text of the caller's, kept for 24 hours: the same request again answers with the edit "
            "that it made before, another request with it is refused.",
        },
    ],
}
CREATE_MASKS: dict[str, Any] = {
    **CREATE_EDIT,
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    **_FORM_SCHEMA,
                    "properties": {k: v for k, v in _FORM_SCHEMA["properties"].items() if k != "method"},
                },
                "encoding": _ENCODING,
            }
        },
    },
}
_EDIT_HEADERS = {
    "Retry-After": {
        "schema": {"type": "integer"},
        "description": "Seconds until it is worth asking again; absent when done.",
    }
}
SUBMIT_HEADERS = {
    "Location": {"schema": {"type": "string"}, "description": "Address of the edit."},
    "Preference-Applied": {"schema": {"type": "string"}, "description": "The `wait` that was honoured."},
    "Idempotent-Replayed": {"schema": {"type": "string"}, "description": "`true`: this edit was made before."},
}


def edit_response(description: str, *, done: bool, **headers: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"example": examples.succeeded() if done else examples.queued()}}
    return {"model": Edit, "description": description, "headers": {**_EDIT_HEADERS, **headers}, "content": content}


def problem_responses(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """One entry per status; kinds that share one are listed together."""
    responses: dict[int | str, dict[str, Any]] = {}
    for slug in slugs:
        status, title = KINDS[slug]
        content = {"schema": {"$ref": "#/components/schemas/ProblemView"}, "examples": {}}
        entry = responses.setdefault(status, {"description": "", "content": {MEDIA_TYPE: content}})
        entry["description"] = f"{entry['description']} `/problems/{slug}`: {title}.".strip()
        entry["content"][MEDIA_TYPE]["examples"][slug] = {"value": examples.problem(slug)}
        if slug in RETRY_AFTER_S:
            entry["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return responses


def add_problem_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that `problem_responses` refers to."""
    model = ProblemView.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.setdefault("components", {}).setdefault("schemas", {})["ProblemView"] = model
    return schema


def as_yaml() -> str:
    """The whole description, as openapi.yaml has it."""
    import yaml  # a developer's tool: the service does not need it

    from service.app import create_app

    with TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)), "redis://127.0.0.1")  # which it does not ask
        return str(yaml.safe_dump(app.openapi(), sort_keys=False, allow_unicode=True, width=110))


if __name__ == "__main__":
    print(as_yaml(), end="")
