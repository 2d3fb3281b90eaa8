"""What a process writes to stderr, line by line: in a process of its own, since logging is set up for all of it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.support import ROOT

START = """
import logging, threading, warnings
import structlog
from jobs import logs
from jobs.settings import Settings

logs.configure(Settings(log_format={log_format!r}, log_level="INFO"))
log = logs.get_logger("ours")
"""
FROM_EVERYONE = """
with structlog.contextvars.bound_contextvars(edit_id="edit_1", request_id="request_1"):
    log.info("edit queued", size=(48, 32))
    logging.getLogger("uvicorn.access").info('%s - "%s"', "127.0.0.1", "GET /")
    logging.getLogger("rq.worker").warning("job %s", "lost")
log.info("outside")
log.debug("not shown")
logging.getLogger("httpx").info("HTTP Request: POST https://example.com/?token=secret")
"""
FAILURE = """
def fail(secret):
    raise ValueError("it broke")

with structlog.contextvars.bound_contextvars(edit_id="edit_1"):
    try:
        fail("hidden")
    except ValueError:
        log.exception("edit failed")
        logging.getLogger("rq.worker").exception("job failed")
"""


def lines(code: str, log_format: str = "json") -> list[str]:
    program = START.format(log_format=log_format) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def parsed(code: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(code)]


def test_a_json_line_of_anyone_says_when_who_and_for_which_edit_and_request() -> None:
    ours, uvicorn, rq, outside = parsed(FROM_EVERYONE)
    for line in (ours, uvicorn, rq):
        assert (line["edit_id"], line["request_id"]) == ("edit_1", "request_1")
        assert line["timestamp"].endswith("Z")
    assert (ours["event"], ours["logger"], ours["level"], ours["size"]) == ("edit queued", "ours", "info", [48, 32])
    assert (uvicorn["event"], uvicorn["logger"]) == ('127.0.0.1 - "GET /"', "uvicorn.access")
    assert (rq["event"], rq["logger"], rq["level"]) == ("job lost", "rq.worker", "warning")
    assert outside.keys() == {"event", "logger", "level", "timestamp"}


def test_a_console_line_of_anyone_names_the_edit_and_the_request() -> None:
    shown = lines(FROM_EVERYONE, "console")
    assert len(shown) == 4
    for line in shown[:3]:
        assert "edit_id=edit_1" in line
        assert "request_id=request_1" in line
    assert "edit_id" not in shown[3]


def test_an_exception_is_one_json_line_without_the_values_of_variables() -> None:
    for line in (found := parsed(FAILURE)):
        assert (line["edit_id"], line["level"]) == ("edit_1", "error")
        (exception,) = line["exception"]
        assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", "it broke")
        assert exception["frames"][-1]["name"] == "fail"
        assert "hidden" not in json.dumps(exception["frames"])
    assert [line["logger"] for line in found] == ["ours", "rq.worker"]


def test_a_console_shows_an_exception_as_python_does() -> None:
    shown = lines(FAILURE, "console")
    assert shown.count("Traceback (most recent call last):") == 2
    assert shown.count("ValueError: it broke") == 2


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("raise ValueError('it broke')", "the process ends by an exception"),
        (
            "def fail(): raise ValueError('it broke')\nthreading.Thread(target=fail).start()",
            "a thread ends by an exception",
        ),
    ],
)
def test_what_nobody_catches_is_one_json_line_too(code: str, event: str) -> None:
    (line,) = parsed(code)
    assert (line["event"], line["level"]) == (event, "critical")
    assert line["exception"][0]["exc_value"] == "it broke"


def test_a_warning_is_one_json_line_too() -> None:
    (line,) = parsed("warnings.warn('be careful')")
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "be careful" in line["event"]
