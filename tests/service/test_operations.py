"""What operators and their tools ask: probes, metrics after real traffic, and what the service says of itself."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from foi_core.spec import RANGES
from jobs import metrics as counted
from jobs import presence
from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.presence import WorkerPresence
from jobs.queue import EditQueue
from jobs.redis_server import EmbeddedRedis, GivenRedis
from jobs.repository import EditRepository
from jobs.settings import Settings
from service import metrics, telemetry
from service.fields import SCALARS
from service.health import Look
from tests.service.conftest import serving
from tests.service.test_bad_input import refused
from tests.service.test_edits import ONE, submit
from tests.support import ROOT, FakeEngine, python, run_edit, wait_until
from worker.supervisor import Child, Supervisor

START_S = 120
PROMISED_S = 2.0
READY_WORKER = """
import sys, time
from jobs import presence
from jobs.connection import connect
redis = connect(sys.argv[1], decode=True)
while True:
    presence.publish(redis, presence.WorkerPresence(name=sys.argv[2], state="ready", model="demo"))
    time.sleep(0.5)
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """0 where there is no such series."""
    return samples.get((name, frozenset(labels.items())), 0.0)


def edit(client: httpx.Client) -> str:
    return str(submit(client).json()["id"])


@pytest.fixture
def stoppable(tmp_path: Path) -> Iterator[tuple[httpx.Client, EmbeddedRedis]]:
    """A service of its own with a Redis that can be stopped."""
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    with serving(Settings(data_dir=tmp_path), server.url) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client, server
    server.stop()


# Probes


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_a_load_balancer_may_ask_by_head(client: httpx.Client, redis: Redis, path: str) -> None:
    presence.publish(redis, WorkerPresence(name="w", state="ready", model="demo"))
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    presence.withdraw(redis, "w")
    assert client.head("/readyz").status_code == 503


def test_readiness_does_not_wait_for_a_redis_that_hangs(stoppable: tuple[httpx.Client, EmbeddedRedis]) -> None:
    client, server = stoppable
    assert refused(client.get("/readyz"), 503, "not-ready")["redis"] == "ok"
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(2):
            begun = time.monotonic()
            answer = refused(client.get("/readyz"), 503, "not-ready")
            assert time.monotonic() - begun < PROMISED_S
            assert (answer["redis"], answer["workers"], answer["store"]) == ("does not answer", "unknown", "ok")
        assert client.get("/livez").status_code == 200
    finally:
        server._process.send_signal(signal.SIGCONT)
    wait_until(lambda: client.get("/readyz").json()["redis"] == "ok")


def test_a_part_that_hangs_is_asked_once_however_many_want_to_know() -> None:
    asked, answers = [], threading.Event()

    def hang() -> dict[str, str]:
        asked.append(1)
        answers.wait(20)
        return {"store": "ok"}

    async def ask_often() -> list[dict[str, str]]:
        look = Look(hang, {"store": "does not answer"})
        early = [*await asyncio.gather(look.parts(), look.parts()), await look.parts()]
        answers.set()
        return [*early, await look.parts()]

    assert asyncio.run(ask_often()) == [{"store": "does not answer"}] * 3 + [{"store": "ok"}]
    assert len(asked) == 1


def test_a_killed_worker_is_not_ready_within_two_seconds(
    client: httpx.Client, redis_url: str, settings: Settings
) -> None:
    supervisor = Supervisor(settings, GivenRedis(redis_url))
    worker = Child("worker", lambda name: [sys.executable, "-c", READY_WORKER, redis_url, name], dict(os.environ))
    supervisor._service = Child("service", lambda _: [sys.executable, "-c", "import time; time.sleep(99)"], {})
    supervisor._workers = [worker]

    def supervised(status: int) -> bool:
        supervisor._look_after_children()
        return client.get("/readyz").status_code == status

    try:
        wait_until(lambda: supervised(200))
        assert worker.process is not None
        worker.process.kill()
        begun = time.monotonic()
        wait_until(lambda: supervised(503), PROMISED_S)
        assert time.monotonic() - begun < PROMISED_S
    finally:
        supervisor._stop()


# Metrics


def test_metrics_tell_of_real_traffic(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore, queue: EditQueue
) -> None:
    before = scrape(client)
    done, waiting, canceled = (edit(client) for _ in range(3))
    queue.remove(done, "normal")
    run_edit(FakeEngine(), repository, served_blobs, done)
    client.post(f"/v1/edits/{canceled}/cancel")
    for path in (f"/v1/edits/{waiting}", f"/v1/edits/{done}", "/v1/edits/edit_0", "/nowhere"):
        client.get(path)
    after = scrape(client)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("foi_edits_total", status="succeeded", error="") == 1
    assert grown("foi_edits_total", status="canceled", error="") == 1
    assert value(after, "foi_queue_depth", priority="normal", state="queued") == 1
    assert value(after, "foi_queue_depth", priority="high", state="queued") == 0
    assert value(after, "foi_queue_depth", priority="normal", state="started") == 0
    for name in ("foi_queue_seconds", "foi_run_seconds"):
        assert grown(f"{name}_count") == grown(f"{name}_bucket", le="+Inf") == 1
    assert grown("foi_run_seconds_sum") == 0.25
    assert (grown("foi_run_seconds_bucket", le="0.1"), grown("foi_run_seconds_bucket", le="0.25")) == (0, 1)
    one = {"method": "GET", "route": "/v1/edits/{edit_id}"}
    assert grown("foi_http_requests_total", **one, status="200") == 2
    assert grown("foi_http_requests_total", **one, status="404") == 1
    assert grown("foi_http_request_seconds_count", **one) == 3
    assert grown("foi_http_requests_total", method="POST", route="/v1/edits", status="202") == 3
    assert grown("foi_http_requests_total", method="GET", route="none", status="404") == 1


