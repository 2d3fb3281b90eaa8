"""Webhooks on their way: real receivers, good and bad, and a deliverer that is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import pytest
from redis import Redis
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from jobs.connection import RedisError, connect
from jobs.records import Outcome, Webhook, now
from jobs.redis_server import EmbeddedRedis, GivenRedis
from jobs.repository import DUE, EditRepository
from jobs.settings import Settings
from jobs.version import version
from jobs.webhooks import LEASE_S, Delivery, DeliveryStore, WebhookSecrets
from tests.support import ROOT, python, submission, wait_until
from worker import webhooks
from worker.supervisor import Supervisor
from worker.webhooks import MAX_PER_HOST, Deliverer

ALL = ("edit.succeeded", "edit.failed", "edit.canceled")
Behaviour = Callable[[BaseHTTPRequestHandler], None]


class Receiver:
    """What came in, and the most at once."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.now, self.most = 0, 0
        self._lock = Lock()
        self.url = ""

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        with self._lock:
            self.requests.append(({name.lower(): value for name, value in handler.headers.items()}, body))
            self.now += 1
            self.most = max(self.most, self.now)
        with suppress(OSError):  # the other side has left
            self.behave(handler)
        with self._lock:
            self.now -= 1

    @property
    def told(self) -> list[str]:
        """The edits, in the order in which they came."""
        return [json.loads(body)["data"]["id"] for _, body in self.requests]


def answer(status: int = 204, **headers: str) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return behave


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """Starts a receiver; each of the addresses 127.0.0.x is a host of its own."""
    servers: list[tuple[ThreadingHTTPServer, Thread]] = []

    def start(behave: Behaviour, host: str = "127.0.0.1") -> Receiver:
        receiver = Receiver(behave)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer((host, 0), Handler)
        server.block_on_close = False
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        receiver.url = f"http://{host}:{server.server_port}/hook?token=x"
        return receiver

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def delivering(url: str, *, allow_private: bool = True) -> Iterator[None]:
    redis = connect(url, decode=True)
    deliverer = Deliverer(
        DeliveryStore(EditRepository(redis, 3600)), WebhookSecrets(redis), allow_private=allow_private
    )
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        thread = Thread(target=runner.run, args=(deliverer.run(stop),))
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
    redis.close()


