"""What workers and the service ask about pools that have yet to be read."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from typing import Final, Protocol

__all__ = ["ALL_READ", "UnreadPools"]


class UnreadPools(Protocol):
    """:class:`workers.stages.pool_reader.PoolReader`. From any thread."""

    @property
    def unread(self) -> Collection[str]:
        """The pools that have yet to be read: once a pool is not among them, it is ready for good."""

    @property
    def slice_seconds(self) -> float | None:
        """For how long the models have read the current slice of a pool; None: they read none."""

    @property
    def idle_seconds(self) -> float:
        """How long ago the last slice was read."""

    def need(self, name: str) -> Future[None]:
        """A document of this pool, which is unread, has come. The future ends when the pool is ready, or with what
        keeps it from being read."""


class _AllRead:
    unread: Collection[str] = ()
    slice_seconds: float | None = None
    idle_seconds = 0.0

    def need(self, name: str) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(None)
        return done


ALL_READ: Final[UnreadPools] = _AllRead()
"""There are none."""
