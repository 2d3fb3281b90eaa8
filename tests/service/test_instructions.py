"""How a text is read, without a picture."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.service.test_bad_input import refused


def read(client: httpx.Client, data: dict[str, Any]) -> list[tuple[str, str | None]]:
    parts = {name: (None, value) for name, value in data.items()}
    answer = client.post("/v1/instructions", files=parts)
    assert answer.status_code == 200, answer.text
    return [(part["text"], part["keyword"]) for part in answer.json()["instructions"]]


def test_one_text_is_split_and_each_part_has_its_keyword(client: httpx.Client) -> None:
    found = read(client, {"instruction": "make the hat black and turn the grass into sand"})
    assert found == [("make the hat black", "hat"), ("turn the grass into sand", "grass")]


def test_listed_instructions_stay_whole_and_keep_their_keyword(client: httpx.Client) -> None:
    listed = [{"text": "make the hat black and the coat red", "keyword": "coat"}, {"text": "make it nicer"}]
    found = read(client, {"instructions": json.dumps(listed)})
    assert found == [("make the hat black and the coat red", "coat"), ("make it nicer", None)]


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({"instruction": " "}, "/instruction"),
        ({"instruction": "x, the a b" * 401}, "/instruction"),
        ({"instruction": "make it red", "seed": "7"}, "/seed"),
        ({"instructions": '[{"text": "make it red", "keyword": "hat"}]'}, "/instructions/0/keyword"),
        ({"instructions": json.dumps([{"text": "make it red"}] * 9)}, "/instructions"),
    ],
)
def test_what_an_edit_would_refuse_is_refused(client: httpx.Client, data: dict[str, str], pointer: str) -> None:
    parts = {name: (None, value) for name, value in data.items()}
    answer = client.post("/v1/instructions", files=parts)
    assert pointer in {error["pointer"] for error in refused(answer, 422, "invalid-parameter")["errors"]}


def test_nothing_is_stored(client: httpx.Client, stored: Any) -> None:
    before = stored()
    read(client, {"instruction": "make the hat black"})
    assert stored() == before
