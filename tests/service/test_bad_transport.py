"""Requests as no client library would send them: bodies, headers and lengths that lie, in bytes on a socket."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from service.forms import MAX_FIELD_BYTES, MAX_FIELDS, MAX_NAME_LENGTH
from tests.service.test_bad_input import ONE, PNG, Stored, multipart, refused, text_part

pytestmark = pytest.mark.usefixtures("client")

KIND = b"multipart/form-data; boundary=b"
IMAGE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + PNG
TEXT = text_part("instruction", b"make the ball red")
GOOD = multipart(IMAGE, TEXT)


def part(disposition: bytes, value: bytes = b"x", *headers: bytes) -> bytes:
    return b"\r\n".join((b"Content-Disposition: " + disposition, *headers, b"", value))


def request(*headers: bytes, body: bytes = GOOD, kind: bytes = KIND) -> bytes:
    """A submit with these headers besides its type; its length, unless they say something about it."""
    lines = [b"POST /v1/edits HTTP/1.1", b"Host: localhost", b"Content-Type: " + kind, *headers]
    if not any(header.startswith((b"Content-Length", b"Transfer-Encoding")) for header in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(target: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join((method + b" " + target + b" HTTP/1.1", b"Host: localhost", *headers)) + b"\r\n\r\n"


class Wire:
    """One connection, and the answer that comes over it."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)

    def answer(self) -> httpx.Response:
        received = b""
        while not _is_whole(received):
            chunk = self.socket.recv(65_536)
            if not chunk:
                break
            received += chunk
        self.socket.close()
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers = [tuple(line.split(b": ", 1)) for line in lines]
        return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return bool(end and length) and len(body) >= int(length[1])


def exchange(address: str, data: bytes) -> httpx.Response:
    wire = Wire(address)
    with suppress(ConnectionError):  # the answer may come before all of it was read
        wire.socket.sendall(data)
    return wire.answer()


