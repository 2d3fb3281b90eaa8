"""`foi edit` and `foi masks`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from foi_cli import options
from foi_cli.batch import edit_all
from foi_cli.console import bars, show_logs, write_json
from foi_cli.editors import Made, open_editor
from foi_cli.errors import EditError, UsageError
from foi_cli.lines import read_lines
from foi_cli.running import run
from foi_cli.saving import STDOUT, failed, save, show
from foi_cli.tasks import Task, instructions, read_image

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def edit(
    image: options.OptionalImage = None,
    instruction: options.Texts = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The result (.png, .jpg, .webp), or - for stdout; of a batch the folder."),
    ] = None,
    masks: options.MasksFolder = None,
    keyword: options.Keywords = None,
    intensity: options.Intensities = None,
    mask: options.MaskFiles = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    strength: options.Strength = None,
    guidance_scale: options.GuidanceScale = None,
    image_guidance_scale: options.ImageGuidanceScale = None,
    threshold: options.Threshold = None,
    method: options.Method = None,
    preset: options.Preset = None,
    n: options.Count = None,
    batch: Annotated[
        Path | None,
        typer.Option("--batch", metavar="FILE", help="JSON Lines, one edit a line; run it again to go on."),
    ] = None,
    server: options.Server = None,
    as_json: options.Json = False,
) -> None:
    """Edit a picture; only what was asked for changes.

    Here, with the model of FOI_MODEL, or by a running service.
    """
    fields = options.given(
        seed=seed,
        num_inference_steps=steps,
        strength=strength,
        guidance_scale=guidance_scale,
        image_guidance_scale=image_guidance_scale,
        threshold=threshold,
        method=method,
        preset=preset,
        n=n,
    )
    if batch is not None:
        if image is not None or instruction or keyword or intensity or mask:
            raise UsageError("with --batch the pictures and what to change in them are in its lines")
        _edit_batch(batch, fields, out, masks, server, as_json)
        return
    if image is None:
        raise UsageError("give a picture, or a file of edits: foi edit PICTURE -i '...', or foi edit --batch FILE")
    texts = instructions(instruction or (), keyword or (), intensity or (), mask or ())
    target, fields = _target(out, image, fields, as_json)
    task = Task("edit", read_image(image), texts, fields)
    _one(task, target, masks, server, as_json)


def find_masks(
    image: options.Image,
    instruction: options.Texts = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the masks.")] = Path("masks"),
    keyword: options.Keywords = None,
    intensity: options.Intensities = None,
    mask: options.MaskFiles = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    strength: options.Strength = None,
    threshold: options.Threshold = None,
    preset: options.Preset = None,
    n: options.Count = None,
    server: options.Server = None,
    as_json: options.Json = False,
) -> None:
    """See where each instruction would act, for the price of one step.

    An edit with the same options and seed has these masks.
    """
    fields = options.given(
        seed=seed, num_inference_steps=steps, strength=strength, threshold=threshold, preset=preset, n=n
    )
    texts = instructions(instruction or (), keyword or (), intensity or (), mask or ())
    task = Task("masks", read_image(image), texts, fields, looks=True)
    _one(task, out, out, server, as_json)


def _target(out: Path | None, image: str, fields: Mapping[str, Any], as_json: bool) -> tuple[Path, Mapping[str, Any]]:
    """Where the result goes, and the fields with its format."""
    if out is None:
        return Path("edited.png" if image == "-" else f"{Path(image).stem}-edited.png"), fields
    if out == STDOUT:
        if as_json or fields.get("n", 1) > 1:
            raise UsageError("stdout holds one picture and nothing else; give --out a file")
        return out, fields
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise UsageError(f"--out {out}: its name must end in {', '.join(FORMATS)}")
    return out, {**fields, "output_format": kind}


def _one(task: Task, out: Path, masks: Path | None, server: str | None, as_json: bool) -> None:
    show_logs()
    made: list[Made] = []
    try:
        with open_editor(server) as editor, bars() as shown, shown.edit(task.name) as tell:
            run([task], lambda one: editor.edit(one, tell), 1, lambda _, done: made.append(done), editor.cancel)
            record = save(made[0], out, masks)
    except EditError as error:
        if as_json:
            write_json(failed(error))
        raise
    if as_json:
        write_json(record)
    else:
        show(made[0].edit, record)


def _edit_batch(
    file: Path, fields: Mapping[str, Any], out: Path | None, masks: Path | None, server: str | None, as_json: bool
) -> None:
    if out is None:
        raise UsageError("say where the results go: --out DIR")
    show_logs()
    tasks, bad = read_lines(file, fields)
    with open_editor(server, many=True) as editor:
        counts = edit_all(editor, tasks, bad, out, masks)
    if as_json:
        write_json(counts)
    else:
        print(
            f"{counts['succeeded']} edited, {counts['skipped']} done before, {counts['failed']} failed: "
            f"{counts['results']}"
        )
    if counts["failed"]:
        raise typer.Exit(EditError.exit_code)
