"""From form to spec: everything that can be wrong with the fields is said here, before a picture is looked at."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from foi_core.errors import InvalidParameter
from foi_core.spec import MAX_SPLIT_LENGTH, MAX_SUB_INSTRUCTIONS, EditSpec, SubInstruction
from foi_core.splitting import split_instruction
from jobs.records import MAX_SIDES, OutputFormat, OutputSize, Priority, Webhook
from jobs.settings import Settings
from service.fields import END_EVENTS, SCALARS, SPEC_FIELDS, Field, json_value
from service.forms import Form
from service.problems import invalid

OF_REGIONS = frozenset({"threshold", "mask_at", "modulation_end", "disentangle_end"})
INSTRUCTION_KEYS = frozenset({"text", "keyword", "intensity", "mask"})


@dataclass(frozen=True)
class Request:
    """A submit whose fields are all right. `masks[i]` names the file part of sub-instruction i, or is None."""

    spec: EditSpec
    masks: tuple[str | None, ...]
    image_url: str | None
    n: int
    output_size: OutputSize
    output_format: OutputFormat
    output_quality: int | None
    metadata: dict[str, Any] | None
    priority: Priority
    deadline_s: int | None
    previews: bool
    webhook: Webhook | None


@dataclass
class _Errors:
    """Collects what is wrong, so that a caller sees all of it at once."""

    found: list[InvalidParameter] = field(default_factory=list)

    @contextmanager
    def collect(self, prefix: str = "") -> Iterator[None]:
        try:
            yield
        except InvalidParameter as error:
            self.found.append(InvalidParameter(prefix + error.field, error.value, error.allowed))

    def raise_any(self) -> None:
        if self.found:
            raise invalid(self.found)


def parse(form: Form, settings: Settings, *, masks_only: bool = False) -> Request:
    """`masks_only`: the form of an edit whose regions are wanted and nothing else. Raises the 422 that names every
    wrong field."""
    errors = _Errors()
    scalars = {name: scalar for name, scalar in SCALARS.items() if not (masks_only and name == "method")}
    _check_names(form, scalars.keys(), errors)
    values = _scalars(form, scalars, errors)
    if masks_only:
        values["method"] = "masks"
    instructions, masks = _instructions(form, errors)
    for name in form.files.keys() - {"image"} - set(masks):
        errors.found.append(InvalidParameter(name, "a file", "files only as image and as what a `mask` names"))
    with errors.collect():
        if not 1 <= values.get("n", 1) <= settings.max_outputs:
            raise InvalidParameter("n", values["n"], f"a whole number from 1 to {settings.max_outputs}")
    if "output_quality" in values and values.get("output_format", "png") == "png":
        errors.found.append(
            InvalidParameter(
                "output_quality", values["output_quality"], "output_format jpeg or webp; png loses nothing"
            )
        )
    webhook_url = values.get("webhook_url")
    if "webhook_events" in values and webhook_url is None:
        errors.found.append(
            InvalidParameter("webhook_events", form.texts["webhook_events"][0], "a webhook_url beside it")
        )
    if values.get("method") == "ip2p":
        _check_plain(instructions, masks, values, errors)
    errors.raise_any()
    with errors.collect():
        spec_values = {f.name: values[f.name] for f in SPEC_FIELDS if f.name in values}
        spec = EditSpec(instructions=instructions, **spec_values)
    errors.raise_any()
    return Request(
        spec,
        masks,
        values.get("image_url"),
        values.get("n", 1),
        values.get("output_size", "input"),
        values.get("output_format", "png"),
        values.get("output_quality"),
        values.get("metadata"),
        values.get("priority", "normal"),
        values.get("deadline_s"),
        values.get("previews", False),
        Webhook(url=webhook_url, events=values.get("webhook_events", END_EVENTS)) if webhook_url is not None else None,
    )


def parse_texts(form: Form) -> tuple[SubInstruction, ...]:
    """The sub-instructions of a form that has nothing else. Raises the 422 that names every wrong field."""
    errors = _Errors()
    instructions, masks = _instructions(form, errors)
    others = (form.texts.keys() - {"instruction", "instructions"}) | (form.files.keys() - set(masks))
    for name in sorted(others):
        errors.found.append(InvalidParameter(name, "a field", "only instruction, or instructions and their masks"))
    errors.raise_any()
    with errors.collect():
        EditSpec(instructions=instructions)
    errors.raise_any()
    return instructions


def check_encoder(request: Request, size: tuple[int, int]) -> None:
    """Raises the Problem where the result of a picture of this `size` cannot be written in the format that was asked
    for."""
    most = MAX_SIDES[request.output_format]
    if request.spec.method != "masks" and request.output_size == "input" and max(size) > most:
        others = [kind for kind, side in MAX_SIDES.items() if side >= max(size)]
        allowed = f"{' or '.join(others)}: the picture is {size[0]}x{size[1]}, and no side may be over {most}"
        raise invalid([InvalidParameter("output_format", request.output_format, allowed)])


def split(name: str, text: str) -> tuple[str, ...]:
    """The sub-instructions of the text of the field `name`. Raises InvalidParameter."""
    if len(text) > MAX_SPLIT_LENGTH:
        allowed = f"at most {MAX_SPLIT_LENGTH} characters, for up to {MAX_SUB_INSTRUCTIONS} sub-instructions"
        raise InvalidParameter(name, text, allowed)
    texts = split_instruction(text)
    if not texts:
        raise InvalidParameter(name, text, "a sentence that says what to change")
    return texts


def _check_plain(
    instructions: Sequence[SubInstruction], masks: Sequence[str | None], values: Mapping[str, Any], errors: _Errors
) -> None:
    """Plain InstructPix2Pix has no regions: what only they would obey is not quietly dropped."""
    for name in sorted(OF_REGIONS & values.keys()):
        errors.found.append(InvalidParameter(name, values[name], "method foi; ip2p has no regions"))
    for i, (part, mask) in enumerate(zip(instructions, masks, strict=True)):
        given = {"mask": mask, "keyword": part.keyword, "intensity": part.intensity if part.intensity != 1 else None}
        for name, value in given.items():
            if value is not None:
                errors.found.append(
                    InvalidParameter(f"instructions[{i}].{name}", value, "method foi; ip2p has no regions")
                )


def _check_names(form: Form, scalars: Collection[str], errors: _Errors) -> None:
    known = {*scalars, "instruction", "instructions"}
    for name in sorted(form.texts.keys() - known - {"image"}):
        errors.found.append(
            InvalidParameter(name, form.texts[name][0], f"one of the fields {', '.join(sorted(known))}")
        )
    if "image" in form.texts:
        how = "a file: a part with a filename (curl -F image=@picture.png); an address goes into image_url"
        errors.found.append(InvalidParameter("image", form.texts["image"][0], how))
    elif ("image" in form.files) == ("image_url" in form.texts):
        given = "beside image_url" if "image" in form.files else None
        errors.found.append(InvalidParameter("image", given, "one file, or image_url instead of it"))


def _scalars(form: Form, scalars: Mapping[str, Field], errors: _Errors) -> dict[str, Any]:
    values = {}
    for name, scalar in scalars.items():
        texts = form.texts.get(name, [])
        with errors.collect():
            if len(texts) > 1:
                raise InvalidParameter(name, texts, "one value")
            if texts:
                values[name] = scalar.read(name, texts[0])
    return values


def _instructions(form: Form, errors: _Errors) -> tuple[tuple[SubInstruction, ...], tuple[str | None, ...]]:
    plain, listed = form.texts.get("instruction", []), form.texts.get("instructions", [])
    if bool(plain) == bool(listed) or len(listed) > 1:
        given = {"instruction": plain, "instructions": listed} if plain or listed else None
        errors.found.append(
            InvalidParameter("instruction", given, "what to change: as instruction, or as instructions")
        )
        return (), ()
    if listed:
        return _from_json(listed[0], form, errors)
    texts: Sequence[str] = ()
    with errors.collect():
        texts = split("instruction", plain[0]) if len(plain) == 1 else plain
    found = []
    for i, text in enumerate(texts):
        with errors.collect(f"instruction[{i}]."):
            found.append(SubInstruction(text.strip()))
    return tuple(found), (None,) * len(found)


def _from_json(text: str, form: Form, errors: _Errors) -> tuple[tuple[SubInstruction, ...], tuple[str | None, ...]]:
    found, masks = [], []
    with errors.collect():
        entries = json_value("instructions", text)
        if not isinstance(entries, list) or not entries:
            raise InvalidParameter("instructions", text, 'a JSON list: [{"text": "make the hat black"}]')
        for i, entry in enumerate(entries):
            with errors.collect(f"instructions[{i}]."):
                part, mask = _entry(entry, form)
                found.append(part)
                masks.append(mask)
    return tuple(found), tuple(masks)


def _entry(entry: Any, form: Form) -> tuple[SubInstruction, str | None]:
    """One object of `instructions`; errors name its own fields."""
    if not isinstance(entry, dict) or "text" not in entry:
        raise InvalidParameter("text", entry, 'an object with a text: {"text": "make the hat black"}')
    for name in entry.keys() - INSTRUCTION_KEYS:
        raise InvalidParameter(name, entry[name], f"only {', '.join(sorted(INSTRUCTION_KEYS))}")
    for name in ("text", "keyword", "mask"):
        if entry.get(name) is not None and not isinstance(entry[name], str):
            raise InvalidParameter(name, entry[name], "text")
    mask, keyword = entry.get("mask"), entry.get("keyword")
    if mask is not None and (mask == "image" or mask not in form.files):
        raise InvalidParameter("mask", mask, "the name of a further file of this form, the mask")
    intensity = entry.get("intensity")
    part = SubInstruction(
        text=(entry["text"] or "").strip(),
        keyword=keyword,
        intensity=1.0 if intensity is None else intensity,
    )
    return part, mask
