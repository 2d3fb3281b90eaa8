"""The decisions alone: flows driven by hand, on a clock of the test's own."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from foi_client import UnreachableError, WaitTimeout
from foi_client.events import Frame, FrameParser
from foi_client.flows import call, info
from foi_client.listening import listen
from foi_client.patience import Patience
from foi_client.retries import refusal, retry_after
from foi_client.steps import Emit, Ended, Open, Read, Request, Send, Sleep, advance, fail

LOOK = Request("GET", "/v1/info")
SENT = httpx.Request("GET", "http://service/v1/info")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(status: int, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, json={}, request=SENT)


def test_delays_grow_to_a_limit_until_patience_is_over() -> None:
    clock = Clock()
    flow = call(LOOK, Patience(60, 30, clock=clock))
    delays: list[float] = []

    def fail_for_ever() -> None:
        assert isinstance(advance(flow), Send)
        step = fail(flow, httpx.ConnectError("refused", request=SENT))
        assert isinstance(step, Sleep)
        delays.append(step.seconds)
        clock.now += step.seconds
        fail_for_ever()

    with pytest.raises(UnreachableError) as caught:
        fail_for_ever()
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert max(delays) <= 8
    assert sum(delays) <= 30
    assert len(delays) > 3


def test_it_never_comes_back_sooner_than_the_service_asked() -> None:
    flow = call(LOOK, Patience(60, 60))
    for _ in range(3):
        assert isinstance(advance(flow), Send)
        step = advance(flow, answer(503, retry_after="17"))
        assert isinstance(step, Sleep)
        assert step.seconds == 17
    assert isinstance(advance(flow), Send)
    success = answer(200)
    assert advance(flow, success) == Ended(success)


def test_a_success_renews_the_patience() -> None:
    clock = Clock()
    patience = Patience(60, 10, clock=clock)
    for _ in range(5):
        flow = call(LOOK, patience)
        advance(flow)
        assert isinstance(advance(flow, answer(503, retry_after="9")), Sleep)
        clock.now += 9
        advance(flow)
        assert isinstance(advance(flow, answer(200)), Ended)


def test_no_request_and_no_pause_goes_beyond_the_limit() -> None:
    clock = Clock()
    flow = info(Patience(60, 60, limit_s=5, clock=clock))
    step = advance(flow)
    assert isinstance(step, Send)
    assert step.request.timeout is not None
    assert step.request.timeout.read == step.request.timeout.connect == 5
    clock.now += 2
    step = advance(flow, answer(503, retry_after="10"))
    assert step == Sleep(3)
    clock.now += 3
    with pytest.raises(WaitTimeout, match="5 s"):
        advance(flow)


def test_a_stream_is_opened_anew_where_a_silent_one_would_outlast_the_limit() -> None:
    clock = Clock()
    flow = listen("/v1/edits/edit_1", Patience(60, 60, limit_s=30, clock=clock), wait_for_quota=True)
    frame = b'id: 4-0\nevent: status\ndata: {"status": "running"}\n\n'
    for seconds, after in ((30, None), (20, "4-0")):
        step = advance(flow)
        assert isinstance(step, Open)
        assert step.request.timeout is not None
        assert (step.request.timeout.read, step.request.headers.get("Last-Event-ID")) == (seconds, after)
        assert advance(flow, answer(200)) == Read()
        clock.now += 1
        assert isinstance(advance(flow, frame), Emit)
        assert advance(flow) == Read(), "little has passed"
        clock.now += 9
        assert isinstance(advance(flow, frame), Emit)


def test_retry_after_may_be_a_number_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after(answer(503, retry_after=soon)) or 0) <= 100
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=100), usegmt=True)
    assert retry_after(answer(503, retry_after=past)) == 0
    assert retry_after(answer(503, retry_after="7")) == 7
    for nonsense in ("", "soon", "-3", "Thu, 26 Nov 2026 04:00:00 -0000"):
        assert retry_after(answer(503, retry_after=nonsense)) is None


def test_what_asking_again_cannot_mend_is_not_asked_again() -> None:
    untrusted = httpx.ConnectError("certificate verify failed", request=SENT)
    untrusted.__cause__ = ssl.SSLCertVerificationError()
    for error in (
        untrusted,
        httpx.UnsupportedProtocol("ftp", request=SENT),
        httpx.LocalProtocolError("", request=SENT),
    ):
        with pytest.raises(UnreachableError):
            refusal(LOOK, error)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_frames_are_found_however_their_bytes_arrive(size: int, end: str) -> None:
    lines = [
        ": a comment", "", "event: status", 'data: "a\u2028b\x85c\x0bü"', "id: 1-0", "retry: 10", "",
        "id", "data:x", "data: ", "data:  y: z", "unknown: field", "", "event: lost", "id: 9", "", "data: cut",
    ]  # fmt: skip
    sent = (end.join(lines) + end).encode()
    parser = FrameParser()
    found = [frame for i in range(0, len(sent), size) for frame in parser.feed(sent[i : i + size])]
    assert found == [Frame("1-0", "status", '"a\u2028b\x85c\x0bü"'), Frame("", "message", "x\n\n y: z")]
