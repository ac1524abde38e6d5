"""How much one caller may do: tokens that grow back, and places that are given back."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_apps.gateway.key_ring import Key
from serve_apps.gateway.refusals import RateLimitedError

GUESSES_PER_MINUTE = 10
"""Wrong keys from one address; further ones are refused without being told from right ones in the reply's status."""
_MOST_ADDRESSES = 10_000


class TokenBucket:
    """``per_minute`` tokens grow back in a minute; at most so many are there at once."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self._clock = per_minute, clock
        self._tokens, self._at = float(per_minute), clock()

    def take(self) -> float:
        """0 if a token was there and is taken, else the seconds until there is one."""
        now = self._clock()
        self._tokens = min(float(self.per_minute), self._tokens + (now - self._at) * self.per_minute / 60)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) * 60 / self.per_minute


class KeyBudgets:
    """The limits of keys, counted in this gateway. For use in one event loop."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}
        self._busy: dict[str, int] = {}

    @contextmanager
    def request(self, key: Key) -> Iterator[None]:
        """One request of that key is under way. Raises RateLimitedError."""
        busy = self._busy.get(key.name, 0)
        if key.at_once is not None and busy >= key.at_once:
            raise RateLimitedError(f"this key may have {key.at_once} requests under way; wait for one to end")
        if key.per_minute is not None:
            bucket = self._buckets.get(key.name)
            if bucket is None or bucket.per_minute != key.per_minute:
                bucket = self._buckets[key.name] = TokenBucket(key.per_minute)
            if wait := bucket.take():
                raise RateLimitedError(f"this key may make {key.per_minute} requests a minute", retry_after=wait)
        self._busy[key.name] = busy + 1
        try:
            yield
        finally:
            self._busy[key.name] -= 1
            if not self._busy[key.name]:
                del self._busy[key.name]


class Guesses:
    """Wrong keys, counted by the address that they come from."""

    def __init__(self, per_minute: int = GUESSES_PER_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wrong(self, address: str) -> None:
        """Another one. Raises RateLimitedError when there were too many."""
        bucket = self._buckets.pop(address, None) or TokenBucket(self._per_minute, self._clock)
        self._buckets[address] = bucket
        while len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        if wait := bucket.take():
            raise RateLimitedError("too many wrong keys from your address", retry_after=wait)
