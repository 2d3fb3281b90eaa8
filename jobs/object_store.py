"""Object stores by URL: S3 and what speaks it, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError as StoreError
from obstore.exceptions import PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from jobs.logs import get_logger

if TYPE_CHECKING:  # it is no more than a type
    from obstore.store import ClientConfig

RemoteStore = S3Store | GCSStore | AzureStore
SCHEMES: dict[str, tuple[Callable[..., RemoteStore], str]] = {
    "s3": (S3Store, "AWS_ALLOW_HTTP"),
    "gs": (GCSStore, "GOOGLE_ALLOW_HTTP"),
    "az": (AzureStore, "AZURE_ALLOW_HTTP"),
}
"""How each is opened, beside the variable by which an operator allows it to be spoken to without TLS."""
CONNECT_S, REQUEST_S, RETRY_S = 2, 8, 3
"""A caller waits while we wait for the store: one that is dead must show it within seconds (obstore's own: minutes)."""
RETRIES = 2
PROBE_S = 5

_URL = re.compile(r"(\w+)://([A-Za-z0-9][\w.-]*)(?:/([^?#]*))?")

log = get_logger(__name__)


class StoreSettingError(Exception):
    """The settings name no place for files that can be used; the message is for the operator."""


def open_store(url: str) -> RemoteStore:
    """`s3://bucket/prefix` and the like. Credentials, region and endpoint come from the environment, as obstore reads
    it. Talks to nobody yet. Raises StoreSettingError."""
    match = _URL.fullmatch(url)
    if match is None or match[1] not in SCHEMES:
        known = ", ".join(f"{scheme}://bucket/prefix" for scheme in SCHEMES)
        raise StoreSettingError(f"FOI_STORE={url!r} is not an address of a store; expected {known}, or nothing at all")
    scheme, bucket, prefix = match.groups()
    opener, allow_http = SCHEMES[scheme]
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "timeout": timedelta(seconds=REQUEST_S),
    }
    if os.environ.get(allow_http, "").lower() in ("1", "true", "yes", "on"):  # options given here hide the variable
        client["allow_http"] = True
    retry = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)}
    try:
        return opener(bucket, prefix=(prefix or "").strip("/") or None, client_options=client, retry_config=retry)
    except (StoreError, ValueError) as error:
        raise StoreSettingError(f"FOI_STORE={url!r}: {reason(error)}") from None


def check_setting(url: str, probe: Callable[[], None]) -> None:
    """Asks the store once. Raises StoreSettingError where it says that this will never work; a store that does not
    answer may come back, and is no reason not to start."""
    try:
        probe()
    except FileNotFoundError:
        raise StoreSettingError(f"FOI_STORE={url!r}: there is no such bucket; create it first") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StoreSettingError(
            f"FOI_STORE={url!r}: the credentials in the environment may not write there: {reason(error)}"
        ) from None
    except StoreError as error:
        if "builder error" in str(error):
            variable = SCHEMES[url.partition("://")[0]][1]
            raise StoreSettingError(f"FOI_STORE={url!r}: an endpoint with http:// needs {variable}=true") from None
        log.warning("the store does not answer yet", store=url, reason=reason(error))


def reason(error: Exception) -> str:
    """What there is to know: obstore adds pages for its own developers."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class Probe:
    """Asks at most every PROBE_S, one caller at a time; the others hear what the last one heard. Health checks come
    several times a second: they must neither be billed one by one nor pile up before a dead store."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._lock = Lock()
        self._due = 0.0
        self._error: StoreError | OSError | None = None

    def __call__(self) -> None:
        """Raises what asking raised."""
        if time.monotonic() >= self._due and self._lock.acquire(blocking=False):
            heard: StoreError | OSError | None = None
            try:
                self._ask()
            except (StoreError, OSError) as error:
                heard = error
            finally:
                self._error = heard  # only now: the others go on hearing the last answer while this one is waited for
                self._due = time.monotonic() + PROBE_S
                self._lock.release()
        if self._error is not None:
            raise self._error.with_traceback(None)