BAD_BODIES: dict[str, tuple[int, str, bytes]] = {
    "no part at all": (400, "malformed-body", request(body=b"--b--\r\n", kind=KIND + b"x")),
    "10,000 fields": (400, "malformed-body", request(body=multipart(IMAGE, *[TEXT] * 10_000)[:390_000])),
    "a field too many": (400, "malformed-body", request(body=multipart(IMAGE, *[TEXT] * (MAX_FIELDS + 1)))),
    "ten masks": (
        400,
        "malformed-body",
        request(body=multipart(*[part(b'form-data; name="m%d"; filename="m"' % i) for i in range(10)])),
    ),
    "an empty name": (400, "malformed-body", request(body=multipart(part(b'form-data; name=""')))),
    "an endless name": (
        400,
        "malformed-body",
        request(body=multipart(part(b'form-data; name="' + b"n" * (MAX_NAME_LENGTH + 1) + b'"'))),
    ),
    "a header of 40 kB": (
        400,
        "malformed-body",
        request(body=multipart(part(b"form-data", b"x", b"A: " + b"a" * 40_000))),
    ),
    "100 headers": (
        400,
        "malformed-body",
        request(body=multipart(part(b'form-data; name="seed"', b"1", *[b"A: a"] * 100))),
    ),
    "a header that is none": (400, "malformed-body", request(body=multipart(b"nonsense\r\n\r\nx"))),
    "no disposition": (400, "malformed-body", request(body=multipart(b"Content-Type: text/plain\r\n\r\nx"))),
    "a name in RFC 5987's way": (
        400,
        "malformed-body",
        request(body=multipart(part(b"form-data; name*=UTF-8''image"))),
    ),
    "a picture as text": (400, "malformed-body", request(body=multipart(part(b'form-data; name="image"', PNG)))),
    "a picture as long text": (
        400,
        "malformed-body",
        request(body=multipart(part(b'form-data; name="image"', b"x" * (MAX_FIELD_BYTES + 1)))),
    ),
    "text in latin-1": (400, "malformed-body", request(body=multipart(IMAGE, text_part("instruction", b"caf\xe9")))),
    "text in utf-16": (
        400,
        "malformed-body",
        request(body=multipart(IMAGE, text_part("instruction", "make it red".encode("utf-16-le")))),
    ),
    "half a surrogate": (
        400,
        "malformed-body",
        request(body=multipart(IMAGE, text_part("instruction", b"make \xed\xa0\x80 red"))),
    ),
    "overlong utf-8": (400, "malformed-body", request(body=multipart(IMAGE, text_part("instruction", b"\xc0\xafx")))),
    "a NUL": (400, "malformed-body", request(body=multipart(IMAGE, text_part("instruction", b"make\0it red")))),
    "line feeds only": (400, "malformed-body", request(body=GOOD.replace(b"\r\n", b"\n"))),
    "an empty boundary": (400, "malformed-body", request(kind=b"multipart/form-data; boundary=")),
    "a boundary of 300": (400, "malformed-body", request(kind=b"multipart/form-data; boundary=" + b"b" * 300)),
    "a boundary of bytes": (400, "malformed-body", request(kind=b"multipart/form-data; boundary=\xff\xfe")),
    "charset utf-16": (415, "unsupported-media-type", request(kind=KIND + b"; charset=utf-16")),
    "charset that is none": (415, "unsupported-media-type", request(kind=KIND + b"; charset=undefined")),
    "charset of escapes": (
        415,
        "unsupported-media-type",
        request(body=multipart(text_part("instruction", rb"\ud800")), kind=KIND + b"; charset=unicode_escape"),
    ),
    "charset of bytes": (415, "unsupported-media-type", request(kind=KIND + b"; charset=\xff")),
    "multipart/mixed": (415, "unsupported-media-type", request(kind=b"multipart/mixed; boundary=b")),
    "compressed": (415, "unsupported-media-type", request(b"Content-Encoding: gzip")),
    "a length beyond reason": (413, "payload-too-large", request(b"Content-Length: " + b"9" * 18)),
    "a name with quotes": (
        422,
        "invalid-parameter",
        request(body=multipart(IMAGE, TEXT, part(rb'form-data; name="a\"b"'))),
    ),
    "a name with a line": (
        422,
        "invalid-parameter",
        request(body=multipart(IMAGE, TEXT, part(b'form-data; name="a%0D%0Ab"'))),
    ),
    "a name with NUL": (422, "invalid-parameter", request(body=multipart(IMAGE, TEXT, part(b'form-data; name="a\0"')))),
    "a name that is a path": (
        422,
        "invalid-parameter",
        request(body=multipart(IMAGE, TEXT, part(b'form-data; name="../../etc/passwd"; filename="x"'))),
    ),
    "a name of Python": (
        422,
        "invalid-parameter",
        request(body=multipart(IMAGE, TEXT, part(b'form-data; name="__class__"'))),
    ),
    "a field of bytes": (
        422,
        "invalid-parameter",
        request(body=multipart(IMAGE, TEXT, part(b'form-data; name="\xff\xfe"'))),
    ),
    "RFC 7578's charset field": (
        422,
        "invalid-parameter",
        request(body=multipart(IMAGE, TEXT, text_part("_charset_", b"utf-16"))),
    ),
    "parts in a part": (
        415,
        "unsupported-image",
        request(
            body=multipart(
                TEXT,
                part(
                    b'form-data; name="image"; filename="a"',
                    b"--c\r\n\r\nx\r\n--c--",
                    b"Content-Type: multipart/mixed; boundary=c",
                ),
            )
        ),
    ),
    "a picture in base64": (
        415,
        "unsupported-image",
        request(
            body=multipart(
                TEXT,
                part(b'form-data; name="image"; filename="a"', b"iVBORw0KGgo=", b"Content-Transfer-Encoding: base64"),
            )
        ),
    ),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused(client: httpx.Client, address: str, stored: Stored, name: str) -> None:
    assert client.get("/livez").status_code == 200
    status, slug, data = BAD_BODIES[name]
    before = stored()
    refused(exchange(address, data), status, slug)
    assert stored() == before


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\0",
        get(b"/v1/edits /x"),
        get(b"/v1/edits/\xff"),
        get(b"/livez", b"X-Odd: a\0b"),
        request(b"Content-Length: 0"),
        request(b"Content-Length: %d" % (len(GOOD) - 20)),
        request(b"Content-Length: -5"),
        request(b"Content-Length: 5", b"Content-Length: 6"),
        request(b"Content-Length: 1e3"),
        request(b"Content-Length: \xb2"),
        request(b"Transfer-Encoding: gzip"),
        request(b"Transfer-Encoding: chunked", body=b"zz\r\nabcde\r\n0\r\n\r\n"),
        request(b"Transfer-Encoding: chunked", body=b"-1\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    ],
)
def test_what_is_no_whole_http_is_400_and_leaves_nothing(
    address: str, client: httpx.Client, stored: Stored, data: bytes
) -> None:
    before = stored()
    assert exchange(address, data).status_code == 400
    assert client.get("/livez").status_code == 200
    assert stored() == before


ODD_BUT_FINE: dict[str, bytes] = {
    "chunked": request(b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)),
    "in one-byte chunks": request(
        b"Transfer-Encoding: chunked", body=b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\n\r\n"
    ),
    "filename with a path": request(body=GOOD.replace(b"a.png", b"../../etc/passwd")),
    "filename of bytes": request(body=GOOD.replace(b"a.png", b"\xff\xfe")),
    "filename with NUL": request(body=GOOD.replace(b"a.png", b"a.png\0.exe")),
    "an empty filename": request(body=GOOD.replace(b"a.png", b"")),
    "says it is html": request(body=GOOD.replace(b'a.png"', b'a.html"\r\nContent-Type: text/html')),
    "in capitals": request(kind=b"MULTIPART/FORM-DATA; boundary=b; charset=UTF-8"),
    "something after its end": request(body=GOOD + b"and more"),
    "odd bytes in a header": request(b"X-Odd: \xff\xfe\x80"),
    "odd bytes in a key": request(b"Idempotency-Key: \xff\xfe'\"\\"),
    "odd request id": request(b"X-Request-ID: \xff<script>"),
    "many headers": request(*[b"X-%d: y" % i for i in range(90)]),
    "prefers nonsense": request(b"Prefer: wait=abc"),
    "prefers less than nothing": request(b"Prefer: wait=-5"),
    "prefers bytes": request(b"Prefer: \xff=\xfe"),
    "prefers two things": request(b"Prefer: respond-async", b"Prefer: wait=0"),
    "prefers much": request(b"Prefer: " + b"a=b, " * 2000),
    "expects something else": request(b"Expect: cake"),
}


