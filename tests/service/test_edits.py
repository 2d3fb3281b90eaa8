"""The contract of an edit over HTTP: submit, look, wait, expire."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import datetime
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs.blobs import BlobStore
from jobs.queue import EditQueue
from jobs.repository import EditRepository
from tests.support import FakeEngine, encoded, later, picture, run_edit, wait_until

ONE = {"instruction": "make the ball red"}
FIELDS = {
    "id", "status", "created_at", "started_at", "completed_at", "expires_at", "progress", "input", "outputs", "masks",
    "attention_maps", "metrics", "safety", "warnings", "error", "metadata", "urls", "priority", "deadline_at",
    "queue_position", "eta_s",
}  # fmt: skip


def submit(
    client: httpx.Client, data: dict[str, object] | None = None, path: str = "/v1/edits", **headers: str
) -> httpx.Response:
    return client.post(path, files={"image": encoded(picture())}, data=data or ONE, headers=headers)


@pytest.mark.parametrize("path", ["/v1/edits", "/edits"])
def test_a_submit_answers_at_once_with_the_queued_edit(client: httpx.Client, queue: EditQueue, path: str) -> None:
    answer = submit(client, path=path)
    edit = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/edits/{edit['id']}" == edit["urls"]["self"]
    assert answer.headers["retry-after"] == "1"
    assert edit.keys() == FIELDS
    assert (edit["status"], edit["progress"], edit["error"], edit["outputs"]) == ("queued", None, None, [])
    assert (edit["input"]["width"], edit["input"]["height"]) == (48, 32)
    assert queue.length() == 1


def test_every_field_is_echoed_as_it_was_understood(client: httpx.Client) -> None:
    data = {
        "instructions": json.dumps(
            [{"text": " make the hat black ", "keyword": "HAT", "intensity": 2}, {"text": "remove it"}]
        ),
        "num_inference_steps": "12",
        "strength": "0.5",
        "guidance_scale": "7",
        "image_guidance_scale": "1.25",
        "seed": "4294967295",
        "threshold": "0.25-0.5",
        "method": "foi",
        "n": "3",
        "output_size": "model",
        "preset": "paper",
        "mask_at": "0.1",
        "modulation_end": "0.5",
        "disentangle_end": "1",
        "preserve_outside_mask": "false",
        "output_format": "webp",
        "output_quality": "60",
        "metadata": '{"mine": [1, "zwei"]}',
    }
    edit = submit(client, data).json()
    given = edit["input"]
    assert edit["metadata"] == {"mine": [1, "zwei"]}
    assert given["instructions"][0] == {
        "text": "make the hat black", "keyword": "HAT", "keyword_source": "given", "token_indices": [],
        "intensity": 2.0, "has_mask": False,
    }  # fmt: skip
    assert given["instructions"][1]["keyword"] is None
    assert (given["n"], given["output_size"]) == (3, "model")
    names = [
        "num_inference_steps",
        "strength",
        "guidance_scale",
        "image_guidance_scale",
        "seed",
        "threshold",
        "method",
    ]
    assert [given[name] for name in names] == [12, 0.5, 7.0, 1.25, 4294967295, [0.25, 0.5], "foi"]
    names = ["preset", "mask_at", "modulation_end", "disentangle_end", "preserve_outside_mask", "output_format"]
    assert [given[name] for name in names] == ["paper", 0.1, 0.5, 1.0, False, "webp"]
    assert given["output_quality"] == 60


def test_omitted_numbers_are_left_to_the_model_and_a_seed_is_drawn(client: httpx.Client) -> None:
    first, second = (submit(client).json()["input"] for _ in range(2))
    assert first["num_inference_steps"] is first["guidance_scale"] is first["threshold"] is first["mask_at"] is None
    assert first["preset"] == "default"
    assert first["seed"] != second["seed"]


def test_one_instruction_is_split_and_several_are_taken_one_each(client: httpx.Client) -> None:
    composite = submit(client, {"instruction": "make the ball red and turn the sky orange"}).json()
    several = submit(client, {"instruction": ["make the ball red and blue", "turn the sky orange"]}).json()
    assert [part["text"] for part in composite["input"]["instructions"]] == ["make the ball red", "turn the sky orange"]
    assert [part["text"] for part in several["input"]["instructions"]] == [
        "make the ball red and blue",
        "turn the sky orange",
    ]


def test_the_edit_is_seen_running_and_done_with_its_proof(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    submitted = submit(client).json()
    seen: list[dict[str, Any]] = []

    def look() -> None:
        def shown() -> bool:
            edit = client.get(submitted["urls"]["self"]).json()
            if edit["progress"] and edit["progress"]["step"] == step:
                seen.append(edit)
                return True
            return False

        step = len(seen)
        wait_until(shown)

    engine = FakeEngine(look)
    run_edit(engine, repository, served_blobs, submitted["id"])
    answer = client.get(submitted["urls"]["self"])
    edit = answer.json()
    assert [look["status"] for look in seen] == ["running"] * 3
    assert [look["progress"] for look in seen][1] == {"step": 1, "steps": 3, "stage": "denoise"}
    assert "retry-after" not in answer.headers
    assert edit["status"] == "succeeded"
    assert edit["created_at"] <= edit["started_at"] <= edit["completed_at"] < edit["expires_at"]
    assert edit["outputs"][0]["url"] == f"{edit['urls']['self']}/files/result.png"
    whose = {"instruction": 0, "seed": edit["outputs"][0]["seed"]}
    files = f"{edit['urls']['self']}/files"
    mask, attended = (
        {**whose, "url": url, "sha256": hashlib.sha256(client.get(url).content).hexdigest()}
        for url in (f"{files}/mask-1.png", f"{files}/attention-1.png")
    )
    assert edit["masks"] == [{**mask, "keyword": "ball", "area": 0.5}]
    assert edit["attention_maps"] == [attended]
    assert edit["input"]["instructions"][0]["keyword_source"] == "rule"
    assert edit["input"]["instructions"][0]["token_indices"] == [4]
    assert (edit["input"]["num_inference_steps"], edit["input"]["threshold"]) == (100, 0.25)
    assert edit["input"]["disentangle_end"] == 0.75
    assert edit["input"]["threshold_used"] == 0.55
    assert edit["input"]["seed"] == submitted["input"]["seed"] == edit["outputs"][0]["seed"]
    assert edit["metrics"]["run_ms"] == 250
    assert (edit["metrics"]["mask_area"], edit["metrics"]["change_outside_mask"]) == (0.5, 0)
    assert edit["warnings"] == [{"code": "text-cut", "message": "too long", "instruction": 0}]


def test_a_failed_edit_is_no_http_error(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    def explode() -> None:
        raise RuntimeError("secret path /etc")

    edit = submit(client).json()
    run_edit(FakeEngine(explode), repository, served_blobs, edit["id"])
    answer = client.get(edit["urls"]["self"])
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["error"]["type"] == "/problems/internal"
    assert "secret" not in answer.text


def test_prefer_wait_answers_when_the_edit_is_done(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore, redis: Redis
) -> None:
    def work() -> None:
        (key,) = redis.keys("foi:edit:*")
        run_edit(FakeEngine(), repository, served_blobs, key.removeprefix("foi:edit:"))

    with later(0.3, work):
        answer = submit(client, Prefer="respond-async, wait=20")
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert answer.headers["preference-applied"] == "wait=20"
    assert "retry-after" not in answer.headers


def test_prefer_wait_gives_up_after_its_time(client: httpx.Client) -> None:
    begun = time.monotonic()
    answer = submit(client, Prefer="wait=1")
    assert 1 <= time.monotonic() - begun < 5
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")


def test_a_wait_that_is_no_number_is_ignored_and_a_long_one_is_cut(client: httpx.Client, redis: Redis) -> None:
    answer = submit(client, Prefer="wait=soon")
    assert (answer.status_code, "preference-applied" in answer.headers) == (202, False)
    with later(0.3, redis.flushall):  # ends the wait: the edit is gone
        assert submit(client, Prefer="wait=9999").status_code == 404


def test_an_unchanged_edit_answers_304(client: httpx.Client, repository: EditRepository) -> None:
    edit = submit(client).json()
    address, etag = edit["urls"]["self"], client.get(edit["urls"]["self"]).headers["etag"]
    same = client.get(address, headers={"If-None-Match": f'"other", W/{etag}'})
    assert (same.status_code, same.content, same.headers["retry-after"]) == (304, b"", "1")
    repository.start(edit["id"])
    assert client.get(address, headers={"If-None-Match": etag}).status_code == 200


def test_unknown_ids_are_404_and_expired_ones_410(client: httpx.Client, redis: Redis) -> None:
    edit = submit(client).json()
    redis.delete(f"foi:edit:{edit['id']}")
    gone = client.get(edit["urls"]["self"])
    assert (gone.status_code, gone.json()["type"]) == (410, "/problems/expired")
    assert client.get(edit["urls"]["self"] + "/files/input.png").status_code == 410
    for unknown in ("edit_" + "0" * 32, "edit_1", "x", "..%2f..", "edit_" + "0" * 32 + "%0a", "%00", "*"):
        answer = client.get(f"/v1/edits/{unknown}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), unknown


def test_a_look_for_masks_takes_the_form_of_the_edit_and_gives_no_picture(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    submitted = submit(client, {**ONE, "seed": "4", "guidance_scale": "3"}, path="/v1/masks").json()
    assert submitted["input"]["method"] == "masks"
    run_edit(FakeEngine(), repository, served_blobs, submitted["id"])
    found = client.get(submitted["urls"]["self"]).json()
    assert (found["status"], found["outputs"], len(found["masks"]), len(found["attention_maps"])) == (
        "succeeded",
        [],
        1,
        1,
    )
    assert client.get(found["masks"][0]["url"]).status_code == 200


def test_a_look_for_masks_has_no_method_and_an_edit_cannot_be_one(client: httpx.Client) -> None:
    for path, method in (("/v1/masks", "foi"), ("/v1/edits", "masks")):
        answer = submit(client, {**ONE, "method": method}, path=path)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/method")


def test_a_waiting_edit_is_canceled_at_once_and_leaves_the_queue(client: httpx.Client, queue: EditQueue) -> None:
    edit = submit(client, {**ONE, "priority": "high"}).json()
    assert queue.length() == 1
    for _ in range(2):
        answer = client.post(edit["urls"]["cancel"])
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert queue.length() == 0
    assert answer.json()["completed_at"] is not None
    assert "retry-after" not in answer.headers


def test_a_running_edit_is_canceling_and_an_ended_one_stays_as_it_is(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    running, done = submit(client).json(), submit(client).json()
    repository.start(running["id"])
    assert client.post(running["urls"]["cancel"]).json()["status"] == "canceling"
    run_edit(FakeEngine(), repository, served_blobs, done["id"])
    assert client.post(done["urls"]["cancel"]).json()["status"] == "succeeded"
    assert client.post("/v1/edits/edit_" + "0" * 32 + "/cancel").status_code == 404


def test_priority_and_deadline_are_echoed_and_checked(client: httpx.Client) -> None:
    edit = submit(client, {**ONE, "priority": "low", "deadline_s": "90"}).json()
    left = datetime.fromisoformat(edit["deadline_at"]) - datetime.fromisoformat(edit["created_at"])
    assert (edit["priority"], left.total_seconds()) == ("low", 90)
    for field, value in (("priority", "urgent"), ("deadline_s", "0"), ("deadline_s", "86401"), ("previews", "maybe")):
        assert submit(client, {**ONE, field: value}).json()["errors"][0]["pointer"] == f"/{field}"
