"""Plain InstructPix2Pix has no regions: fields that only regions obey are refused, not dropped."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.service.test_bad_input import refused
from tests.support import encoded, picture


@pytest.mark.parametrize(("name", "value"), [("mask", "m"), ("keyword", "ball"), ("intensity", 2)])
def test_what_only_regions_obey_is_refused(client: httpx.Client, name: str, value: object) -> None:
    part = {"text": "make the ball red", name: value}
    files = {"image": encoded(picture())} | ({"m": encoded(picture(mode="L"))} if name == "mask" else {})
    answer = client.post("/v1/edits", files=files, data={"instructions": json.dumps([part]), "method": "ip2p"})
    problem = refused(answer, 422, "invalid-parameter")
    assert problem["errors"][0]["pointer"] == f"/instructions/0/{name}"


def test_an_intensity_of_one_changes_nothing_and_is_fine(client: httpx.Client) -> None:
    part = {"text": "make the ball red", "intensity": 1}
    data = {"instructions": json.dumps([part]), "method": "ip2p"}
    assert client.post("/v1/edits", files={"image": encoded(picture())}, data=data).status_code == 202


@pytest.mark.parametrize("name", ["threshold", "mask_at", "modulation_end", "disentangle_end"])
def test_a_number_that_only_regions_obey_is_refused(client: httpx.Client, name: str) -> None:
    data = {"instruction": "make the ball red", "method": "ip2p", name: "0.5"}
    answer = client.post("/v1/edits", files={"image": encoded(picture())}, data=data)
    assert refused(answer, 422, "invalid-parameter")["errors"][0]["pointer"] == f"/{name}"
