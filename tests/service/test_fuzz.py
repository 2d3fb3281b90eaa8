"""Schemathesis over the whole description against a running service: it answers as it says, and never with a 5xx.

A few requests of each kind here; `make fuzz` sends many more."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from jobs import presence
from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.keys import ApiKeys
from jobs.queue import EditQueue
from jobs.redis_server import EmbeddedRedis
from jobs.repository import ALL_OWNERS, EditRepository
from jobs.settings import Settings
from tests.service.conftest import serving
from tests.support import ROOT, FakeEngine, encoded, picture, run_edit

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
"""Of each operation and kind; with a number of one's own they are others each time."""
PNG = encoded(picture())
schemathesis.openapi.format("binary", st.just(PNG))


@dataclass
class Fuzzed:
    """The running service, an admin's key for it, and how often each operation gave each answer."""

    address: str
    token: str
    repository: EditRepository
    answers: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def choose_edit(self, case: Case) -> None:
        """Every other request is about an edit that there is."""
        records, _ = self.repository.page(ALL_OWNERS, 1, None, frozenset())
        if records and self.answers[case.operation.label].total() % 2:
            case.path_parameters["edit_id"] = records[0].submission.id
            if "name" in case.path_parameters and records[0].files:
                case.path_parameters["name"] = min(records[0].files)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzz")
    server = EmbeddedRedis(folder)
    server.start()
    limits = dict.fromkeys(("max_queue", "max_edits_per_key", "max_requests_per_minute", "max_streams_per_key"), 10**6)
    settings = Settings(auth="keys", data_dir=folder, redis_url=server.url, edit_timeout_s=10, **limits)
    redis = connect(server.url, decode=True)
    token, _ = ApiKeys(redis).create("fuzz", ("submit", "read", "admin"))
    repository = EditRepository(redis, settings.retention_s)
    with serving(settings, server.url) as address, working(repository, settings):
        found = Fuzzed(address, token, repository)
        yield found
    server.stop()
    for operation, answers in found.answers.items():
        made = operation.endswith("/redeliver") or any(status < 300 for status in answers)  # that needs a webhook too
        assert made, f"{operation} was only ever refused: {answers}"


@contextmanager
def working(repository: EditRepository, settings: Settings) -> Iterator[None]:
    """Every edit that is queued is run, by a worker without a model."""
    over, engine = threading.Event(), FakeEngine()
    queue, blobs = EditQueue(connect(str(settings.redis_url))), BlobStore.of(settings)

    def work() -> None:
        while not over.wait(0.01):
            presence.publish(repository.redis, presence.WorkerPresence(name="fuzz", state="ready", model="none"))
            records, _ = repository.page(ALL_OWNERS, 20, None, frozenset({"queued"}))
            for record in records:
                queue.remove(record.submission.id, record.submission.priority)
                run_edit(engine, repository, blobs, record.submission.id)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


CONFIG = SchemathesisConfig.from_dict({"generation": {"allow-extra-parameters": False}})  # HTTP wants them ignored
schema = schemathesis.openapi.from_path(ROOT / "openapi.yaml", config=CONFIG)


def mend(case: Case) -> None:
    """What a schema cannot say of a form, so that some of them become edits; and nothing is fetched from anywhere."""
    form: dict[str, Any] = case.body
    if "image_url" in form:
        form["image_url"] = "http://127.0.0.1/"  # refused before anything is asked
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    form.pop("image_url", None)
    form["image"] = PNG
    masks = [name for name in form if name not in case.operation.body[0].definition["schema"]["properties"]]
    if case.operation.path.startswith("/v1/images"):
        for name in (*masks, "mask", "size"):
            form.pop(name, None)
        form["prompt"] = "make the ball red"
    elif "instructions" in form or masks:
        form.pop("instruction", None)
        parts = [{"text": "make the ball red", "mask": name} for name in masks[:8]]
        form["instructions"] = json.dumps(parts or [{"text": "make the ball red", "keyword": "ball"}])
    if "metadata" in form:
        form["metadata"] = json.dumps({"said": form["metadata"]})
    if "webhook_url" in form:
        form["webhook_url"] = "https://example.org/"
    else:
        form.pop("webhook_events", None)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_it_answers_as_it_says(case: Case, fuzzed: Fuzzed) -> None:
    left_out = [CHECKS.get_one("positive_data_acceptance")]
    if isinstance(case.body, dict):
        mend(case)
        left_out += [CHECKS.get_one("negative_data_rejection")]  # a form is texts: a wrong type may be right there
    if "edit_id" in case.path_parameters:
        fuzzed.choose_edit(case)
    key = {"Authorization": f"Bearer {fuzzed.token}"}
    answer = case.call_and_validate(base_url=fuzzed.address, headers=key, timeout=20, excluded_checks=left_out)
    fuzzed.answers[case.operation.label][answer.status_code] += 1