def test_strange_methods_make_no_new_series(client: httpx.Client) -> None:
    for method in ("PROPFIND", "PURGE"):
        client.request(method, "/v1/edits")
    samples = scrape(client)
    assert value(samples, "foi_http_requests_total", method="other", route="/v1/edits", status="405") >= 2
    assert not any(("method", "PURGE") in labels for _, labels in samples)


def test_event_streams_are_counted_and_not_timed(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    edit_id = edit(client)
    run_edit(FakeEngine(), repository, served_blobs, edit_id)
    stream = {"method": "GET", "route": "/v1/edits/{edit_id}/events"}
    before = scrape(client)
    assert "event: done" in client.get(f"/v1/edits/{edit_id}/events").text
    after = scrape(client)
    assert (
        value(after, "foi_http_requests_total", **stream, status="200")
        - value(before, "foi_http_requests_total", **stream, status="200")
        == 1
    )
    assert ("foi_http_request_seconds_count", frozenset(stream.items())) not in after


def test_metrics_tell_of_the_workers_and_of_what_they_run(client: httpx.Client, redis: Redis) -> None:
    for i, state in enumerate(("ready", "ready", "starting")):
        presence.publish(redis, WorkerPresence(name=f"w{i}", state=state, model="demo", places=4, revision="abc"))  # type: ignore[arg-type]
    samples = scrape(client)
    assert [value(samples, "foi_workers", state=state) for state in ("starting", "ready", "draining")] == [1, 2, 0]
    assert value(samples, "foi_batch_capacity") == 8
    ((name, labels),) = (key for key in samples if key[0] == "foi_build_info")
    assert samples[name, labels] == 1
    assert dict(labels) | {"version": ""} == {"version": "", "model": "demo", "revision": "abc"}


def test_what_others_count_is_shown_as_they_wrote_it(client: httpx.Client, redis: Redis) -> None:
    redis.hset(counted.WEBHOOK_OUTCOMES, mapping={"succeeded": 5, "failed": 2})
    tally = counted.Tally()
    tally.add({counted.STORE_ERRORS: 3})
    tally.add(counted.observed(counted.RUN_SECONDS, 700, counted.EDIT_BUCKETS_S))
    tally.add(counted.observed(counted.RUN_SECONDS, 9000, counted.EDIT_BUCKETS_S))
    tally.flush(redis)
    samples = scrape(client)
    outcomes = [value(samples, "foi_webhook_attempts_total", outcome=o) for o in ("succeeded", "failed", "stopped")]
    assert outcomes == [5, 2, 0]
    assert value(samples, "foi_store_errors_total") == 3
    buckets = [value(samples, "foi_run_seconds_bucket", le=le) for le in ("600.0", "1800.0", "+Inf")]
    assert (buckets, value(samples, "foi_run_seconds_sum")) == ([0, 1, 2], 9700)


def test_a_store_that_refuses_is_counted(stoppable: tuple[httpx.Client, EmbeddedRedis], tmp_path: Path) -> None:
    client, server = stoppable
    redis = connect(server.url, decode=True)
    presence.publish(redis, WorkerPresence(name="w", state="ready", model="demo"))
    redis.close()
    shutil.rmtree(tmp_path / "blobs")
    (tmp_path / "blobs").write_text("a file where the folder was")
    refused(submit(client), 503, "unavailable")
    assert value(scrape(client), "foi_store_errors_total") == 1


def test_the_first_scrape_shows_zeros_and_no_series_is_there_twice(client: httpx.Client) -> None:
    text = client.get("/metrics").text
    for line in ("foi_steps_total 0.0", "foi_run_seconds_count 0.0", 'foi_run_seconds_bucket{le="0.1"} 0.0'):
        assert line in text.splitlines()
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_what_one_process_counts_another_shows(
    settings: Settings, redis_url: str, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "FLUSH_S", 0.05)
    before = value(scrape(client), "foi_http_requests_total", method="GET", route="/livez", status="200")
    with serving(settings, redis_url) as url:
        httpx.get(f"{url}/livez")
        wait_until(
            lambda: (
                value(scrape(client), "foi_http_requests_total", method="GET", route="/livez", status="200")
                == before + 1
            )
        )
        httpx.get(f"{url}/livez")
    assert value(scrape(client), "foi_http_requests_total", method="GET", route="/livez", status="200") == before + 2


def test_without_redis_metrics_and_info_are_503(stoppable: tuple[httpx.Client, EmbeddedRedis]) -> None:
    client, server = stoppable
    server.stop()
    for path in ("/metrics", "/v1/info"):
        refused(client.get(path), 503, "unavailable")


def test_a_real_worker_counts_its_steps_and_says_what_it_loaded(
    client: httpx.Client, served_settings: Settings
) -> None:
    environment = {"FOI_REDIS_URL": served_settings.redis_url or "", "FOI_DATA_DIR": str(served_settings.data_dir)}
    edits = [edit(client) for _ in range(2)]
    worker = python("-m", "tests.worker.fake_worker", "worker-counting", "0.05", environment=environment)
    try:
        ready = 'foi_workers{state="ready"} 1.0'
        wait_until(lambda: ready in client.get("/metrics").text, START_S)
        wait_until(lambda: all(client.get(f"/v1/edits/{one}").json()["status"] == "succeeded" for one in edits))
        wait_until(lambda: value(scrape(client), "foi_batch_edits_total") == 6)
        samples = scrape(client)
        assert 3 <= value(samples, "foi_steps_total") <= 6
        assert value(samples, "foi_step_seconds_total") >= 0.15
        info = client.get("/v1/info").json()
        assert info["workers"] == {"starting": 0, "ready": 1, "draining": 0}
        assert (info["model"], len(info["revision"])) == ("demo", 12)
    finally:
        worker.terminate()
        worker.wait(20)


# Info


def test_info_names_limits_defaults_and_how_busy_it_is(client: httpx.Client, served_settings: Settings) -> None:
    edit(client)
    info = client.get("/v1/info").json()
    assert (info["model"], info["revision"]) == ("demo", None)
    assert info["queue"] == {"queued": 1, "started": 0}
    assert info["workers"] == {"starting": 0, "ready": 0, "draining": 0}
    limits = info["limits"]
    assert (limits["body_bytes"], limits["pixels"]) == (served_settings.max_body_bytes, served_settings.max_pixels)
    assert (limits["queue"], limits["outputs"]) == (served_settings.max_queue, served_settings.max_outputs)
    assert limits["per_key"] == {"edits": 50, "requests_per_minute": 600, "streams": 4}
    assert limits["ranges"]["num_inference_steps"] == {"minimum": 1, "maximum": 150}
    assert limits["ranges"].keys() == RANGES.keys()
    assert info["defaults"].keys() == SCALARS.keys()
    assert (info["defaults"]["strength"], info["defaults"]["output_format"]) == (0.8, "png")
    assert info["defaults"]["guidance_scale"] is None, "the model's own"
    assert info["methods"] == ["foi", "ip2p"]
    assert info["presets"]["paper"]["threshold"] == [0.4, 0.7]
    assert (info["output_formats"], info["output_sizes"]) == (["png", "jpeg", "webp"], ["input", "model"])
    assert info["priorities"] == ["high", "normal", "low"]


def test_what_info_says_is_taken_at_its_word(client: httpx.Client) -> None:
    """The defaults, sent as they stand, make the same edit as none."""
    defaults = client.get("/v1/info").json()["defaults"]
    given = {
        name: str(default).lower() if isinstance(default, bool) else str(default)
        for name, default in defaults.items()
        if default is not None and name != "webhook_events"
    }
    plain, spelled_out = submit(client).json(), submit(client, {**ONE, **given}).json()
    assert {**plain["input"], "seed": 0} == {**spelled_out["input"], "seed": 0}


def test_metrics_and_info_need_a_key_where_keys_are_on(tmp_path: Path, redis_url: str) -> None:
    with serving(Settings(data_dir=tmp_path, auth="keys"), redis_url) as url:
        for path in ("/metrics", "/v1/info"):
            refused(httpx.get(url + path), 401, "unauthorized")
        assert httpx.get(f"{url}/livez").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 503


# Telemetry


def test_telemetry_is_off_unless_it_is_asked_for() -> None:
    assert not any(telemetry.config(Settings()).values())


@pytest.mark.parametrize(("missing", "advice"), [("package", "fastapi[opentelemetry]"), ("address", "OTEL_EXPORTER")])
def test_telemetry_that_would_go_nowhere_is_refused_at_start(missing: str, advice: str, tmp_path: Path) -> None:
    """In a process of its own: what is installed and who provides are global."""
    if missing == "package" and importlib.util.find_spec("opentelemetry.sdk"):
        pytest.skip("the package is there")
    if missing == "address":
        package = tmp_path / "opentelemetry" / "exporter" / "otlp" / "proto" / "http"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    environment = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env={**environment, "FOI_TELEMETRY": "true", "FOI_DATA_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert advice in done.stderr
    assert "Traceback" not in done.stderr
