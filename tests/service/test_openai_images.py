"""The official `openai` package edits pictures here, and understands what goes wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from fastapi.testclient import TestClient
from openai import OpenAI
from openai.types import ImagesResponse
from PIL import Image
from redis import Redis
from structlog.testing import capture_logs

from foi_core.errors import InvalidParameter, ModelFailure
from jobs.blobs import BlobStore
from jobs.keys import ApiKeys
from jobs.records import EditRecord
from jobs.repository import ALL_OWNERS, EditRepository
from jobs.settings import Settings
from service import parsing
from service.app import create_app
from service.openai_images import HINTS
from tests.service.conftest import seen_a_moment_ago, serving
from tests.support import FakeEngine, encoded, picture, run_edit, wait_until

Working = Callable[..., FakeEngine]
PROMPT = "make the ball red"


@pytest.fixture
def theirs(client: httpx.Client) -> Iterator[OpenAI]:
    with talking_to(str(client.base_url)) as one:
        yield one


@contextmanager
def talking_to(url: str, api_key: str = "none", **options: Any) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{url.rstrip('/')}/v1", api_key=api_key, **{"max_retries": 0, "timeout": 20, **options}
    ) as one:
        yield one


@pytest.fixture
def working(repository: EditRepository, served_blobs: BlobStore) -> Iterator[Working]:
    """Runs whatever is queued, with this engine, until the test ends."""
    over, threads = Event(), []

    def work(engine: FakeEngine) -> None:
        while not over.wait(0.02):
            for record in repository.page(ALL_OWNERS, 10, statuses=("queued",))[0]:
                run_edit(engine, repository, served_blobs, record.submission.id)

    def start(engine: FakeEngine | None = None) -> FakeEngine:
        engine = engine or FakeEngine()
        threads.append(Thread(target=work, args=(engine,)))
        threads[-1].start()
        return engine

    yield start
    over.set()
    for thread in threads:
        thread.join(20)


def png(image: Image.Image | None = None, name: str = "image.png") -> tuple[str, bytes]:
    return name, encoded(picture() if image is None else image)


def mask(
    *transparent: tuple[int, int, int, int], size: tuple[int, int] = (48, 32), kept: int = 255
) -> tuple[str, bytes]:
    """Transparent in these boxes; elsewhere its alpha is `kept`."""
    image = Image.new("RGBA", size, (0, 0, 0, kept))
    for box in transparent:
        image.paste((0, 0, 0, 0), box)
    return png(image, "mask.png")


def decoded(answer: ImagesResponse) -> list[Image.Image]:
    assert answer.data is not None
    return [Image.open(io.BytesIO(base64.b64decode(one.b64_json or ""))) for one in answer.data]


def extra(answer: ImagesResponse) -> dict[str, Any]:
    assert answer.model_extra is not None
    found: dict[str, Any] = answer.model_extra["foi"]
    return found


def only_edit(repository: EditRepository) -> EditRecord:
    (record,) = repository.page(ALL_OWNERS, 10)[0]
    return record


def test_only_where_their_mask_is_transparent_something_changes(theirs: OpenAI, working: Working) -> None:
    working()
    region = mask((4, 6, 20, 30), kept=1)
    answer = theirs.images.edit(image=png(), mask=region, prompt=PROMPT, n=2, size="auto", model="any")
    before = np.asarray(picture())
    expected = before.copy()
    expected[6:30, 4:20] = 255 - expected[6:30, 4:20]
    results = decoded(answer)
    assert [image.format for image in results] == ["PNG", "PNG"]
    assert all((np.asarray(image) == expected).all() for image in results)
    assert (answer.size, answer.output_format, answer.background) == ("48x32", "png", "opaque")
    assert answer.created > 1_700_000_000


def test_a_prompt_without_a_mask_is_split_and_finds_its_own_regions(
    theirs: OpenAI, working: Working, repository: EditRepository
) -> None:
    working()
    answer = theirs.images.edit(image=[png()], prompt=f"{PROMPT} and turn the sky orange")
    record = only_edit(repository)
    assert [part.text for part in record.input.instructions] == [PROMPT, "turn the sky orange"]
    assert extra(answer)["edit_id"] == record.submission.id
    assert len(extra(answer)["masks"]) == 2
    assert extra(answer)["metrics"]["change_outside_mask"] == 0


def test_a_mask_is_that_of_every_part_of_the_prompt(
    theirs: OpenAI, working: Working, repository: EditRepository
) -> None:
    working()
    theirs.images.edit(image=png(), mask=mask((0, 0, 9, 9)), prompt=f"{PROMPT} and turn the sky orange")
    assert [part.mask for part in only_edit(repository).input.instructions] == ["input-mask-1.png"] * 2


def test_addresses_instead_of_bytes_lead_to_the_same_files(theirs: OpenAI, working: Working) -> None:
    working()
    answer = theirs.images.edit(image=png(), prompt=PROMPT, response_format="url", n=2, output_format="webp")
    assert answer.data is not None
    assert (answer.output_format, len({one.url for one in answer.data})) == ("webp", 2)
    for one in answer.data:
        assert one.b64_json is None
        assert Image.open(io.BytesIO(httpx.get(one.url or "").content)).format == "WEBP"


def test_our_own_fields_go_along_as_extra_body(theirs: OpenAI, working: Working, repository: EditRepository) -> None:
    working()
    ours = {"seed": 5, "guidance_scale": 3.5, "num_inference_steps": 20, "output_size": "model", "metadata": '{"a": 1}'}
    answer = theirs.images.edit(image=png(), prompt=PROMPT, extra_body=ours)
    record = only_edit(repository)
    given = record.submission.input
    assert (given.seed, given.guidance_scale, given.num_inference_steps) == (5, 3.5, 20)
    assert record.submission.metadata == {"a": 1}
    assert answer.size == "64x64"


def test_their_fields_that_make_no_difference_are_accepted(theirs: OpenAI, working: Working) -> None:
    working()
    hints = {name: next(iter(allowed), "60") for name, allowed in HINTS.items()}
    theirs.images.edit(image=png(), prompt=PROMPT, size="48x32", extra_body=hints)  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_less_output_compression_makes_a_smaller_file(theirs: OpenAI, working: Working, kind: Any) -> None:
    working()

    def length(percent: int) -> int:
        answer = theirs.images.edit(image=png(), prompt=PROMPT, output_format=kind, output_compression=percent)
        return sum(len(image.fp.getvalue()) for image in decoded(answer))  # type: ignore[attr-defined]

    assert length(100) > length(50) > length(0)


def test_a_png_is_not_compressed_with_losses(theirs: OpenAI, working: Working) -> None:
    working()
    answer = theirs.images.edit(image=png(), prompt=PROMPT, output_compression=100)
    assert [image.format for image in decoded(answer)] == ["PNG"]


@pytest.mark.parametrize(
    ("fields", "param", "hint"),
    [
        ({"output_compression": 101, "output_format": "webp"}, "output_compression", "from 0 to 100"),
        ({"extra_body": {"output_compression": "much"}}, "output_compression", "a whole number"),
        ({"output_compression": 50}, "output_compression", "100 for a png"),
        ({"extra_body": {"output_quality": "50"}}, "output_quality", "known field"),
        ({"size": "1024x1024"}, "size", "auto or 48x32"),
        ({"background": "transparent"}, "background", "auto or opaque"),
        ({"output_format": "gif"}, "output_format", "png or jpeg or webp"),
        ({"response_format": "file"}, "response_format", "b64_json or url"),
        ({"extra_body": {"stream": "true"}}, "stream", "false"),
        ({"partial_images": 2}, "partial_images", "0"),
        ({"n": 9}, "n", "from 1 to 8"),
        ({"prompt": " "}, "prompt", "a sentence"),
        ({"prompt": "x" * 501}, "prompt", "prompt: 'xx"),
        ({"prompt": "x, " * 1400}, "prompt", "at most 4000 characters"),
        ({"prompt": ", then ".join(["make it red"] * 9)}, "prompt", "1 to 8 sub-instructions"),
        ({"extra_body": {"markup": "x"}}, "markup", "known field"),
        ({"extra_body": {"instruction": "x"}}, "instruction", "known field"),
        ({"extra_body": {"seed": "one"}}, "seed", "a whole number"),
        ({"image": [png(), png()]}, "image", "one file under each name"),
        ({"image": ("image.png", b"no picture")}, None, "PNG"),
        ({"mask": mask((0, 0, 9, 9), size=(32, 48))}, None, "the mask is 32x48, the picture 48x32"),
        ({"mask": mask()}, "mask", "fully transparent"),
        ({"mask": ("mask.png", b"no picture")}, None, "mask"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_a_bad_request_that_names_its_field(
    theirs: OpenAI, redis: Redis, fields: dict[str, Any], param: str | None, hint: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        theirs.images.edit(**{"image": png(), "prompt": PROMPT, **fields})
    error = caught.value
    assert hint in str(error)
    assert (error.type, error.param) == ("invalid_request_error", param)
    assert error.code is not None
    assert redis.keys("foi:edit:*") == []


def test_others_are_served_while_a_prompt_is_read(
    client: httpx.Client, theirs: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, goes_on = Event(), Event()

    def slow(name: str, text: str) -> tuple[str, ...]:
        reads.set()
        assert goes_on.wait(20)
        raise InvalidParameter(name, text, "something else")

    monkeypatch.setattr(parsing, "split", slow)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(theirs.images.edit, image=png(), prompt=PROMPT)
        try:
            assert reads.wait(20)
            assert client.get("/livez").status_code == 200
        finally:
            goes_on.set()
        assert isinstance(call.exception(20), openai.BadRequestError)


def test_a_body_of_another_kind_is_a_bad_request(client: httpx.Client) -> None:
    answer = client.post("/v1/images/edits", json={"prompt": PROMPT})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "send the picture and the fields as multipart/form-data",
        "type": "invalid_request_error", "param": None, "code": "unsupported_media_type",
    }  # fmt: skip
    answer = client.post("/v1/images/edits", files={"mask": mask()[1]}, data={"prompt": PROMPT, "image": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")


def test_an_edit_that_fails_is_an_error_with_its_reason_and_is_not_repeated(
    client: httpx.Client, working: Working, repository: EditRepository
) -> None:
    def fail() -> None:
        raise ModelFailure("the model gave numbers that are not finite")

    working(FakeEngine(fail))
    no_repeat = pytest.raises(openai.InternalServerError, match="not finite")
    with talking_to(str(client.base_url), max_retries=2) as theirs, no_repeat as caught:
        theirs.images.edit(image=png(), prompt=PROMPT)
    assert (caught.value.type, caught.value.code) == ("server_error", "internal")
    assert only_edit(repository).status == "failed"


def test_a_caller_that_leaves_cancels_its_edit(theirs: OpenAI, repository: EditRepository) -> None:
    with pytest.raises(openai.APITimeoutError):
        theirs.images.edit(image=png(), prompt=PROMPT, timeout=1)
    wait_until(lambda: [one.status for one in repository.page(ALL_OWNERS, 10)[0]] == ["canceled"])


def test_a_caller_that_leaves_may_ask_again_with_its_idempotency_key(
    theirs: OpenAI, working: Working, repository: EditRepository
) -> None:
    fields: dict[str, Any] = {
        "image": png(), "mask": mask((0, 0, 9, 9)), "prompt": PROMPT, "extra_headers": {"Idempotency-Key": "mine"},
    }  # fmt: skip
    with pytest.raises(openai.APITimeoutError):
        theirs.images.edit(**fields, timeout=1)
    working()
    answers = [theirs.images.edit(**fields) for _ in range(2)]
    assert {extra(answer)["edit_id"] for answer in answers} == {only_edit(repository).submission.id}
    with pytest.raises(openai.BadRequestError) as caught:
        theirs.images.edit(**{**fields, "prompt": "another"})
    assert caught.value.code == "idempotency_mismatch"


def test_an_edit_that_is_canceled_elsewhere_says_so(
    theirs: OpenAI, working: Working, repository: EditRepository
) -> None:
    def cancel() -> None:
        repository.cancel(only_edit(repository).submission.id)

    working(FakeEngine(cancel, steps=100))
    with pytest.raises(openai.BadRequestError, match="was canceled") as caught:
        theirs.images.edit(image=png(), prompt=PROMPT)
    assert caught.value.code == "edit_canceled"


def test_an_edit_that_is_not_done_in_time_is_canceled(
    tmp_path: Path, redis: Redis, redis_url: str, repository: EditRepository
) -> None:
    seen_a_moment_ago(redis)
    hurried = Settings(data_dir=tmp_path, redis_url=redis_url, edit_timeout_s=1)
    too_late = pytest.raises(openai.InternalServerError, match="not done in time")
    with serving(hurried, redis_url) as url, talking_to(url) as theirs, too_late as caught:
        theirs.images.edit(image=png(), prompt=PROMPT)
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "5")
    assert only_edit(repository).status == "canceled"


def test_a_wrong_key_and_too_many_edits_are_their_own_errors(tmp_path: Path, redis: Redis, redis_url: str) -> None:
    seen_a_moment_ago(redis)
    keyed = Settings(data_dir=tmp_path, redis_url=redis_url, auth="keys", max_edits_per_key=1)
    token, _ = ApiKeys(redis).create("mine")
    reader, _ = ApiKeys(redis).create("reads", ("read",))
    fields: dict[str, Any] = {"image": png(), "prompt": PROMPT}
    with serving(keyed, redis_url) as url:
        with talking_to(url, "foi_wrong") as theirs, pytest.raises(openai.AuthenticationError) as unknown:
            theirs.images.edit(**fields)
        with talking_to(url, reader) as theirs, pytest.raises(openai.PermissionDeniedError, match="role 'submit'"):
            theirs.images.edit(**fields)
        answer = httpx.post(
            f"{url}/v1/edits",
            files={"image": png()[1]},
            data={"instruction": PROMPT},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 202
        with talking_to(url, token) as theirs, pytest.raises(openai.RateLimitError) as many:
            theirs.images.edit(**fields)
    assert (unknown.value.code, unknown.value.type) == ("invalid_api_key", "invalid_request_error")
    assert unknown.value.response.headers["www-authenticate"].startswith("Bearer")
    assert (many.value.code, many.value.response.headers["retry-after"]) == ("rate_limit_exceeded", "5")


@pytest.mark.parametrize(("where", "code"), [("redis://127.0.0.1:1", "unavailable"), (None, "no_workers")])
def test_an_outage_is_a_server_error(
    tmp_path: Path, redis: Redis, redis_url: str, where: str | None, code: str
) -> None:
    assert redis.dbsize() == 0
    failing = pytest.raises(openai.InternalServerError)
    with serving(Settings(data_dir=tmp_path), where or redis_url) as url, talking_to(url) as theirs, failing as caught:
        theirs.images.edit(image=png(), prompt=PROMPT)
    error = caught.value
    assert (error.status_code, error.code, error.type) == (503, code, "server_error")
    assert "retry-after" in error.response.headers


def test_an_unexpected_error_is_logged_and_told_in_their_shape(tmp_path: Path, redis_url: str) -> None:
    app = create_app(Settings(data_dir=tmp_path, redis_url=redis_url), redis_url)
    with TestClient(app, base_url="http://localhost") as client, capture_logs() as lines:
        app.state.intake = None
        answer = client.post("/v1/images/edits", files={"image": png()[1]}, data={"prompt": PROMPT})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert [line["event"] for line in lines if line.get("exc_info")] == ["unexpected error"]
