"""What callers send stays out of the log: texts, names, tokens, and addresses with what they hold."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import httpx
import pytest
from redis import Redis

from foi_core.errors import InvalidParameter
from jobs.blobs import BlobStore
from jobs.keys import ApiKeys
from jobs.records import Outcome, Webhook
from jobs.repository import EditRepository
from jobs.webhooks import DeliveryStore
from tests.service.conftest import Service
from tests.support import FakeEngine, encoded, picture, python, run_edit, submission, wait_until

SECRET = "sEcReT"


@pytest.fixture
def keyed(service: Service, redis: Redis) -> Iterator[httpx.Client]:
    token, _ = ApiKeys(redis).create(f"name-{SECRET}")
    service.stop()
    service.environment["FOI_AUTH"] = "keys"
    service.start()
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {token}"}, timeout=20) as client:
        yield client


def test_the_services_log_tells_of_requests_and_not_what_they_hold(
    service: Service, keyed: httpx.Client, redis: Redis
) -> None:
    image = (f"{SECRET}.png", encoded(picture()))
    url = f"http://nowhere.invalid/{SECRET}?key={SECRET}"
    form = {
        "instruction": f"make the {SECRET} blue",
        "metadata": f'{{"user": "{SECRET}"}}',
        "webhook_url": url,
    }
    edit = keyed.post("/v1/edits", files={"image": image}, data=form).raise_for_status().json()
    token = keyed.post(f"{edit['urls']['events']}/token").json()
    keyed.post(edit["urls"]["cancel"])
    answers = [
        httpx.get(f"{service.url}{token['url']}", timeout=20),
        keyed.get("/v1/edits", params={"cursor": SECRET}),
        keyed.get("/v1/edits", params={SECRET: SECRET}),
        keyed.post("/v1/edits", files={"image": image}, data={"instruction": "x", SECRET: SECRET}),
        keyed.post("/v1/edits", files={"image": image}, data={"instruction": SECRET * 200}),
        keyed.post("/v1/edits", files={"image_url": (None, url)}, data={"instruction": "x"}),
        keyed.post("/v1/edits", files={"image": (f"{SECRET}.png", SECRET.encode())}, data={"instruction": "x"}),
        keyed.post("/v1/instructions", files={"instruction": (None, f"make the {SECRET} blue")}),
        keyed.post("/v1/images/edits", files={"image": image}, data={"prompt": SECRET, "size": SECRET}),
        httpx.get(f"{service.url}/v1/edits", headers={"Authorization": f"Bearer foi_{SECRET}"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 422, 422, 422, 422, 422, 415, 200, 400, 401]
    redis.hset(f"foi:edit:{edit['id']}", "submission", f'{{"id": "{SECRET}", "owner": 7}}')
    assert keyed.get(edit["urls"]["self"]).status_code in (404, 410)
    log = service.stop()
    signature = token["token"].rpartition(".")[2]
    assert "record cannot be read" in log
    assert edit["id"] in log, "whoever keeps the service running can find it"
    assert "POST /v1/edits HTTP" in log
    for hidden in (SECRET, SECRET.lower(), signature, "token="):
        assert hidden not in log


def test_the_workers_log_holds_no_text_of_an_edit(
    repository: EditRepository, blobs: BlobStore, service: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    with httpx.Client(base_url=service.url, timeout=20) as client:
        form = {"instructions": f'[{{"text": "make the {SECRET} blue", "keyword": "{SECRET}"}}]'}
        edit = client.post("/v1/edits", files={"image": encoded(picture())}, data=form).json()

    def fail() -> None:
        raise InvalidParameter("keyword", SECRET, "words of the instruction")

    run_edit(FakeEngine(fail), repository, blobs, edit["id"])
    record = repository.get(edit["id"])
    assert record is not None
    assert record.status == "failed"
    out, err = capfd.readouterr()
    assert edit["id"] in out + err
    assert SECRET not in out + err


def test_the_deliverers_log_names_the_edit_and_no_address(repository: EditRepository, redis_url: str) -> None:
    url = f"http://nowhere.invalid/{SECRET}?key={SECRET}"
    new = submission().model_copy(update={"webhook": Webhook(url=url, events=("edit.failed",)), "owner": "key_1"})
    repository.create(new)
    repository.commit(new.id, None, Outcome.failed("internal", "It failed", SECRET))
    process = python("-m", "worker.webhooks", environment={"FOI_REDIS_URL": redis_url}, stderr=subprocess.PIPE)
    wait_until(lambda: (found := DeliveryStore(repository).get(new.id)) and found.attempts)
    process.terminate()
    _, log = process.communicate(timeout=20)
    assert new.id in log
    assert SECRET not in log
