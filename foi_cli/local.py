"""Edits made in this process, by the parts that a service and its worker are made of."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

from PIL import Image
from starlette.datastructures import UploadFile

from foi_cli.configuration import read_settings
from foi_cli.console import Tell, err
from foi_cli.editors import Made
from foi_cli.errors import EditError, UnusableError, UsageError
from foi_cli.tasks import Task
from foi_client.reading import read_edit
from foi_core.batching import BatchingEngine, Capacity
from foi_core.engine import Engine
from foi_core.errors import EditCanceled, EngineDied, FoiError, InvalidParameter
from foi_core.finishing import Decoded
from foi_core.spec import EditSpec
from jobs import logs, pictures
from jobs.records import EditRecord, StoredFile, Submission, new_edit_id, now
from jobs.settings import Settings
from jobs.views import view
from service import images, parsing
from service.forms import Form
from service.problems import Problem
from service.submit import edit_input
from worker.crew import PREPARED
from worker.files import Files, succeeded
from worker.loading import UnusableModelError, load_engine, warm_up
from worker.reporter import Watched

SERVICE_ONLY = frozenset(
    {"image_url", "output_size", "priority", "deadline_s", "previews", "webhook_url", "webhook_events"}
)


class LocalEditor:
    """Each output is one ticket of the engine, so that the edits of several threads share batches."""

    def __init__(self, settings: Settings, engine: Engine, capacity: Capacity) -> None:
        self.model = settings.model
        self.in_flight = capacity.edits + PREPARED
        self._settings = settings
        self._lock, self._running, self._canceled = Lock(), dict[str, tuple[Watched, Tell]](), False
        self._engine = BatchingEngine(engine, capacity, self._changed)

    def edit(self, task: Task, tell: Tell) -> Made:
        request, picture = self._read(task)
        record = _record(request, picture.size)
        decoded, kept = self._decoded(record, request.spec, picture, tell), _Kept()
        masks = [part.mask for part in request.spec.instructions]
        results = (one.drawn(picture, masks) for one in decoded)
        outcome = succeeded(record, picture, results, kept)
        ended = record.model_copy(update={"status": outcome.status, "outcome": outcome})
        edit = read_edit(view(ended).model_dump(mode="json"))
        return Made(edit, lambda file: kept.contents[file.name])

    def cancel(self) -> None:
        with self._lock:
            self._canceled = True
            for watched, _ in self._running.values():
                watched.stop(EditCanceled("the edit was canceled"))

    def close(self) -> None:
        self._engine.close()

    def _read(self, task: Task) -> tuple[parsing.Request, Image.Image]:
        """As the service reads a form. Raises UsageError."""
        for name in sorted(SERVICE_ONLY & task.fields.keys()):
            raise UsageError(f"{name} is for a service; leave it out, or give --server")
        sent = task.form()
        files = {name: UploadFile(io.BytesIO(content)) for name, (_, content, _) in sent.files.items()}
        form = Form({name: [text] for name, text in sent.texts.items()}, files)
        most = self._settings.max_pixels
        try:
            request = parsing.parse(form, self._settings, masks_only=task.looks)
            picture = images.told_of("image", pictures.read_picture, files["image"].file, most)
            parsing.check_encoder(request, picture.size)

            def mask(name: str | None) -> Image.Image | None:
                if name is None:
                    return None
                return images.told_of(name, pictures.read_mask, files[name].file, picture.size, most)

            parts = tuple(
                replace(part, mask=mask(name))
                for part, name in zip(request.spec.instructions, request.masks, strict=True)
            )
        except Problem as problem:
            raise UsageError(problem.detail) from problem
        return replace(request, spec=replace(request.spec, instructions=parts)), picture

    def _decoded(self, record: EditRecord, spec: EditSpec, picture: Image.Image, tell: Tell) -> list[Decoded]:
        edit_id = record.submission.id
        try:
            prepared, spec = self._engine.prepare(picture, spec)
            with self._lock:
                if self._canceled:
                    raise EditCanceled("the edit was canceled")
                tickets = [self._engine.submit(prepared, replace(spec, seed=seed)) for seed in record.input.seeds]
                watched = Watched(edit_id, 1, tickets, None)
                self._running[edit_id] = (watched, tell)
            return watched.results()
        except InvalidParameter as error:
            raise UsageError(str(error)) from error
        except EngineDied as error:
            raise UnusableError(f"the device failed: {error}") from error
        except FoiError as error:
            raise EditError(str(error)) from error
        finally:
            with self._lock:
                self._running.pop(edit_id, None)

    def _changed(self) -> None:
        """The engine has made a step. Nobody is told of an edit that has left."""
        with self._lock:
            for watched, tell in self._running.values():
                progress = watched.report().progress
                tell(progress.stage, progress.step, progress.steps)


class _Kept(Files):
    """Files that stay in memory until it is known where they go."""

    def __init__(self) -> None:
        self.stored, self.contents = {}, dict[str, bytes]()

    def put(self, name: str, data: bytes, media_type: str = "image/png") -> str:
        self.contents[name] = data
        digest = hashlib.sha256(data).hexdigest()
        self.stored[name] = StoredFile(key=name, media_type=media_type, sha256=digest, size=len(data))
        return name


@contextmanager
def unusable() -> Iterator[None]:
    """As the command says it: UnusableError."""
    try:
        yield
    except UnusableModelError as error:
        raise UnusableError(str(error)) from error


@contextmanager
def open_local(many: bool) -> Iterator[LocalEditor]:
    """The model of the settings, loaded. Raises UsageError and UnusableError."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    settings = read_settings()
    logs.configure(settings.model_copy(update={"log_level": "WARNING"}))
    with err.status(f"loading the model {settings.model}"), unusable():
        engine = load_engine(settings, settings.device)
        edits = settings.max_in_flight
        capacity = warm_up(settings, engine) if many else Capacity(edits, edits * engine.native_cells)
    editor = LocalEditor(settings, engine, capacity)
    try:
        yield editor
    finally:
        editor.close()


def _record(request: parsing.Request, size: tuple[int, int]) -> EditRecord:
    """The edit as a service would know it."""
    created_at = now()
    submission = Submission(
        id=new_edit_id(),
        created_at=created_at,
        input=edit_input(request, {name: name for name in request.masks if name}, size),
        metadata=request.metadata,
        upload=StoredFile(key="", media_type="", sha256="", size=0),  # nobody will ask for it
    )
    return EditRecord(submission=submission, status="running", started_at=created_at, expires_at=created_at)