@pytest.fixture
def deliverer(redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    assert redis.dbsize() == 0
    monkeypatch.setattr(webhooks, "FINISH_S", 0.2)
    with delivering(redis_url):
        yield


def end(repository: EditRepository, url: str, outcome: Outcome | None = None, owner: str = "") -> str:
    """An edit that has just ended."""
    new = submission().model_copy(update={"webhook": Webhook(url=url, events=ALL), "owner": owner})
    repository.create(new)
    assert repository.commit(new.id, None, outcome or Outcome(status="succeeded", completed_at=now()))
    return new.id


def tried(repository: EditRepository, edit_id: str, times: int = 1) -> Delivery:
    """The delivery, once it was tried so often."""

    def found() -> Delivery | None:
        delivery = DeliveryStore(repository).get(edit_id)
        return delivery if delivery is not None and len(delivery.attempts) == times else None

    return wait_until(found)


def make_due(redis: Redis) -> None:
    """As if every wait and every lease were over."""
    redis.zadd(DUE, dict.fromkeys(redis.zrange(DUE, 0, -1), 0), xx=True)


@pytest.mark.usefixtures("deliverer")
def test_a_receiver_can_verify_what_it_is_told(
    receive: Callable[..., Receiver], repository: EditRepository, redis: Redis
) -> None:
    receiver = receive(answer())
    edit_id = end(repository, receiver.url, owner="key_1")
    delivery = tried(repository, edit_id)
    ((headers, body),) = receiver.requests
    assert headers["webhook-id"] == f"msg_{edit_id[5:]}"
    assert headers["content-type"] == "application/json"
    (secret,) = WebhookSecrets(redis).current("key_1")
    found = Verifier(secret).verify(body, headers)
    assert (found["type"], found["data"]["id"], found["data"]["outputs"]) == ("edit.succeeded", edit_id, [])
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(body.replace(b"succeeded", b"failed"), headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(WebhookSecrets(redis).current("key_2")[0]).verify(body, headers)
    assert (delivery.state, delivery.attempts[0].status, delivery.attempts[0].error) == ("succeeded", 204, None)


@pytest.mark.usefixtures("deliverer")
def test_after_a_rotation_both_secrets_verify(
    receive: Callable[..., Receiver], repository: EditRepository, redis: Redis
) -> None:
    receiver, secrets = receive(answer()), WebhookSecrets(redis)
    old, new = secrets.current("")[0], secrets.rotate("")
    tried(repository, end(repository, receiver.url))
    ((headers, body),) = receiver.requests
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        assert Verifier(secret).verify(body, headers)["type"] == "edit.succeeded"


@pytest.mark.usefixtures("deliverer")
def test_bad_receivers_do_not_delay_good_ones(receive: Callable[..., Receiver], repository: EditRepository) -> None:
    over, sent = Event(), []

    def hang(_: BaseHTTPRequestHandler) -> None:
        over.wait(30)

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(100 * 2**20))
        handler.end_headers()
        for _ in range(1600):
            handler.wfile.write(b"x" * 65_536)
            sent.append(65_536)

    hung, flooding, good = receive(hang, "127.0.0.2"), receive(flood, "127.0.0.3"), receive(answer())
    for _ in range(30):
        end(repository, hung.url)
    wait_until(lambda: hung.now == MAX_PER_HOST)
    flooded = end(repository, flooding.url)
    for _ in range(5):
        end(repository, good.url)
    began = time.monotonic()
    wait_until(lambda: len(good.requests) == 5, 2)
    assert tried(repository, flooded).state == "succeeded"
    assert time.monotonic() - began < 2
    assert sum(sent) < 20 * 2**20, "what the sockets hold, of 100 MB"
    assert hung.most == MAX_PER_HOST
    over.set()


@pytest.mark.usefixtures("deliverer")
def test_many_messages_for_one_host_go_a_few_at_a_time(
    receive: Callable[..., Receiver], repository: EditRepository
) -> None:
    receiver = receive(lambda handler: (time.sleep(0.02), answer()(handler))[-1])
    edit_ids = [end(repository, receiver.url) for _ in range(40)]
    wait_until(lambda: len(receiver.requests) == 40)
    assert sorted(receiver.told) == sorted(edit_ids)
    assert receiver.most <= MAX_PER_HOST


@pytest.mark.usefixtures("deliverer")
def test_a_redirect_is_a_failure_and_is_not_followed(
    receive: Callable[..., Receiver], repository: EditRepository, redis: Redis
) -> None:
    target = receive(answer())
    receiver = receive(answer(307, Location=target.url))
    delivery = tried(repository, end(repository, receiver.url))
    assert (delivery.state, delivery.attempts[0].status, target.requests) == ("pending", 307, [])
    make_due(redis)
    again = tried(repository, delivery.edit_id, times=2)
    assert again.tries == 2
    (first, body), (second, same) = receiver.requests
    assert body == same
    assert first["webhook-id"] == second["webhook-id"]


@pytest.mark.usefixtures("deliverer")
def test_410_is_the_end(receive: Callable[..., Receiver], repository: EditRepository, redis: Redis) -> None:
    receiver = receive(answer(410))
    assert tried(repository, end(repository, receiver.url)).state == "stopped"
    assert redis.zcard(DUE) == 0


@pytest.mark.usefixtures("deliverer")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_a_receiver_may_ask_for_more_time(
    receive: Callable[..., Receiver], repository: EditRepository, status: int, as_date: bool
) -> None:
    value = format_datetime(now() + timedelta(seconds=600), usegmt=True) if as_date else "600"
    receiver = receive(answer(status, Retry_After=value))
    delivery = tried(repository, end(repository, receiver.url))
    assert delivery.next_at is not None
    assert 500 < (delivery.next_at - now()).total_seconds() <= 600


@pytest.mark.usefixtures("deliverer")
@pytest.mark.parametrize(
    ("status", "value"), [(500, "600"), (503, "soon"), (503, "-5"), (503, "Mon, 99 Jan 2024 00:00:00 GMT"), (503, "")]
)
def test_what_makes_no_sense_as_retry_after_is_overlooked(
    receive: Callable[..., Receiver], repository: EditRepository, status: int, value: str
) -> None:
    receiver = receive(answer(status, Retry_After=value))
    delivery = tried(repository, end(repository, receiver.url))
    assert delivery.next_at is not None
    assert (delivery.next_at - now()).total_seconds() <= 5.5


@pytest.mark.usefixtures("deliverer")
def test_it_can_be_sent_again(receive: Callable[..., Receiver], repository: EditRepository) -> None:
    receiver = receive(answer())
    edit_id = end(repository, receiver.url)
    tried(repository, edit_id)
    record = repository.get(edit_id)
    assert record is not None
    DeliveryStore(repository).redeliver(record)
    assert tried(repository, edit_id, times=2).state == "succeeded"
    assert receiver.told == [edit_id, edit_id]
    assert receiver.requests[0][1] == receiver.requests[1][1]


@pytest.mark.usefixtures("deliverer")
def test_cancel_and_delete_are_told(receive: Callable[..., Receiver], repository: EditRepository) -> None:
    receiver = receive(answer())
    canceled, deleted = (
        submission().model_copy(update={"webhook": Webhook(url=receiver.url, events=ALL)}) for _ in "12"
    )
    for new in (canceled, deleted):
        repository.create(new)
    assert repository.cancel(canceled.id) == "canceled"
    repository.commit(deleted.id, None, Outcome.canceled())
    record = repository.get(deleted.id)
    assert record is not None
    DeliveryStore(repository).prepare(record)
    repository.delete(deleted.id)
    wait_until(lambda: len(receiver.requests) == 2)
    assert {json.loads(body)["type"] for _, body in receiver.requests} == {"edit.canceled"}
    assert set(receiver.told) == {canceled.id, deleted.id}


@pytest.mark.usefixtures("deliverer")
def test_a_receiver_that_answers_no_http_is_tried_again(
    receive: Callable[..., Receiver], repository: EditRepository
) -> None:
    receiver = receive(lambda handler: [handler.wfile.write(b"SSH-2.0\r\n")][0] and None)
    delivery = tried(repository, end(repository, receiver.url))
    assert delivery.state == "pending"
    assert delivery.attempts[0].error == "broke off its answer, or did not answer in HTTP"


def test_a_receiver_that_hangs_is_given_up_after_the_timeout(
    receive: Callable[..., Receiver],
    repository: EditRepository,
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.3)
    over = Event()
    receiver = receive(lambda _: over.wait(30) and None)
    with delivering(redis_url):
        delivery = tried(repository, end(repository, receiver.url))
    over.set()
    assert delivery.attempts[0].error == "did not answer within 0.3 s"
    assert 250 <= delivery.attempts[0].ms < 2000


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_private_addresses_are_not_told_and_sound_like_missing_ones(
    receive: Callable[..., Receiver], repository: EditRepository, redis_url: str, host: str
) -> None:
    receiver = receive(answer())
    with delivering(redis_url, allow_private=False):
        private = tried(repository, end(repository, receiver.url.replace("127.0.0.1", host)))
        missing = tried(repository, end(repository, "http://nowhere.invalid/"))
    assert receiver.requests == []
    assert private.attempts[0].error == missing.attempts[0].error
    assert private.state == missing.state == "pending"


def test_what_is_not_done_when_it_stops_is_due_again_at_once(
    receive: Callable[..., Receiver],
    repository: EditRepository,
    redis: Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "FINISH_S", 0.1)
    over = Event()
    receiver = receive(lambda _: over.wait(30) and None)
    with delivering(redis_url):
        edit_id = end(repository, receiver.url)
        wait_until(lambda: receiver.now == 1)
        assert (redis.zscore(DUE, edit_id) or 0) > time.time() + LEASE_S - 10
    over.set()
    assert (redis.zscore(DUE, edit_id) or 0) <= time.time()
    receiver.behave = answer()
    with delivering(redis_url):
        assert tried(repository, edit_id).state == "succeeded"


def test_redis_may_be_away_for_a_while(receive: Callable[..., Receiver], tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    over = Event()
    receiver = receive(lambda handler: (over.wait(30), answer()(handler))[-1])
    repository = EditRepository(connect(server.url, decode=True), 3600)
    try:
        with delivering(server.url):
            running = end(repository, receiver.url)
            wait_until(lambda: receiver.now == 1)
            server.stop()
            over.set()
            with pytest.raises(RedisError):
                repository.get(running)
            time.sleep(0.5)
            server.start()
            assert tried(repository, running).state == "succeeded"
            assert tried(repository, end(repository, receiver.url)).state == "succeeded"
        assert len(receiver.requests) == 2
    finally:
        server.stop()
        repository.redis.close()


def start(settings: Settings) -> subprocess.Popen[str]:
    environment = {"FOI_REDIS_URL": settings.redis_url or "", "FOI_ALLOW_PRIVATE_URLS": "true"}
    return python("-m", "worker.webhooks", environment=environment, stderr=subprocess.DEVNULL)


def test_kill_9_loses_nothing_and_sigterm_finishes_what_has_begun(
    receive: Callable[..., Receiver], repository: EditRepository, redis: Redis, settings: Settings
) -> None:
    receiver = receive(lambda handler: (time.sleep(0.3), answer()(handler))[-1])
    edit_ids = [end(repository, receiver.url) for _ in range(12)]
    first = start(settings)
    wait_until(lambda: len(receiver.requests) >= 6)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert redis.zcard(DUE) > 0
    make_due(redis)
    second = start(settings)
    wait_until(lambda: set(receiver.told) == set(edit_ids))
    last = end(repository, receiver.url)
    wait_until(lambda: last in receiver.told)
    second.terminate()
    assert second.wait(15) == 0
    assert tried(repository, last).state == "succeeded"
    assert len(receiver.requests) <= 13 + MAX_PER_HOST, "sent twice: at most what was on its way"


def test_the_supervisor_keeps_a_deliverer_alive(
    receive: Callable[..., Receiver],
    repository: EditRepository,
    settings: Settings,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FOI_ALLOW_PRIVATE_URLS", "true")
    receiver = receive(answer())
    (child,) = [child for child in Supervisor(settings, GivenRedis(redis_url))._children if child.kind == "webhooks"]
    child.start_when_due()
    assert child.process is not None
    child.process.kill()
    wait_until(lambda: child.death() is not None)
    edit_id = end(repository, receiver.url)
    wait_until(lambda: child.start_when_due() or child.process)
    assert tried(repository, edit_id).state == "succeeded"
    child.process.terminate()
    child.end(time.monotonic() + 15)
    assert child.process.returncode == 0


def test_the_process_needs_no_torch() -> None:
    code = "import worker.webhooks, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_message_that_cannot_be_read_holds_up_nobody(
    receive: Callable[..., Receiver], repository: EditRepository, redis: Redis, redis_url: str
) -> None:
    receiver = receive(answer())
    broken: dict[str, Any] = {"state": "?", "attempts": "[]", "next_at": ""}
    redis.hset("foi:delivery:edit_broken", mapping=broken)
    redis.zadd(DUE, {"edit_broken": 0})
    with delivering(redis_url):
        assert tried(repository, end(repository, receiver.url)).state == "succeeded"
    assert redis.zscore(DUE, "edit_broken") is not None


@pytest.mark.usefixtures("deliverer")
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (204, None),
        (302, "answered 302 (Found): redirects are not followed; give the final address"),
        (410, "answered 410 (Gone): nothing more is sent"),
        (500, "answered 500 (Internal Server Error) instead of 2xx"),
        (599, "answered 599 (no status that HTTP knows) instead of 2xx"),
    ],
)
def test_the_record_says_in_words_what_a_receiver_answered(
    receive: Callable[..., Receiver], repository: EditRepository, status: int, reason: str | None
) -> None:
    attempt = tried(repository, end(repository, receive(answer(status)).url)).attempts[0]
    assert (attempt.status, attempt.error) == (status, reason)


