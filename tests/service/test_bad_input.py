"""Whatever is sent, the answer is a 4xx that says what is wrong, and nothing is stored or queued."""

from __future__ import annotations

import json
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from foi_core.spec import MAX_SUB_INSTRUCTIONS, RANGES
from jobs.blobs import BlobStore
from jobs.repository import EditRepository
from service.fields import MAX_JSON_DEPTH, MAX_METADATA_BYTES
from tests.support import FakeEngine, encoded, picture, run_edit

PNG = encoded(picture())
ONE = {"instruction": "make the ball red"}
Stored = Callable[[], set[str]]


def refused(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem, which must be well-formed."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["type"]) == (status, status, f"/problems/{slug}"), (
        answer.text
    )
    assert problem.keys() >= {"type", "title", "status", "detail", "instance"}
    return problem


def instructions(*entries: object) -> dict[str, str]:
    return {"instructions": json.dumps(entries)}


BAD_FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("/colour", {**ONE, "colour": "red"}),
    ("/n", {**ONE, "n": "9"}),
    ("/seed", {**ONE, "seed": ["1", "2"]}),
    ("/seed", {**ONE, "seed": "-1"}),
    ("/seed", {**ONE, "seed": "1.5"}),
    ("/seed", {**ONE, "seed": "9" * 5000}),
    ("/seed", {**ONE, "seed": ""}),
    ("/num_inference_steps", {**ONE, "num_inference_steps": "1e2"}),
    ("/num_inference_steps", {**ONE, "num_inference_steps": "１２"}),
    ("/method", {**ONE, "method": "magic"}),
    ("/preserve_outside_mask", {**ONE, "preserve_outside_mask": "perhaps"}),
    ("/output_format", {**ONE, "output_format": "gif"}),
    ("/output_quality", {**ONE, "output_quality": "101", "output_format": "webp"}),
    ("/output_quality", {**ONE, "output_quality": "-1", "output_format": "webp"}),
    ("/output_quality", {**ONE, "output_quality": "90"}),
    ("/threshold", {**ONE, "threshold": "0.7-0.4"}),
    ("/threshold", {**ONE, "threshold": "0.4,0.7"}),
    ("/threshold", {**ONE, "threshold": "0.4-"}),
    ("/threshold", {**ONE, "threshold": "1.5"}),
    ("/metadata", {**ONE, "metadata": "[1]"}),
    ("/metadata", {**ONE, "metadata": "{"}),
    ("/metadata", {**ONE, "metadata": '{"a": NaN}'}),
    ("/metadata", {**ONE, "metadata": '{"a": 1e999}'}),
    ("/metadata", {**ONE, "metadata": '{"a": "\\ud800"}'}),
    ("/metadata", {**ONE, "metadata": '{"a":' + "[" * 2000 + "]" * 2000 + "}"}),
    ("/metadata", {**ONE, "metadata": json.dumps({"a": "x" * MAX_METADATA_BYTES})}),
    ("/metadata", {**ONE, "metadata": '{"a": 1, "a": 2}'}),
    ("/metadata", {**ONE, "metadata": '{"a": [{"b": 1, "c": 2, "b": 1}]}'}),
    ("/metadata", {**ONE, "metadata": '{"a":' * 200 + "1" + "}" * 200}),
    ("/metadata", {**ONE, "metadata": "[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1)}),
    ("/metadata", {**ONE, "metadata": "\ufeff{}"}),
    ("/metadata", {**ONE, "metadata": "{'a': 1}"}),
    ("/metadata", {**ONE, "metadata": '{"a": 1,}'}),
    ("/metadata", {**ONE, "metadata": '{"a": 0x10}'}),
    ("/metadata", {**ONE, "metadata": '{"a": ' + "9" * 4000 + ".0}"}),
    ("/metadata", {**ONE, "metadata": "null"}),
    ("/metadata", {**ONE, "metadata": ["{}", "{}"]}),
    ("/instruction", {"seed": "1"}),
    ("/instruction", {"instruction": ""}),
    ("/instruction", {"instruction": "  \n "}),
    ("/instruction", {**ONE, **instructions({"text": "x"})}),
    ("/instruction", {"instructions": ["[]", "[]"]}),
    ("/instruction/0/text", {"instruction": "x" * 501}),
    ("/instruction/1/text", {"instruction": ["make it red", " "]}),
    ("/instructions", {"instruction": ["make it red"] * (MAX_SUB_INSTRUCTIONS + 1)}),
    ("/instructions", {"instructions": "nonsense"}),
    ("/instructions", {"instructions": "[]"}),
    ("/instructions", {"instructions": "{}"}),
    ("/instructions", {"instructions": "9" * 5000}),
    ("/instructions", {"instructions": "[" * 30_000}),
    ("/instructions/0/text", instructions("make it red")),
    ("/instructions/0/text", instructions({"keyword": "hat"})),
    ("/instructions/0/text", instructions({"text": 7})),
    ("/instructions/0/text", instructions({"text": None})),
    ("/instructions", {"instructions": '[{"text": "\\ud800"}]'}),
    ("/instructions/0/colour", instructions({"text": "make it red", "colour": "red"})),
    ("/instructions/1/keyword", instructions({"text": "x"}, {"text": "make the chat red", "keyword": "hat"})),
    ("/instructions/0/keyword", instructions({"text": "make it red", "keyword": " "})),
    ("/instructions/0/keyword", instructions({"text": "make it red", "keyword": ["it"]})),
    ("/instructions/0/intensity", instructions({"text": "make it red", "intensity": -1})),
    ("/instructions/0/intensity", instructions({"text": "make it red", "intensity": "2"})),
    ("/instructions/0/intensity", instructions({"text": "make it red", "intensity": True})),
    ("/instructions/0/intensity", {"instructions": '[{"text": "make it red", "intensity": 1' + "0" * 400 + "}]"}),
    ("/instructions/0/mask", instructions({"text": "make it red", "mask": "nowhere"})),
    ("/instructions/0/mask", instructions({"text": "make it red", "mask": "image"})),
    ("/instructions/0/mask", instructions({"text": "make it red", "mask": 1})),
    ("/instructions", {"instructions": '[{"text": "make it red", "text": "make it blue"}]'}),
    ("/instructions", {"instructions": '[{"text": "make it red", "intensity": Infinity}]'}),
    ("/instructions/0/__class__", instructions({"text": "make it red", "__class__": "x"})),
    ("/instructions/0/text", instructions(["make it red"])),
    ("/instructions/0/text", instructions(None)),
    ("/webhook_events", {**ONE, "webhook_events": "edit.failed"}),
    ("/image_url", {**ONE, "image_url": ["http://a/", "http://b/"]}),
    ("/image", {**ONE, "image_url": "http://example.org/a.png"}),
    ("/__proto__", {**ONE, "__proto__": "{}"}),
    ("/seed ", {**ONE, "seed ": "1"}),
    ("/SEED", {**ONE, "SEED": "1"}),
]


@pytest.mark.parametrize(("pointer", "data"), BAD_FIELDS, ids=[f"{i}-{p}" for i, (p, _) in enumerate(BAD_FIELDS)])
def test_a_wrong_field_is_named(client: httpx.Client, stored: Stored, pointer: str, data: dict[str, Any]) -> None:
    before = stored()
    problem = refused(client.post("/v1/edits", files={"image": PNG}, data=data), 422, "invalid-parameter")
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert stored() == before


@pytest.mark.parametrize("name", sorted(RANGES.keys() - {"intensity"}))
@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "0x10", "", "-0.001", "1e12"])
def test_no_number_outside_its_range_gets_in(client: httpx.Client, stored: Stored, name: str, value: str) -> None:
    before = stored()
    problem = refused(
        client.post("/v1/edits", files={"image": PNG}, data={**ONE, name: value}), 422, "invalid-parameter"
    )
    assert [error["pointer"] for error in problem["errors"]] == [f"/{name}"]
    assert stored() == before


