"""The examples of docs/client.md are run as they stand, against the real service; a worker without a model edits."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.records import Outcome, Webhook, now
from jobs.repository import EditRepository
from jobs.webhooks import DeliveryStore, WebhookSecrets
from tests.client.conftest import Editing
from tests.support import ROOT, python, submission, wait_until
from worker.webhooks import signature

EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "client.md").read_text(), re.MULTILINE | re.DOTALL)
SYNC, ASYNC, RECEIVER = EXAMPLES


@pytest.mark.parametrize(
    ("example", "says"),
    [(SYNC, "result.png changed outside the mask: 0"), (ASYNC, "turn the sky orange is Downloaded")],
    ids=["sync", "async"],
)
def test_an_example_of_edits_runs(address: str, editing: Editing, tmp_path: Path, example: str, says: str) -> None:
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    environment = {**os.environ, "FOI_SERVER": address, "PYTHONPATH": str(ROOT)}
    with editing():
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert "failed" not in done.stdout
    assert list(tmp_path.glob("out/**/result.png"))


def test_the_receiver_takes_what_the_service_sends_and_nothing_else(repository: EditRepository, redis: Redis) -> None:
    new = submission().model_copy(update={"webhook": Webhook(url="https://r.example", events=("edit.failed",))})
    repository.create(new)
    repository.commit(new.id, None, Outcome.failed("internal", "It broke", "somewhere"))
    record = repository.get(new.id)
    assert record is not None
    delivery = DeliveryStore(repository).prepare(record)
    assert delivery is not None
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    current = WebhookSecrets(redis).current("")
    process = python(
        "-c",
        RECEIVER.replace("9000", str(port)),
        environment={"WEBHOOK_SECRETS": " ".join(["whsec_AAAA", *current])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )

    def answers(body: str) -> int:
        headers = signature(delivery, current, now())
        return httpx.post(f"http://127.0.0.1:{port}", content=body, headers=headers).status_code

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens)
        assert (answers(delivery.body + " "), answers(delivery.body)) == (401, 204)
        assert process.stdout is not None
        assert process.stdout.readline() == f"{delivery.id} edit.failed {new.id}\n"
    finally:
        process.kill()
        process.communicate()
