"""Alert rules, dashboard and scaling speak of metrics that a running service has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, VectorSelector
from redis import Redis

from jobs import presence
from jobs.settings import Settings
from service.problems import KINDS
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_edits import submit
from tests.support import ROOT

DEPLOY = ROOT / "deploy"
_ERRORS = {*KINDS, "worker-lost", "unsafe-result", "deadline-exceeded", "out-of-memory"}
_PROBES = {"/livez", "/readyz", "/metrics"}
KNOWN = {
    "foi_queue_depth": {"state": {"queued", "started"}, "priority": {"high", "normal", "low"}},
    "foi_workers": {"state": set(get_args(presence.State))},
    "foi_edits_total": {"status": {"succeeded", "failed", "canceled"}, "error": _ERRORS},
    "foi_webhook_attempts_total": {"outcome": {"succeeded", "failed", "stopped"}},
    "foi_http_requests_total": {"route": _PROBES, "status": {"5.."}},
    "foi_http_request_seconds_bucket": {"route": _PROBES},
    "up": {"job": {"foi"}},
}
"""Values of labels that selectors may ask for."""


def rules() -> list[Any]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[Any]:
    return list(json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"])


def expressions() -> dict[str, str]:
    """Where each is, and what it says. Grafana puts a duration in the place of its variable."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['title']}, {target['refId']}"] = target["expr"].replace("$__rate_interval", "5m")
    (trigger,) = yaml.safe_load((DEPLOY / "kubernetes" / "keda.yaml").read_text())["spec"]["triggers"]
    return {**found, "keda": trigger["metadata"]["query"]}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> dict[str, set[str]]:
    """The names of all series of a service with some traffic, and their labels."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("monitoring"), redis_url=redis_url)
    found: defaultdict[str, set[str]] = defaultdict(set)
    redis = Redis.from_url(redis_url, decode_responses=True)
    redis.flushall()
    with serving(settings, redis_url) as url, httpx.Client(base_url=url, timeout=20) as client:
        seen_a_moment_ago(redis)
        edit = submit(client).json()
        client.post(f"/v1/edits/{edit['id']}/cancel").raise_for_status()
        for family in text_string_to_metric_families(client.get("/metrics").text):
            for sample in family.samples:
                found[sample.name] |= set(sample.labels)
    redis.flushall()
    redis.close()
    return {**found, "up": {"job", "instance"}}


def nodes(expression: str) -> Iterator[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    return iter(found)


@pytest.mark.parametrize("place", expressions())
def test_an_expression_asks_for_series_and_labels_that_are_there(place: str, labels: dict[str, set[str]]) -> None:
    asked: set[str] = set()
    for node in nodes(expressions()[place]):
        if isinstance(node, VectorSelector):
            assert node.name is not None
            asked |= labels[node.name]
            for matcher in node.matchers.matchers:
                assert matcher.name in labels[node.name], f"{node.name} has no label {matcher.name}"
                wrong = set(matcher.value.split("|")) - KNOWN[node.name][matcher.name]
                assert not wrong, f"{node.name} never has {matcher.name}={wrong}"
    for node in nodes(expressions()[place]):
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= asked


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: Any) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert re.fullmatch(r"\d+m", rule.get("for", "1m"))


def test_the_dashboard_is_whole_and_no_panel_lies_on_another() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    assert dashboard["uid"] == "foi"
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource"]
    assert len({panel["id"] for panel in panels()}) == len(panels())
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        assert panel["targets"]


def test_every_metric_of_ours_is_shown(labels: dict[str, set[str]]) -> None:
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in labels if name.startswith("foi_")}
    assert not [name for name in families if name not in shown]


def test_prometheus_scrapes_the_service_of_the_compose_file_with_its_key(read: Callable[[str], list[Any]]) -> None:
    (config,), (compose,) = read("deploy/prometheus/prometheus.yml"), read("docker-compose.yml")
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "foi", "the alerts name it"
    assert job["static_configs"] == [{"targets": ["api:8000"]}]
    (secret,) = compose["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert config["rule_files"] == ["alerts.yml"]


def test_grafana_finds_its_data_and_its_dashboard(read: Callable[[str], list[Any]]) -> None:
    (sources,), (providers,) = read("deploy/grafana/datasource.yml"), read("deploy/grafana/provider.yml")
    (compose,) = read("docker-compose.yml")
    (source,), (provider,) = sources["datasources"], providers["providers"]
    assert source["url"] == "http://prometheus:9090"
    mounted = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/foi.json" in mounted


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Prometheus, is not installed")
def test_the_rules_do_what_their_own_tests_say() -> None:
    tests: Path = DEPLOY / "prometheus" / "alerts.test.yml"
    done = subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
