"""Idempotency keys: the same request sent twice makes one edit (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import hashlib

from redis import Redis

from jobs.repository import Claim, EditRepository, tombstone_key

KEPT_S = 86_400
IN_FLIGHT_S = 15
"""A claim whose request died before its edit was there is free again after so long. One whose request only took longer
still makes its edit, unless another request has the key by then."""

# Never the key of an edit that is there, though its request failed: the answer that it is there may have been lost.
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('EXISTS', KEYS[2]) == 0 then redis.call('DEL', KEYS[1]) end
"""


class InFlight(Exception):
    """A request with this key is being answered right now."""


class Mismatch(Exception):
    """The key was used for another request."""


class IdempotencyKeys:
    def __init__(self, repository: EditRepository) -> None:
        self._redis: Redis = repository.redis
        self._repository = repository
        self._release = self._redis.register_script(_RELEASE)

    def claim(self, owner: str, key: str, fingerprint: str, edit_id: str) -> Claim | str:
        """The claim for the new edit `edit_id`, or the id of the edit that the same request made before.

        `fingerprint` stands for everything in the request that makes a difference. Raises InFlight and Mismatch.
        """
        name = f"foi:idempotency:{owner}:{hashlib.sha256(key.encode()).hexdigest()}"
        value = f"{fingerprint} {edit_id}"
        while not self._redis.set(name, value, nx=True, ex=IN_FLIGHT_S):
            earlier = self._redis.get(name)
            if earlier is None:
                continue  # it was given back in between
            if earlier == value:
                break  # ours: the answer to the first try was lost
            fingerprint_before, edit_id_before = str(earlier).split(" ")
            if fingerprint_before != fingerprint:
                raise Mismatch
            if self._repository.past_owner(edit_id_before) is None:
                raise InFlight
            return edit_id_before
        return Claim(name, value, KEPT_S)

    def release(self, claim: Claim) -> None:
        """For a request that made no edit."""
        edit_id = claim.value.split(" ")[1]
        self._release(keys=[claim.key, tombstone_key(edit_id)], args=[claim.value])
