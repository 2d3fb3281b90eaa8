"""A store that dies under a running edit costs time, not the edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Timer

import pytest

from jobs.blobs import BlobStore
from jobs.records import EditRecord
from jobs.repository import EditRepository
from jobs.settings import Settings
from tests.s3 import S3, running_s3
from tests.support import FakeEngine, later, run_edit
from worker import patience
from worker.patience import PatientStore
from worker.room import HandedBack, Room

Submit = Callable[[], str]
Look = Callable[[str], EditRecord]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    monkeypatch.setattr(patience, "RETRY_S", 0.1)
    with running_s3(monkeypatch) as server:
        yield server


@pytest.fixture
def blobs(settings: Settings, s3: S3) -> BlobStore:
    return BlobStore.of(settings.model_copy(update={"store": s3.url}))


def test_a_store_that_comes_back_gets_the_result_of_the_first_attempt(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore, s3: S3
) -> None:
    edit_id, back = submit(), Timer(1, s3.start)

    def die() -> None:
        s3.stop()
        back.start()

    engine = FakeEngine(during=die, steps=1)
    run_edit(engine, repository, blobs, edit_id)
    back.join()
    assert (look(edit_id).status, look(edit_id).attempt, engine.edits) == ("succeeded", 1, 1)
    assert f"edits/{edit_id}/out-1/result.png" in s3.stored()


@pytest.mark.parametrize("dies", ["before", "during"])
def test_an_edit_whose_store_stays_away_is_handed_back_and_nobody_is_blamed(
    dies: str,
    submit: Submit,
    look: Look,
    repository: EditRepository,
    blobs: BlobStore,
    s3: S3,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.5)
    edit_id = submit()
    if dies == "before":
        s3.stop()
    engine = FakeEngine(during=s3.stop if dies == "during" else lambda: None, steps=1)
    with pytest.raises(HandedBack):
        run_edit(engine, repository, blobs, edit_id)
    assert (look(edit_id).status, look(edit_id).deaths) == ("queued", 0)
    assert engine.edits == (dies == "during"), "nothing is made that cannot be stored"
    s3.start()
    run_edit(FakeEngine(), repository, blobs, edit_id)
    assert look(edit_id).status == "succeeded"


def test_a_worker_that_stops_does_not_wait_for_the_store(blobs: BlobStore, s3: S3) -> None:
    room = Room(1)
    place = room.enter(0)
    assert place is not None
    s3.stop()
    with later(0.2, room.close), pytest.raises(HandedBack, match="the worker stops"):
        PatientStore(blobs, place).get("edit_1/in/input.png")
    s3.start()
