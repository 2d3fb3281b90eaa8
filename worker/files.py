"""From the engine's result to stored files and the outcome that names them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, PngImagePlugin

from foi_core.result import EditResult
from jobs.blobs import BlobStore
from jobs.records import (
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
    StoredFile,
    now,
)

LOSSY_QUALITY = 95
MAP_SIDE = 512
"""Attention maps are small: each cell becomes a square, as large as fits into so many pixels, for a person to see."""

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" \
Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"/>\
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


class Files:
    """Stores the files of one attempt and remembers them for the record."""

    def __init__(self, blobs: BlobStore, edit_id: str, attempt: int) -> None:
        self.stored: dict[str, StoredFile] = {}
        self._blobs, self._edit_id, self._attempt = blobs, edit_id, attempt

    def put(self, name: str, data: bytes, media_type: str = "image/png") -> str:
        self.stored[name] = self._blobs.put_output(self._edit_id, self._attempt, name, data, media_type)
        return name


def succeeded(record: EditRecord, picture: Image.Image, result: EditResult, files: Files) -> Outcome:
    """Encodes and stores everything that the caller may fetch. `record` is the edit as it was started."""
    masks = tuple(
        Mask(
            instruction=i,
            seed=result.seed,
            keyword=word.text if word else None,
            file=files.put(f"mask-{i + 1}.png", _png(mask)),
            area=_area(mask),
        )
        for i, (mask, word) in enumerate(zip(result.masks, result.keywords, strict=True))
    )
    maps = tuple(
        AttentionMap(
            instruction=i, seed=result.seed, file=files.put(f"attention-{i + 1}.png", _png(_visible(attention_map)))
        )
        for i, attention_map in enumerate(result.attention_maps)
        if attention_map is not None
    )
    outputs = () if record.input.method == "masks" else (_output(record, result, files),)
    return Outcome(
        status="succeeded",
        completed_at=now(),
        input=_resolved(record, result),
        files=files.stored,
        outputs=outputs,
        masks=masks,
        attention_maps=maps,
        metrics=_metrics(record, picture, result),
        warnings=tuple(EditWarning(code=w.code, message=w.message, instruction=w.instruction) for w in result.warnings),
    )


def _output(record: EditRecord, result: EditResult, files: Files) -> Output:
    kind = record.input.output_format
    file = files.put(f"result.{kind}", encode(result.image, kind), MEDIA_TYPES[kind])
    return Output(seed=result.seed, file=file, width=result.image.width, height=result.image.height)


def encode(image: Image.Image, kind: OutputFormat) -> bytes:
    """The result with one piece of metadata, IPTC's statement that a model made part of it; none of the input's."""
    clean = Image.fromarray(np.asarray(image.convert("RGB")))
    buffer = io.BytesIO()
    if kind == "png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", _XMP)
        clean.save(buffer, "PNG", compress_level=1, pnginfo=info)
    elif kind == "jpeg":
        clean.save(buffer, "JPEG", quality=LOSSY_QUALITY, subsampling="4:4:4", xmp=_XMP.encode())
    else:
        clean.save(buffer, "WEBP", quality=LOSSY_QUALITY, xmp=_XMP.encode())
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _visible(attention_map: np.ndarray) -> Image.Image:
    levels = Image.fromarray((attention_map.clip(0, 1) * 255).round().astype(np.uint8))
    factor = max(1, MAP_SIDE // max(levels.size))
    return levels.resize((levels.width * factor, levels.height * factor), Image.Resampling.NEAREST)


def _area(mask: Image.Image) -> float:
    return round(float((np.asarray(mask) > 0).mean()), 6)


def _metrics(record: EditRecord, picture: Image.Image, result: EditResult) -> Metrics:
    """`change_outside_mask` is measured on the result before encoding: a lossy format changes every pixel a little."""
    started = record.started_at or record.submission.created_at
    area = change = None
    if result.masks:
        union = np.any([np.asarray(mask) > 0 for mask in result.masks], axis=0)
        before, after = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (picture, result.image))
        area = round(float(union.mean()), 6)
        change = int(np.abs(after - before)[~union].max(initial=0))
    return Metrics(
        queue_ms=round((started - record.submission.created_at).total_seconds() * 1000),
        run_ms=round(result.seconds * 1000),
        mask_area=area,
        change_outside_mask=change,
    )


def _resolved(record: EditRecord, result: EditResult) -> EditInput:
    """The input with the model's defaults, the keywords that were found and the threshold that was used filled in."""
    given, keywords = record.input, result.keywords or (None,) * len(record.input.instructions)
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
        output_format=given.output_format,
        width=given.width,
        height=given.height,
    )