@pytest.mark.usefixtures("deliverer")
def test_the_record_says_in_words_why_there_was_no_answer(
    receive: Callable[..., Receiver], repository: EditRepository
) -> None:
    plain = receive(answer()).url
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    reasons = {
        f"http://127.0.0.1:{port}/": "refuses connections",
        "http://nowhere.invalid/": "has no public address",
        plain.replace("http:", "https:"): "TLS failed: ",
    }
    for url, reason in reasons.items():
        attempt = tried(repository, end(repository, url)).attempts[0]
        assert (attempt.status, reason in (attempt.error or "")) == (None, True), attempt.error


def test_a_certificate_that_is_not_accepted_is_named(
    repository: EditRepository, redis_url: str, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(
        ["openssl", *request.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with delivering(redis_url):
        attempt = tried(repository, end(repository, f"https://localhost:{server.server_port}/")).attempts[0]
    server.shutdown()
    thread.join()
    server.server_close()
    assert attempt.error == "its TLS certificate is not accepted: self-signed certificate"


@pytest.mark.usefixtures("deliverer")
def test_a_receiver_learns_who_calls(receive: Callable[..., Receiver], repository: EditRepository) -> None:
    receiver = receive(answer())
    tried(repository, end(repository, receiver.url))
    assert receiver.requests[0][0]["user-agent"] == f"focus-on-your-instruction/{version()}"
