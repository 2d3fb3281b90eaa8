"""What /docs shows is what the service does."""

from __future__ import annotations

import re

import httpx

from foi_core.spec import RANGES
from jobs.views import Edit, ProblemView
from service import examples
from service.fields import SCALARS
from service.openapi import as_yaml
from service.problems import KINDS
from tests.support import ROOT


def test_every_field_is_described_with_its_range(client: httpx.Client) -> None:
    api = client.get("/openapi.json").json()
    operation = api["paths"]["/v1/edits"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert form.keys() == SCALARS.keys() | {"image", "instruction", "instructions"}
    assert all(field["description"] for field in form.values())
    for name in RANGES.keys() - {"threshold", "intensity"}:
        assert (form[name]["minimum"], form[name]["maximum"]) == RANGES[name]
    assert form["strength"]["default"] == 0.8
    assert {"202", "200", "413", "415", "422", "503"} <= operation["responses"].keys()


def test_every_reference_in_the_description_leads_somewhere(client: httpx.Client) -> None:
    text = client.get("/openapi.json").text
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= schemas.keys()
    assert {"Edit", "ProblemView"} <= names


def test_the_committed_description_is_the_one_of_the_code() -> None:
    assert (ROOT / "openapi.yaml").read_text() == as_yaml(), "run `make openapi`"


def test_every_example_obeys_its_schema() -> None:
    for example in (examples.queued(), examples.succeeded()):
        assert Edit.model_validate(example).model_dump(mode="json") == example
    for slug in KINDS:
        assert ProblemView.model_validate(examples.problem(slug)).type == f"/problems/{slug}"


def test_the_documentation_is_served_without_another_host(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert addresses
    assert all(client.get(address).status_code == 200 for address in addresses if address.startswith("/"))
    assert not [address for address in addresses if not address.startswith("/")]
