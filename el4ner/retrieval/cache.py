"""The seam to a cache of retrieval results. Redis is one driver (:mod:`workers.shared_cache`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = ["RetrievalCache"]


class RetrievalCache(Protocol):
    """Bytes by key. It may forget at any time and never raises: a cache that is away only misses."""

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none."""

    def set_many(self, items: Mapping[str, bytes]) -> None:
        """Keep the items, if it can."""
