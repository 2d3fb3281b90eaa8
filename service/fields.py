"""The form's fields: one table, from which the form is parsed and the API's description is made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, get_args

from foi_core.errors import InvalidParameter
from foi_core.spec import PRESETS, RANGES, EditSpec
from jobs.queue import PRIORITIES
from jobs.records import LOSSY_QUALITY, MEDIA_TYPES, EndEvent, OutputSize

MAX_METADATA_BYTES = 4096
MAX_JSON_DEPTH = 32
MAX_DEADLINE_S = 86_400
MAX_QUALITY = 100
EDIT_METHODS = ("foi", "ip2p")
OUTPUT_SIZES: tuple[str, ...] = get_args(OutputSize)
END_EVENTS: tuple[str, ...] = get_args(EndEvent)
N = TypeVar("N", int, float)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})([eE][+-]?[0-9]{1,3})?")
_SPEC_DEFAULTS = {field.name: field.default for field in fields(EditSpec) if field.default is not MISSING}


@dataclass(frozen=True)
class Field:
    """A field that may be given once: how its text is read, and its JSON schema."""

    name: str
    read: Callable[[str, str], Any]
    schema: dict[str, Any]


def whole(name: str, text: str) -> int:
    if not _WHOLE.fullmatch(text.strip()):
        raise InvalidParameter(name, text, f"a whole number{_from_to(name)}")
    return _in_range(name, int(text))


def number(name: str, text: str) -> float:
    if not _NUMBER.fullmatch(text.strip()):
        raise InvalidParameter(name, text, f"a number{_from_to(name)}")
    return _in_range(name, float(text))


def threshold(name: str, text: str) -> float | tuple[float, float]:
    """`0.5`, or the range `0.4-0.7`."""
    low, *high = [text] if _NUMBER.fullmatch(text.strip()) else text.split("-", 1)
    try:
        bounds = [number(name, part) for part in (low, *high)]
    except InvalidParameter:
        bounds = []
    if not bounds or bounds != sorted(bounds):
        raise InvalidParameter(name, text, "a number from 0 to 1, or a range from a lower to a higher one: 0.4-0.7")
    return (bounds[0], bounds[1]) if high else bounds[0]


def _in_range(name: str, value: N) -> N:
    low, high = RANGES.get(name, (value, value))
    if not low <= value <= high:
        raise InvalidParameter(name, value, f"a{' whole' if isinstance(value, int) else ''} number{_from_to(name)}")
    return value


def _from_to(name: str) -> str:
    return " from {:.10g} to {:.10g}".format(*RANGES[name]) if name in RANGES else ""


def deadline(name: str, text: str) -> int:
    seconds = whole(name, text)
    if not 1 <= seconds <= MAX_DEADLINE_S:
        raise InvalidParameter(name, seconds, f"seconds from 1 to {MAX_DEADLINE_S}")
    return seconds


def quality(name: str, text: str) -> int:
    percent = whole(name, text)
    if not 0 <= percent <= MAX_QUALITY:
        raise InvalidParameter(name, percent, f"a whole number from 0 to {MAX_QUALITY}")
    return percent


def boolean(name: str, text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
    except KeyError:
        raise InvalidParameter(name, text, "true or false") from None


def one_of(*allowed: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text not in allowed:
            raise InvalidParameter(name, text, " or ".join(allowed))
        return text

    return read


class _NotJson(ValueError):
    """What Python's parser would let through."""


def json_value(name: str, text: str) -> Any:
    """JSON as RFC 8259 has it: no NaN, only text that can be written as UTF-8, no key twice, and not so deep that what
    reads it later gives up."""
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except json.JSONDecodeError as error:
        raise InvalidParameter(name, text, f"valid JSON; character {error.pos + 1}: {error.msg}") from None
    except UnicodeEncodeError:
        raise InvalidParameter(name, text, "JSON whose texts have no halves of surrogate pairs") from None
    except _NotJson as error:
        raise InvalidParameter(name, text, f"valid JSON; {error}") from None
    except ValueError:
        raise InvalidParameter(name, text, "JSON whose numbers are not that large") from None
    except RecursionError:
        raise InvalidParameter(name, text, f"JSON of at most {MAX_JSON_DEPTH} levels") from None
    if _deeper_than(MAX_JSON_DEPTH, value):
        raise InvalidParameter(name, text, f"JSON of at most {MAX_JSON_DEPTH} levels")
    return value


def _no_constant(constant: str) -> None:
    raise _NotJson(f"{constant} is no number in it")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _NotJson(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for node in level for child in _children(node)]
    return any(isinstance(node, dict | list) for node in level)


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def text(_: str, text: str) -> str:
    return text.strip()


def webhook_events(name: str, text: str) -> tuple[str, ...]:
    events = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not set(events) <= set(END_EVENTS):
        raise InvalidParameter(name, text, f"some of {', '.join(END_EVENTS)}, with commas between")
    return events


def metadata(name: str, text: str) -> dict[str, Any]:
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise InvalidParameter(name, text, f"a JSON object of at most {MAX_METADATA_BYTES} bytes")
    value = json_value(name, text)
    if not isinstance(value, dict):
        raise InvalidParameter(name, text, "a JSON object")
    return value


