"""Which Redis and which store belong together: both carry the same id.

Files that Redis does not know are removed (`worker.sweeper`). A Redis that was flushed, or that a mistyped address
names, knows none of them: with another id than the store's, or with none, nothing is removed.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from contextlib import closing

from obstore.exceptions import BaseError as StoreError
from redis import Redis

from jobs.blobs import BlobStore
from jobs.connection import RedisError, connect
from jobs.object_store import StoreSettingError
from jobs.redis_server import RedisUnavailableError, running_redis
from jobs.repository import EditRepository
from jobs.settings import Settings

DEPLOYMENT = "foi:deployment"
BATCH = 1000
ADOPT = "python -m jobs.deployment adopt"


class ForeignStoreError(Exception):
    """The store belongs to another Redis, as far as can be seen; the message says what to do."""


_HELP = (
    "no files are removed. Is it the right Redis (REDIS_URL) and the right store (FOI_STORE)? If Redis is new on "
    f"purpose, run `{ADOPT}`: the files of all edits that it does not know are removed then"
)


def check(repository: EditRepository, blobs: BlobStore) -> None:
    """Raises ForeignStoreError unless Redis and the store carry the same id.

    A store without an id gets that of Redis where nothing can be lost by it: the store holds no edits, or Redis knows
    one of those that it holds (a deployment from before there were ids).
    """
    redis, stored = repository.redis, blobs.deployment()
    if stored is None:
        if not _knows_any(repository, edit_ids := blobs.edit_ids()):
            raise ForeignStoreError(f"the store holds {len(edit_ids)} edits, and Redis knows none of them; {_HELP}")
        redis.set(DEPLOYMENT, uuid.uuid4().hex, nx=True)  # of several processes one is the first
        blobs.put_deployment(str(redis.get(DEPLOYMENT)))
    elif (known := redis.get(DEPLOYMENT)) != stored:
        raise ForeignStoreError(f"the store belongs to deployment {stored}, Redis to {known or None!r}; {_HELP}")


def adopt(redis: Redis, blobs: BlobStore) -> str:
    """From now on this Redis and this store belong together, and to no others. Returns their new id."""
    new = uuid.uuid4().hex
    redis.set(DEPLOYMENT, new)
    blobs.put_deployment(new)
    return new


def _knows_any(repository: EditRepository, edit_ids: list[str]) -> bool:
    """Whether Redis remembers one of the edits, or there are none."""
    batches = (edit_ids[i : i + BATCH] for i in range(0, len(edit_ids), BATCH))
    return not edit_ids or any(repository.remembers_any(batch) for batch in batches)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.deployment", description="Pairs Redis with the store.")
    parser.add_argument("command", choices=["adopt"], help="the files of edits that Redis does not know are removed")
    parser.parse_args()
    settings = Settings()
    try:
        blobs = BlobStore.of(settings)
        with running_redis(settings) as server, closing(connect(server.url, decode=True)) as redis:
            new = adopt(redis, blobs)
    except (RedisUnavailableError, StoreSettingError) as error:
        print(f"foi: {error}", file=sys.stderr)
        return 1
    except (RedisError, StoreError, OSError) as error:
        print(f"foi: Redis or the store does not answer: {error}", file=sys.stderr)
        return 1
    print(f"Redis and the store are deployment {new} now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