def test_all_wrong_fields_are_named_at_once(client: httpx.Client) -> None:
    data = {"seed": "x", "strength": "y", "colour": "red"}
    problem = refused(client.post("/v1/edits", files={"image": PNG}, data=data), 422, "invalid-parameter")
    assert {error["pointer"] for error in problem["errors"]} == {"/seed", "/strength", "/colour", "/instruction"}


NEAR_MISSES: list[tuple[dict[str, Any], str]] = [
    ({"threshold": "0.7-0.4"}, "threshold: '0.7-0.4' is not allowed; expected a number from 0 to 1, or a range"),
    ({"threshold": "(0.4, 0.7)"}, "0.4-0.7"),
    ({"seed": str(2**32)}, "seed: 4294967296 is not allowed; expected a whole number from 0 to 4294967295"),
    ({"strength": "80%"}, "strength: '80%' is not allowed; expected a number from 0.01 to 1"),
    ({"metadata": '{"a": 1, "a": 2}'}, "the key 'a' stands twice"),
    ({"metadata": '{"a": 1,}'}, "valid JSON; character 9"),
    ({"metadata": "[" * 50 + "]" * 50}, f"at most {MAX_JSON_DEPTH} levels"),
    ({"stregth": "0.5"}, "strength"),
    ({"image": "holiday.png"}, "curl -F image=@picture.png"),
    ({"instructions": "[]"}, "not"),
]


