"""Settings come from the environment and describe themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.settings import Settings, markdown_table


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FOI_{name.upper()}", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)


def test_defaults_listen_on_this_machine_only() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.data_dir, settings.redis_url) == (
        "127.0.0.1",
        8000,
        Path("data"),
        None,
    )


@pytest.mark.parametrize("name", ["REDIS_URL", "FOI_REDIS_URL"])
def test_the_redis_url_is_found_with_and_without_prefix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "redis://somewhere")
    assert Settings().redis_url == "redis://somewhere"


def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    assert Settings().redis_url is None


def test_a_value_out_of_range_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOI_PORT", "99999")
    with pytest.raises(ValidationError, match="port"):
        Settings()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_documented_table_is_the_one_of_the_code() -> None:
    assert markdown_table() in Path("docs/settings.md").read_text()