@pytest.mark.parametrize("name", ODD_BUT_FINE)
def test_an_odd_request_makes_its_edit_and_nothing_else(address: str, stored: Stored, name: str) -> None:
    before = stored()
    answer = exchange(address, ODD_BUT_FINE[name])
    assert answer.status_code == 202, answer.text
    assert answer.json()["input"]["instructions"][0]["text"] == "make the ball red"
    assert answer.headers["x-request-id"].isalnum()
    files = [path for path in stored() - before if "=" not in path]
    assert [path.rpartition("/")[2] for path in files] == ["upload"]


@pytest.mark.parametrize("target", [b"//v1/edits", b"//example.org/", b"/v1/../v1/edits", b"/v1/edits/..", b"/*"])
def test_addresses_are_taken_as_they_are_written(address: str, stored: Stored, target: bytes) -> None:
    before = stored()
    refused(exchange(address, get(target)), 404, "not-found")
    assert stored() == before


@pytest.mark.parametrize("key", [b"", b"k" * 256], ids=["empty", "long"])
def test_a_bad_idempotency_key_is_refused(address: str, stored: Stored, key: bytes) -> None:
    before = stored()
    problem = refused(exchange(address, request(b"Idempotency-Key: " + key)), 422, "invalid-parameter")
    assert problem["errors"][0]["pointer"] == "/Idempotency-Key"
    assert stored() == before


def test_a_body_that_drips_is_given_up_at_its_deadline(address: str, stored: Stored) -> None:
    """Each byte comes soon after the one before, and yet it takes too long."""
    before, wire, begun = stored(), Wire(address), time.monotonic()
    wire.socket.sendall(request(body=GOOD)[: -len(GOOD)])

    def drip() -> None:
        with suppress(OSError):
            for byte in GOOD:
                wire.socket.sendall(bytes((byte,)))
                time.sleep(0.05)

    sender = threading.Thread(target=drip)
    sender.start()
    refused(wire.answer(), 408, "request-timeout")
    assert time.monotonic() - begun < 10
    sender.join()
    assert stored() == before


def test_a_body_whose_end_never_comes_is_given_up(address: str, stored: Stored) -> None:
    before = stored()
    refused(exchange(address, request(b"Content-Length: %d" % (len(GOOD) + 1), body=GOOD)), 408, "request-timeout")
    assert stored() == before


def test_segments_beyond_the_bodys_limit_are_not_read(client: httpx.Client, stored: Stored) -> None:
    """A JPEG whose header alone is larger than any body may be, sent without saying how large it is."""
    before = stored()

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n\xff\xd8'
        for _ in range(64):
            yield b"\xff\xe9\xff\xff" + bytes(65_533)

    refused(client.post("/v1/edits", content=body(), headers={"Content-Type": KIND.decode()}), 413, "payload-too-large")
    assert stored() == before


def test_two_requests_in_one_breath_are_two_edits(address: str, client: httpx.Client) -> None:
    """Pipelined; a length that ends inside the picture would make the rest of it a request."""
    assert client.post("/v1/edits", files={"image": PNG}, data=ONE).status_code == 202
    wire = Wire(address)
    wire.socket.sendall(request() + get(b"/livez", b"Connection: close"))
    received = io.BytesIO()
    while chunk := wire.socket.recv(65_536):
        received.write(chunk)
    wire.socket.close()
    assert re.findall(rb"HTTP/1.1 (\d+)", received.getvalue()) == [b"202", b"200"]
    assert json.loads(received.getvalue().rpartition(b"\r\n\r\n")[2]) == {"status": "alive"}
    assert len(client.get("/v1/edits").json()["data"]) == 2