def _number_schema(name: str, kind: str, description: str) -> dict[str, Any]:
    low, high = RANGES[name]
    schema: dict[str, Any] = {"type": kind, "minimum": low, "maximum": high, "description": description}
    if _SPEC_DEFAULTS.get(name) is not None:
        schema["default"] = _SPEC_DEFAULTS[name]
    return schema


def _whole_field(name: str, description: str) -> Field:
    return Field(name, whole, _number_schema(name, "integer", description))


def _number_field(name: str, description: str) -> Field:
    return Field(name, number, _number_schema(name, "number", description))


_SHARE_PATTERN = r"(0|1|0?\.[0-9]{1,18})"
_EVENT_PATTERN = "|".join(END_EVENTS).replace(".", r"\.")
_OWN = "Default: the model's own."
_SHARE = "A share of the run, 0 to 1. Default: the preset's."

SPEC_FIELDS = (
    _whole_field("num_inference_steps", f"Denoising steps of the whole schedule. {_OWN}"),
    _number_field("strength", "Share of noise that the start gets; less keeps more of the input."),
    _number_field("guidance_scale", f"s_T: how strongly the instruction acts. {_OWN}"),
    _number_field("image_guidance_scale", f"s_I: how strongly the input picture acts. {_OWN}"),
    _whole_field("seed", "The same seed and input give the same picture. Drawn when omitted, and always echoed."),
    Field(
        "threshold",
        threshold,
        {
            "type": "string",
            "pattern": rf"^{_SHARE_PATTERN}(-{_SHARE_PATTERN})?$",
            "examples": ["0.5", "0.4-0.7"],
            "description": "tau, 0 to 1, of the preset's soft map: a number, or a range `low-high` that it is drawn "
            "from by the seed; higher makes smaller masks. Default: the preset's, or the model's own.",
        },
    ),
    Field(
        "method",
        one_of(*EDIT_METHODS),
        {
            "type": "string",
            "enum": list(EDIT_METHODS),
            "default": "foi",
            "description": "ip2p: plain, without regions.",
        },
    ),
    Field(
        "preset",
        one_of(*PRESETS),
        {
            "type": "string",
            "enum": list(PRESETS),
            "default": "default",
            "description": "paper: the method to the letter; default: with what was measured to be better.",
        },
    ),
    _number_field("mask_at", f"When the masks are taken. {_SHARE}"),
    _number_field("modulation_end", f"When cross-condition attention modulation stops. {_SHARE}"),
    _number_field("disentangle_end", f"When the mask-guided disentangled sampling stops. {_SHARE}"),
    Field(
        "preserve_outside_mask",
        boolean,
        {"type": "boolean", "default": True, "description": "Pastes the input back outside the masks, to the byte."},
    ),
)
OTHER_FIELDS = (
    Field(
        "image_url",
        text,
        {
            "type": "string",
            "format": "uri",
            "description": "Instead of `image`: where to fetch it; http or https, a public address.",
        },
    ),
    Field(
        "n",
        whole,
        {
            "type": "integer",
            "minimum": 1,
            "default": 1,
            "description": "How many outputs, at most what `/v1/info` says (8 unless set otherwise): the first has "
            "`seed`, the next `seed` + 1, and so on; one batch.",
        },
    ),
    Field(
        "output_size",
        one_of(*OUTPUT_SIZES),
        {
            "type": "string",
            "enum": list(OUTPUT_SIZES),
            "default": "input",
            "description": "input: as the picture came. model: as the model works, both sides multiples of 64.",
        },
    ),
    Field(
        "webhook_url",
        text,
        {"type": "string", "format": "uri", "description": "Hears of the edit's end; http or https, a public address."},
    ),
    Field(
        "webhook_events",
        webhook_events,
        {
            "type": "string",
            "pattern": rf"^({_EVENT_PATTERN})(,({_EVENT_PATTERN}))*$",
            "default": ",".join(END_EVENTS),
            "description": f"Of which ends, with commas between: {', '.join(END_EVENTS)}.",
        },
    ),
    Field(
        "priority",
        one_of(*PRIORITIES),
        {
            "type": "string",
            "enum": list(PRIORITIES),
            "default": "normal",
            "description": "All waiting edits of a higher one go first.",
        },
    ),
    Field(
        "deadline_s",
        deadline,
        {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_DEADLINE_S,
            "description": "Seconds from now after which the edit is stopped, waiting or running, and fails with "
            "deadline-exceeded. Default: the service's own limit on running.",
        },
    ),
    Field(
        "previews",
        boolean,
        {"type": "boolean", "default": False, "description": "Whether the events show the picture on its way."},
    ),
    Field(
        "output_format",
        one_of(*MEDIA_TYPES),
        {"type": "string", "enum": list(MEDIA_TYPES), "default": "png", "description": "jpeg and webp are lossy."},
    ),
    Field(
        "output_quality",
        quality,
        {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_QUALITY,
            "description": f"Of a jpeg or webp: less makes a smaller file. Default: {LOSSY_QUALITY}.",
        },
    ),
    Field(
        "metadata",
        metadata,
        {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"type": "object"},
            "description": f"A JSON object of at most {MAX_METADATA_BYTES} bytes, echoed as it is.",
        },
    ),
)
SCALARS = {field.name: field for field in (*SPEC_FIELDS, *OTHER_FIELDS)}