@pytest.mark.parametrize(("data", "said"), NEAR_MISSES, ids=[said for _, said in NEAR_MISSES])
def test_a_near_miss_is_told_what_would_be_right(client: httpx.Client, data: dict[str, Any], said: str) -> None:
    answer = client.post("/v1/edits", files={"image": PNG}, data={**ONE, **data})
    assert said in refused(answer, 422, "invalid-parameter")["detail"]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """A header that promises `width` x `height`, and a few bytes of pixels: what a decompression bomb looks like."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def animated() -> bytes:
    return encoded(picture(), "PNG", save_all=True, append_images=[Image.new("RGB", (48, 32))])


BAD_PICTURES: list[tuple[str, int, str, bytes]] = [
    ("truncated png", 415, "unsupported-image", PNG[:-100]),
    ("header only", 415, "unsupported-image", PNG[:40]),
    ("truncated jpeg", 415, "unsupported-image", encoded(picture(), "JPEG")[:-200]),
    ("truncated webp", 415, "unsupported-image", encoded(picture(), "WEBP")[:-200]),
    ("flipped bits", 415, "unsupported-image", PNG[:200] + bytes(b ^ 0xFF for b in PNG[200:400]) + PNG[400:]),
    ("text", 415, "unsupported-image", b"this is no picture"),
    ("svg", 415, "unsupported-image", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ("gif", 415, "unsupported-image", encoded(picture(), "GIF")),
    ("bmp", 415, "unsupported-image", encoded(picture(), "BMP")),
    ("tiff", 415, "unsupported-image", encoded(picture(), "TIFF")),
    ("empty", 415, "unsupported-image", b""),
    ("animated png", 415, "unsupported-image", animated()),
    ("0x0", 415, "unsupported-image", png_of(0, 0)),
    ("1x1", 422, "invalid-parameter", encoded(Image.new("RGB", (1, 1)))),
    ("15 pixels high", 422, "invalid-parameter", encoded(Image.new("RGB", (64, 15)))),
    ("too narrow", 422, "invalid-parameter", encoded(Image.new("RGB", (16, 129)))),
    ("too many pixels", 422, "image-too-many-pixels", encoded(Image.new("RGB", (400, 400)))),
    ("a bomb of 100 MP", 422, "image-too-many-pixels", png_of(10_000, 10_000)),
    ("a bomb of 4 GP", 422, "image-too-many-pixels", png_of(65_000, 65_000)),
    ("a header beyond reason", 422, "image-too-many-pixels", png_of(2**31 - 1, 2**31 - 1)),
]


@pytest.mark.parametrize(
    ("status", "slug", "data"), [case[1:] for case in BAD_PICTURES], ids=[c[0] for c in BAD_PICTURES]
)
def test_a_bad_picture_is_refused(client: httpx.Client, stored: Stored, status: int, slug: str, data: bytes) -> None:
    before = stored()
    refused(client.post("/v1/edits", files={"image": ("image", data)}, data=ONE), status, slug)
    assert stored() == before


@pytest.mark.parametrize(
    ("status", "slug", "mask"),
    [
        (422, "mask-size-mismatch", encoded(Image.new("L", (32, 48)))),
        (415, "unsupported-image", b"no picture"),
        (422, "image-too-many-pixels", png_of(10_000, 10_000)),
    ],
)
def test_a_bad_mask_is_refused(client: httpx.Client, stored: Stored, status: int, slug: str, mask: bytes) -> None:
    before = stored()
    data = instructions({"text": "make the ball red", "mask": "where"})
    answer = client.post("/v1/edits", files={"image": PNG, "where": mask}, data=data)
    assert "where" in refused(answer, status, slug)["detail"]
    assert stored() == before


def test_files_that_nobody_asked_for_are_refused(client: httpx.Client, stored: Stored) -> None:
    before = stored()
    cases: list[tuple[list[tuple[str, bytes]], str]] = [
        ([("image", PNG), ("extra", PNG)], "/extra"),
        ([("image", PNG), ("image", PNG)], "/image"),
        ([("image", PNG), ("instruction", b"make it red")], "/instruction"),
        ([("picture", PNG)], "/image"),
    ]
    for files, pointer in cases:
        problem = refused(client.post("/v1/edits", files=files, data=ONE), 422, "invalid-parameter")
        assert pointer in [error["pointer"] for error in problem["errors"]]
    problem = refused(
        client.post("/v1/edits", files={"x": b""}, data={**ONE, "image": "text"}), 422, "invalid-parameter"
    )
    assert "/image" in [error["pointer"] for error in problem["errors"]]
    assert stored() == before


def multipart(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


def text_part(name: str, value: bytes) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value


BAD_BODIES: list[tuple[str, int, str, str, bytes]] = [
    ("json", 415, "unsupported-media-type", "application/json", b'{"instruction": "x"}'),
    ("urlencoded", 415, "unsupported-media-type", "application/x-www-form-urlencoded", b"instruction=x"),
    ("no type", 415, "unsupported-media-type", "", b"instruction=x"),
    ("no boundary", 400, "malformed-body", "multipart/form-data", multipart(text_part("instruction", b"x"))),
    (
        "another boundary",
        400,
        "malformed-body",
        "multipart/form-data; boundary=c",
        multipart(text_part("instruction", b"x")),
    ),
    ("no multipart at all", 400, "malformed-body", "multipart/form-data; boundary=b", b"garbage"),
    ("empty", 400, "malformed-body", "multipart/form-data; boundary=b", b""),
    (
        "cut off between two parts",
        400,
        "malformed-body",
        "multipart/form-data; boundary=b",
        multipart(text_part("instruction", b"x"), end=b""),
    ),
    (
        "cut off in its last part, after a picture and an instruction that would do",
        400,
        "malformed-body",
        "multipart/form-data; boundary=b",
        multipart(
            b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + encoded(picture()),
            text_part("instruction", b"make the sky orange"),
            end=b"--b\r\n" + text_part("instruction", b"turn the gra"),
        ),
    ),
    (
        "bad utf-8",
        400,
        "malformed-body",
        "multipart/form-data; boundary=b",
        multipart(text_part("instruction", b"\xff\xfe")),
    ),
    ("no name", 400, "malformed-body", "multipart/form-data; boundary=b", multipart(b"X: y\r\n\r\nx")),
    (
        "many parts",
        400,
        "malformed-body",
        "multipart/form-data; boundary=b",
        multipart(*[text_part("seed", b"1")] * 100),
    ),
    (
        "long field",
        400,
        "malformed-body",
        "multipart/form-data; boundary=b",
        multipart(text_part("seed", b"1" * 70_000)),
    ),
    (
        "many files",
        400,
        "malformed-body",
        "multipart/form-data; boundary=b",
        multipart(*[b'Content-Disposition: form-data; name="m"; filename="m"\r\n\r\nx'] * 10),
    ),
]


@pytest.mark.parametrize(
    ("status", "slug", "kind", "body"), [case[1:] for case in BAD_BODIES], ids=[c[0] for c in BAD_BODIES]
)
def test_a_bad_body_is_refused(
    client: httpx.Client, stored: Stored, status: int, slug: str, kind: str, body: bytes
) -> None:
    before = stored()
    refused(client.post("/v1/edits", content=body, headers={"Content-Type": kind} if kind else {}), status, slug)
    assert stored() == before


def test_a_body_over_the_limit_is_refused_by_its_length(client: httpx.Client, stored: Stored) -> None:
    before = stored()
    answer = client.post("/v1/edits", files={"image": bytes(500_000)}, data=ONE)
    refused(answer, 413, "payload-too-large")
    assert answer.headers["connection"] == "close"
    assert stored() == before


def test_a_body_over_the_limit_is_refused_without_a_length_too(client: httpx.Client, stored: Stored) -> None:
    before = stored()

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="i"\r\n\r\n'
        for _ in range(100):
            yield bytes(10_000)

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(client.post("/v1/edits", content=endless(), headers=kind), 413, "payload-too-large")
    assert stored() == before


HEAD = (
    "POST /v1/edits HTTP/1.1",
    "Host: localhost",
    "Content-Type: multipart/form-data; boundary=b",
    "Content-Length: 1000",
)
HALF_A_BODY = ("\r\n".join(HEAD) + "\r\n\r\n--b").encode()


def test_a_body_that_does_not_arrive_is_given_up(address: str, stored: Stored) -> None:
    host, port = address.removeprefix("http://").split(":")
    before = stored()
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(HALF_A_BODY)
        answer = connection.recv(10_000)
    assert b" 408 " in answer.splitlines()[0]
    assert stored() == before


def test_a_caller_that_leaves_in_the_middle_leaves_nothing(address: str, client: httpx.Client, stored: Stored) -> None:
    host, port = address.removeprefix("http://").split(":")
    before = stored()
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(HALF_A_BODY)
    assert client.get("/livez").status_code == 200
    assert stored() == before


def test_unknown_routes_and_methods_are_problems(client: httpx.Client) -> None:
    refused(client.get("/v2/edits"), 404, "not-found")
    wrong = client.put("/v1/edits")
    refused(wrong, 405, "method-not-allowed")
    assert wrong.headers["allow"] == "GET, POST"


def test_every_address_knows_its_methods_and_no_others(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"] | {
        "/": {"get": {}},
        "/edits": {"post": {}},
        "/docs": {"get": {}},
    }
    for path, operations in paths.items():
        address = re.sub(r"{\w+}", "x", path)
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            if method.lower() in operations:
                continue
            answer = client.request(method, address)
            if method == "HEAD":
                assert (answer.status_code == 405) != ("HEAD" in client.put(address).headers["allow"])
                continue
            problem = refused(answer, 405, "method-not-allowed")
            known = set(answer.headers["allow"].split(", ")) - {"HEAD"}
            assert known == {operation.upper() for operation in operations}
            assert method in problem["detail"]


NOWHERE = "/v1/edits/edit_" + "0" * 32
ODD_ADDRESSES: list[tuple[str, str]] = [
    ("GET", "/v1/edits/"),
    ("POST", "/v1/edits/"),
    ("GET", "/v1/edits/%00"),
    ("GET", "/v1/edits/%2e%2e"),
    ("GET", "/v1/edits/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
    ("GET", "/v1/edits/%ff%fe"),
    ("GET", "/v1/edits/%zz"),
    ("GET", "/v1/edits/%0d%0aSet-Cookie:%20a=b"),
    ("GET", "/v1/edits/edit_" + "A" * 32),
    ("GET", "/v1/edits/edit_" + "0" * 32 + "%0a"),
    ("GET", "/v1/edits/" + "a" * 50_000),
    ("GET", NOWHERE),
    ("DELETE", NOWHERE),
    ("POST", NOWHERE + "/cancel"),
    ("POST", NOWHERE + "/redeliver"),
    ("GET", NOWHERE + "/deliveries"),
    ("GET", NOWHERE + "/events"),
    ("GET", NOWHERE + "/files/input.png"),
    ("GET", NOWHERE + "/files/..%2f..%2frecord"),
    ("GET", "/docs/../v1"),
    ("GET", "/v1/%65dits/"),
]


@pytest.mark.parametrize(("method", "path"), ODD_ADDRESSES, ids=[f"{m} {p[:60]}" for m, p in ODD_ADDRESSES])
def test_there_is_nothing_at_an_odd_address(client: httpx.Client, stored: Stored, method: str, path: str) -> None:
    before = stored()
    refused(client.request(method, path), 404, "not-found")
    assert stored() == before


ODD_QUERIES: list[tuple[str, str]] = [
    ("limit=abc", "/query/limit"),
    ("limit=0", "/query/limit"),
    ("limit=101", "/query/limit"),
    ("limit=-1", "/query/limit"),
    ("limit=1e2", "/query/limit"),
    ("limit=", "/query/limit"),
    ("limit=" + "9" * 5000, "/query/limit"),
    ("status=gone", "/query/status/0"),
    ("status=queued&status=", "/query/status/1"),
    ("cursor=nonsense", "/cursor"),
    ("cursor=%00", "/cursor"),
    ("cursor=%ff%fe", "/cursor"),
    ("cursor=" + "a" * 50_000, "/cursor"),
]


@pytest.mark.parametrize(("query", "pointer"), ODD_QUERIES, ids=[query[:40] for query, _ in ODD_QUERIES])
def test_an_odd_query_is_refused(client: httpx.Client, stored: Stored, query: str, pointer: str) -> None:
    before = stored()
    problem = refused(client.get(f"/v1/edits?{query}"), 422, "invalid-parameter")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert stored() == before


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Range", "bytes=abc", 200),
        ("Range", "bytes=0-0,2-3", 206),
        ("Range", "bytes=5-1", 200),
        ("Range", "bytes=-", 200),
        ("Range", "bytes=" + "0-0," * 500 + "0-0", 200),
        ("Range", "bytes=999999-", 416),
        ("Range", "bytes=" + "9" * 5000 + "-", 200),
        ("Range", "lines=1-2", 200),
        ("Range", "\xff", 200),
        ("If-Range", "nonsense", 200),
        ("If-None-Match", 'W/"nonsense"', 200),
        ("If-None-Match", '"' * 1001, 200),
        ("If-None-Match", "*", 304),
        ("If-Modified-Since", "yesterday", 200),
        ("Accept", "text/html;q=abc", 200),
    ],
)
def test_odd_conditions_are_ignored_or_refused(
    client: httpx.Client,
    repository: EditRepository,
    served_blobs: BlobStore,
    stored: Stored,
    name: str,
    value: str,
    status: int,
) -> None:
    edit = client.post("/v1/edits", files={"image": PNG}, data=ONE).json()
    run_edit(FakeEngine(), repository, served_blobs, edit["id"])
    before = stored()
    answer = client.get(f"{edit['urls']['self']}/files/result.png", headers={name: value.encode("latin-1")})
    assert answer.status_code == status
    if status == 416:
        refused(answer, 416, "range-not-satisfiable")
    assert stored() == before


@pytest.mark.parametrize("last", [b"", b"nonsense", b"0-0-0", b"9" * 5000 + b"-1", b"\xff\xfe", b"-1", b"$", b"*"])
def test_an_odd_last_event_id_begins_the_stream_anew(client: httpx.Client, last: bytes) -> None:
    edit = client.post("/v1/edits", files={"image": PNG}, data=ONE).json()["urls"]
    client.post(edit["cancel"])
    answer = client.get(edit["events"], headers={"Last-Event-ID": last})
    assert answer.status_code == 200
    assert answer.text.startswith("event: status\n")
