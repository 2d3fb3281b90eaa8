"""From the engine's result to stored files and the outcome that names them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, PngImagePlugin

from foi_core.bands import area, bands
from foi_core.result import EditResult
from jobs.pictures import to_png
from jobs.records import (
    LOSSY_QUALITY,
    MEDIA_TYPES,
    AttentionMap,
    EditInput,
    EditRecord,
    EditWarning,
    Instruction,
    Mask,
    Metrics,
    Outcome,
    Output,
    OutputFormat,
    Safety,
    StoredFile,
    now,
)
from worker.patience import PatientStore

MAP_SIDE = 512
"""Attention maps are small: each cell becomes a square, as large as fits into so many pixels, for a person to see."""

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" \
Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"/>\
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


class Files:
    """Stores the files of one attempt and remembers them for the record."""

    def __init__(self, store: PatientStore, edit_id: str, attempt: int) -> None:
        self.stored: dict[str, StoredFile] = {}
        self._store, self._edit_id, self._attempt = store, edit_id, attempt

    def put(self, name: str, data: bytes, media_type: str = "image/png") -> str:
        self.stored[name] = self._store.put_output(self._edit_id, self._attempt, name, data, media_type)
        return name


@dataclass
class _Told:
    """What is kept of outputs that are stored."""

    outputs: list[Output] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    maps: list[AttentionMap] = field(default_factory=list)
    warnings: dict[tuple[str, int | None], EditWarning] = field(default_factory=dict)
    areas: list[float] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    flags: list[bool] = field(default_factory=list)
    input: EditInput | None = None


def succeeded(record: EditRecord, picture: Image.Image, results: Iterable[EditResult], files: Files) -> Outcome:
    """Encodes and stores everything that the caller may fetch. `record` is the edit as it was started, `picture` what
    was edited; `results` are one for each seed, drawn one after the other: no two take memory at the same time."""
    told, number = _Told(), 0
    for result in results:  # not enumerate, which holds the last one while the next is drawn
        number += 1  # noqa: SIM113
        _store(told, record, picture, result, files, number)
        del result
    assert told.input is not None
    return Outcome(
        status="succeeded",
        completed_at=now(),
        input=told.input,
        files=files.stored,
        outputs=tuple(told.outputs),
        masks=tuple(told.masks),
        attention_maps=tuple(told.maps),
        metrics=_metrics(record, told),
        safety=Safety(flagged=any(told.flags)) if told.flags else None,
        warnings=tuple(told.warnings.values()),
    )


def _store(
    told: _Told, record: EditRecord, picture: Image.Image, result: EditResult, files: Files, number: int
) -> None:
    if told.input is None:
        told.input = _resolved(record.input, result)
    told.masks += _masks(result, files, number)
    told.maps += _maps(result, files, number)
    if record.input.method != "masks":
        told.outputs.append(_output(result, files, number, record.input))
    for w in result.warnings:  # what several outputs warn of is said once
        warning = EditWarning(code=w.code, message=w.message, instruction=w.instruction)
        told.warnings.setdefault((w.code, w.instruction), warning)
    if result.masks:
        measured, change = _measured(picture, result)
        told.areas.append(measured)
        told.changes.append(change)
    told.seconds.append(result.seconds)
    if result.flagged is not None:
        told.flags.append(result.flagged)


def _output(result: EditResult, files: Files, number: int, given: EditInput) -> Output:
    kind = given.output_format
    content = encode(result.image, kind, given.output_quality)
    file = files.put(_named("result", number, kind), content, MEDIA_TYPES[kind])
    return Output(seed=result.seed, file=file, width=result.image.width, height=result.image.height)


def _masks(result: EditResult, files: Files, number: int) -> list[Mask]:
    return [
        Mask(
            instruction=i,
            seed=result.seed,
            keyword=word.text if word else None,
            file=files.put(_named(f"mask-{i + 1}", number), to_png(mask)),
            area=round(area(mask), 6),
        )
        for i, (mask, word) in enumerate(zip(result.masks, result.keywords, strict=True))
    ]


def _maps(result: EditResult, files: Files, number: int) -> list[AttentionMap]:
    return [
        AttentionMap(
            instruction=i,
            seed=result.seed,
            file=files.put(_named(f"attention-{i + 1}", number), to_png(_visible(attention_map))),
        )
        for i, attention_map in enumerate(result.attention_maps)
        if attention_map is not None
    ]


def _named(stem: str, number: int, kind: str = "png") -> str:
    """The files of the first output have plain names, those of the second end in -2, and so on."""
    return f"{stem}.{kind}" if number == 1 else f"{stem}-{number}.{kind}"


def encode(image: Image.Image, kind: OutputFormat, quality: int | None = None) -> bytes:
    """The result with one piece of metadata, IPTC's statement that a model made part of it; none of the input's.
    `quality` is that of a JPEG or WEBP, 0 to 100."""
    quality = LOSSY_QUALITY if quality is None else quality
    clean = image.copy() if image.info else image
    clean.info = {}
    buffer = io.BytesIO()
    if kind == "png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", _XMP)
        clean.save(buffer, "PNG", compress_level=1, pnginfo=info)
    elif kind == "jpeg":
        clean.save(buffer, "JPEG", quality=quality, subsampling="4:4:4", xmp=_XMP.encode())
    else:
        clean.save(buffer, "WEBP", quality=quality, xmp=_XMP.encode())
    return buffer.getvalue()


def _visible(attention_map: np.ndarray) -> Image.Image:
    levels = Image.fromarray((attention_map.clip(0, 1) * 255).round().astype(np.uint8))
    factor = max(1, MAP_SIDE // max(levels.size))
    return levels.resize((levels.width * factor, levels.height * factor), Image.Resampling.NEAREST)


def _metrics(record: EditRecord, told: _Told) -> Metrics:
    """The mean area, the largest change and the longest time of the outputs."""
    started = record.started_at or record.submission.created_at
    return Metrics(
        queue_ms=round((started - record.submission.created_at).total_seconds() * 1000),
        run_ms=round(max(told.seconds) * 1000),
        mask_area=round(sum(told.areas) / len(told.areas), 6) if told.areas else None,
        change_outside_mask=max(told.changes, default=None),
    )


def _measured(picture: Image.Image, result: EditResult) -> tuple[float, int]:
    """Area of the masks' union, and the largest change outside it. Measured on the result before encoding: a lossy
    format changes every pixel a little."""
    inside, change = 0, 0
    for box in bands(picture.size):
        union = result.masks[0].crop(box)
        for mask in result.masks[1:]:
            union = ImageChops.lighter(union, mask.crop(box))
        changed = ImageChops.difference(*(image.crop(box).convert("RGB") for image in (picture, result.image)))
        changed.paste(0, mask=union)
        change = max(change, int(np.asarray(changed).max()))
        inside += union.width * union.height - union.histogram()[0]
    return inside / (picture.width * picture.height), change


def _resolved(given: EditInput, result: EditResult) -> EditInput:
    """The input with the model's defaults, the keywords that were found and the threshold that was used filled in."""
    keywords = result.keywords or (None,) * len(given.instructions)
    instructions = [
        Instruction(
            text=part.text,
            keyword=word.text if word else part.keyword,
            keyword_source=word.source if word else part.keyword_source,
            token_indices=word.token_indices if word else (),
            intensity=part.intensity,
            mask=part.mask,
        )
        for part, word in zip(given.instructions, keywords, strict=True)
    ]
    return EditInput.from_spec(
        result.spec,
        instructions,
        threshold_used=result.threshold,
        n=given.n,
        output_size=given.output_size,
        output_format=given.output_format,
        output_quality=given.output_quality,
        width=given.width,
        height=given.height,
    )
