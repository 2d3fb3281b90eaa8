"""Every setting of every process, in one place. `python -m jobs.settings` prints them as the table of the docs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_PORTS = {"http": 80, "https": 443}


class Settings(BaseSettings):
    """Read from the environment: `FOI_` and the field's name in capitals (`FOI_PORT=8080`)."""

    model_config = SettingsConfigDict(env_prefix="FOI_", env_ignore_empty=True, validate_by_name=True, extra="ignore")

    auth: Literal["auto", "keys", "off"] = Field(
        default="auto",
        description="`keys`: every call needs an API key. `off`: none does. "
        "`auto`: off on a loopback address; on any other the service does not start.",
    )
    host: str = Field(default="127.0.0.1", description="Address that the HTTP service listens on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port that the HTTP service listens on.")
    data_dir: Path = Field(default=Path("data"), description="Folder of the blob store and of the embedded Redis.")
    redis_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("FOI_REDIS_URL", "REDIS_URL"),
        description="Redis or Valkey, 6.2 or later; `REDIS_URL` works too. Empty: an embedded one in the data folder.",
    )
    store: str = Field(
        default="",
        description="Where files are kept: empty for a folder in the data folder, or `s3://bucket/prefix`, "
        "`gs://bucket/prefix`, `az://container/prefix`; credentials come from the usual variables of each.",
    )
    signed_url_s: int = Field(
        default=300, ge=1, le=604_800, description="How long an address of a file on an object store holds, in seconds."
    )
    model: str = Field(default="demo", description="`demo`, a checkpoint's folder, or its name on the model hub.")
    model_revision: str | None = Field(
        default=None,
        description="Commit, tag or branch of a model on the hub. Empty: the commit that this version pins for "
        "`timbrooks/instruct-pix2pix`, else the present one, which the log names.",
    )
    allow_pickle: bool = Field(
        default=False,
        description="Whether weights may be pickles (`.bin`) where there are no safetensors: they can run code.",
    )
    safety_checker: Literal["block", "report", "off"] = Field(
        default="block",
        description="What becomes of a result that the checkpoint's own safety checker flags. `block`: the edit fails "
        "with unsafe-result. `report`: its record says so. `off`: nothing looks.",
    )
    device: str = Field(default="auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="`auto` (float16 on CUDA, float32 on a CPU), `float32`, `float16` or `bfloat16`."
    )
    execution: Literal["auto", "eager", "graphs", "compiled"] = Field(
        default="auto",
        description="How passes of the UNet run on CUDA: `graphs` (CUDA graphs; `auto` is that), `compiled` (by "
        "torch.compile too, in the background) or `eager`. On a CPU `auto` or `eager`.",
    )
    workers: int = Field(
        default=1, ge=1, le=64, description="Worker processes that the supervisor keeps alive; one per GPU."
    )

    retention_s: int = Field(
        default=86_400, ge=60, description="How long a finished edit and its files are kept, in seconds."
    )
    max_queue: int = Field(default=1000, ge=1, description="Edits that may wait; further ones get 503 queue-full.")
    max_edits_per_key: int = Field(
        default=50, ge=1, description="Edits of one API key that may wait or run; further ones get 429 quota-exceeded."
    )
    public_url: str = Field(
        default="",
        description="Where callers reach the service, `https://edits.example.org`; addresses in webhooks begin so, and "
        "web pages of this origin may call.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose web pages may call the service, divided by commas: `https://app.example.org`. "
        "Pages of others can only read what is public.",
    )
    max_requests_per_minute: int = Field(
        default=600, ge=1, description="Requests of one API key in a minute; further ones get 429 quota-exceeded."
    )
    max_streams_per_key: int = Field(
        default=4,
        ge=1,
        description="Event streams that one API key may have open; further ones get 429 quota-exceeded.",
    )
    max_outputs: int = Field(default=8, ge=1, le=64, description="Largest `n`: outputs of one edit.")
    max_body_bytes: int = Field(default=20 * 2**20, ge=1024, description="Largest request body, in bytes.")
    max_pixels: int = Field(
        default=40_000_000,
        ge=256,
        description="Largest picture, in pixels after decoding. The HTTP service needs 12 bytes for each, once.",
    )
    upload_timeout_s: int = Field(
        default=60, ge=1, description="A body that has not arrived after so many seconds gets 408."
    )
    allow_private_urls: bool = Field(
        default=False,
        description="Whether `webhook_url` and `image_url` may name addresses that are not public, for "
        "closed networks: a caller can then reach whatever the service can.",
    )
    edit_timeout_s: int = Field(
        default=1800, ge=1, description="An edit that runs longer, in seconds, fails with deadline-exceeded."
    )
    max_in_flight: int = Field(
        default=4, ge=1, le=64, description="Edits of one worker that share a batch; fewer where memory is short."
    )
    max_deaths: int = Field(
        default=2, ge=1, description="Workers that may die under an edit before it fails with worker-lost."
    )
    hang_s: int = Field(
        default=60,
        ge=5,
        description="A worker whose networks are not heard for longer, in seconds, while it encodes, steps or decodes, "
        "is replaced; where layers are slow at the warm-up, it gets a hundred times as long as the slowest.",
    )
    drain_s: int = Field(
        default=30,
        ge=0,
        description="After SIGTERM a worker finishes its edits for so many seconds, then hands them back.",
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, given: object) -> object:
        texts = [text.strip() for text in given.split(",")] if isinstance(given, str) else given
        if not isinstance(texts, list | tuple):
            return given
        return tuple(_checked_origin(str(text)) for text in texts if text)

    telemetry: bool = Field(
        default=False, description="OpenTelemetry traces and metrics of the HTTP service, where its SDK is set up."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Log lines for people or for machines."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level that is logged."
    )


def origin_of(url: str) -> str:
    """As a browser writes it (RFC 6454): scheme, host, and the port unless it is the scheme's own. Empty for a text
    that has none."""
    try:
        parts = urlsplit(url.strip().lower())
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, _PORTS[parts.scheme]) else f":{port}")


def _checked_origin(text: str) -> str:
    origin = origin_of(text)
    if not origin or urlsplit(text).path not in ("", "/") or "?" in text or "#" in text or "@" in text:
        raise ValueError(f"{text!r} is no origin; write scheme, host and port only, as https://app.example.org")
    return origin


def markdown_table() -> str:
    """The settings as a Markdown table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", ()) else f"`{field.default}`"
        rows.append(f"| `FOI_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown_table())
