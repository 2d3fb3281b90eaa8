"""API keys: made, listed and revoked by `foi keys` or `python -m jobs.keys`; of each only a hash is stored."""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import re
import secrets
import string
import sys
import zlib
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict
from redis import Redis

from jobs.connection import RedisError, connect
from jobs.records import now
from jobs.redis_server import RedisUnavailableError, running_redis
from jobs.settings import Settings
from jobs.webhooks import WebhookSecrets

Role = Literal["submit", "read", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
DEFAULT_ROLES: tuple[Role, ...] = ("submit", "read")
KEYS = "foi:keys"
"""Redis hash: the key's digest -> ApiKey."""
MAX_NAME = 100

_PREFIX = "foi_"
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_DIGITS = 43  # 62^43 > 2^256
_CHECKSUM_DIGITS = 6  # 62^6 > 2^32
_TOKEN = re.compile(rf"{_PREFIX}[0-9A-Za-z]{{{_RANDOM_DIGITS + _CHECKSUM_DIGITS}}}")


class UnknownKeyError(Exception):
    """No API key has this id."""


class AuthUndecidedError(Exception):
    """The service would be open to everyone, and nobody has said that it may be."""


class ApiKey(BaseModel):
    """What is known of a key; the token itself is not. Its edits belong to `owner`: to its own id, or to that of an
    earlier key. `admin` may do everything, with everyone's edits."""

    model_config = ConfigDict(frozen=True)

    id: str
    owner: str
    name: str
    roles: tuple[Role, ...]
    created_at: datetime
    last_four: str
    revoked_at: datetime | None = None

    def allows(self, role: Role) -> bool:
        return role in self.roles or self.admin

    @property
    def admin(self) -> bool:
        return "admin" in self.roles


class ApiKeys:
    """Needs a client that decodes (`connect(url, decode=True)`)."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def create(
        self, name: str, roles: tuple[Role, ...] = DEFAULT_ROLES, owner: str | None = None
    ) -> tuple[str, ApiKey]:
        """The token, which is never to be seen again, and what is stored instead of it."""
        token, key_id = _new_token(), f"key_{secrets.token_hex(6)}"
        key = ApiKey(id=key_id, owner=owner or key_id, name=name, roles=roles, created_at=now(), last_four=token[-4:])
        self._redis.hset(KEYS, _hash(token), key.model_dump_json())
        return token, key

    def all(self) -> list[ApiKey]:
        """The oldest first, the revoked ones too."""
        return sorted(self._by_digest().values(), key=lambda key: key.created_at)

    def get(self, key_id: str) -> ApiKey:
        """Raises UnknownKeyError."""
        return self._find(key_id)[1]

    def revoke(self, key_id: str) -> None:
        """For good; fine when it was revoked before. Raises UnknownKeyError."""
        digest, key = self._find(key_id)
        if key.revoked_at is None:
            self._redis.hset(KEYS, digest, key.model_copy(update={"revoked_at": now()}).model_dump_json())

    def _find(self, key_id: str) -> tuple[str, ApiKey]:
        for digest, key in self._by_digest().items():
            if key.id == key_id:
                return digest, key
        raise UnknownKeyError(f"there is no API key {key_id!r}; see `python -m jobs.keys list`")

    def _by_digest(self) -> dict[str, ApiKey]:
        found: Any = self._redis.hgetall(KEYS)
        return {digest: ApiKey.model_validate_json(text) for digest, text in found.items()}


def keys_on(settings: Settings) -> bool:
    """Whether callers need a key. Raises AuthUndecidedError where others than this machine could call without one."""
    if settings.auth == "auto" and not _is_loopback(settings.host):
        raise AuthUndecidedError(
            f"not listening on {settings.host}: whoever reaches it could use the service. Set FOI_AUTH=keys and make "
            "keys (python -m jobs.keys create NAME), or FOI_AUTH=off if something in front of it lets nobody else in"
        )
    return settings.auth == "keys"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def digest_of(token: str) -> str | None:
    """The name under which the token's key is stored, if there is one; None for what is no token, typing errors
    included. Since only hashes are compared, no time that this takes tells anything of a token."""
    if not _TOKEN.fullmatch(token):
        return None
    body, checksum = token[:-_CHECKSUM_DIGITS], token[-_CHECKSUM_DIGITS:]
    return _hash(token) if _checksum(body) == checksum else None


def _new_token() -> str:
    """GitHub's scheme: a prefix that scanners for leaked secrets find, and a checksum that spares a look-up."""
    body = _PREFIX + _base62(secrets.randbits(256), _RANDOM_DIGITS)
    return body + _checksum(body)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECKSUM_DIGITS)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _base62(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text


def run(arguments: Sequence[str], program: str) -> None:
    """One command, as `program` got it. Raises SystemExit for a wrong one, RedisUnavailableError, RedisError and
    UnknownKeyError."""
    given = _parser(program).parse_args(arguments)
    with running_redis(Settings()) as server, closing(connect(server.url, decode=True)) as redis:
        given.run(redis, given)


def main() -> int:
    try:
        run(sys.argv[1:], "python -m jobs.keys")
    except (RedisUnavailableError, UnknownKeyError) as error:
        print(f"foi: {error}", file=sys.stderr)
        return 1
    except RedisError as error:
        print(f"foi: Redis does not answer: {error}", file=sys.stderr)
        return 1
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description="API keys and webhook signing secrets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    create = commands.add_parser("create", help="make a key; it is shown once")
    create.add_argument("name", type=_name, help="who or what it is for")
    create.add_argument(
        "--role",
        action="append",
        choices=ROLES,
        help="what it may do, may be given several times (default: submit and read); admin: everything, for all keys",
    )
    create.add_argument("--owner", default="", help="the id of an earlier key whose edits are to be this one's too")
    create.set_defaults(run=_create)

    commands.add_parser("list", help="show all keys, the revoked ones too").set_defaults(run=_list)

    revoke = commands.add_parser("revoke", help="refuse a key from now on, its open event streams included")
    revoke.add_argument("id", help="the key's id, as `list` shows it")
    revoke.set_defaults(run=_revoke)

    for command, run, text in (
        ("webhook-secret", _webhook_secret, "show the secret that signs webhooks"),
        ("rotate-webhook-secret", _rotate_webhook_secret, "make a new one; the one before goes on signing beside it"),
    ):
        secret = commands.add_parser(command, help=text)
        secret.add_argument("--owner", default="", help="the id of the API key whose edits they tell of")
        secret.set_defaults(run=run)
    return parser


def _name(text: str) -> str:
    if not 1 <= len(text) <= MAX_NAME or not text.isprintable() or text.isspace():
        raise argparse.ArgumentTypeError(f"a name has 1 to {MAX_NAME} printable characters")
    return text


def _create(redis: Redis, arguments: argparse.Namespace) -> None:
    roles = tuple(dict.fromkeys(arguments.role or DEFAULT_ROLES))
    token, key = ApiKeys(redis).create(arguments.name, roles, _owner(redis, arguments))
    print(token)
    print(f"{key.id} may {', '.join(key.roles)}. Keep the key: it is not shown again.", file=sys.stderr)


def _list(redis: Redis, _: argparse.Namespace) -> None:
    rows = [("ID", "OWNER", "NAME", "ROLES", "CREATED", "ENDS IN", "REVOKED")]
    for key in ApiKeys(redis).all():
        revoked = _shown(key.revoked_at) if key.revoked_at else ""
        rows.append((key.id, key.owner, key.name, ",".join(key.roles), _shown(key.created_at), key.last_four, revoked))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%SZ}"


def _revoke(redis: Redis, arguments: argparse.Namespace) -> None:
    ApiKeys(redis).revoke(arguments.id)
    print(f"{arguments.id} is revoked")


def _webhook_secret(redis: Redis, arguments: argparse.Namespace) -> None:
    print(WebhookSecrets(redis).current(_owner(redis, arguments))[0])


def _rotate_webhook_secret(redis: Redis, arguments: argparse.Namespace) -> None:
    print(WebhookSecrets(redis).rotate(_owner(redis, arguments)))


def _owner(redis: Redis, arguments: argparse.Namespace) -> str:
    """To whom the edits of that key belong; empty where none is named. Raises UnknownKeyError."""
    return ApiKeys(redis).get(arguments.owner).owner if arguments.owner else ""


if __name__ == "__main__":
    sys.exit(main())
