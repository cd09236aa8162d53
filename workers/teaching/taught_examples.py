"""What the messages of ``pool-examples`` come to: of each pool and text the last one counts. No Kafka in here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from el4ner.errors import MessageError
from el4ner.pools.examples import PoolExample
from workers.messages.pool_examples import ExampleKey, read_example

__all__ = ["ExampleRecord", "TaughtExamples"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExampleRecord:
    """A message as it lies in the topic. ``timestamp_ms`` -1: it has none."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp_ms: int = -1


class TaughtExamples:
    """The examples that are taught, by pool. A message that is no example changes nothing: it is counted and logged."""

    def __init__(self) -> None:
        self._by_pool: dict[str, dict[str, PoolExample]] = {}
        self.refused: Counter[str] = Counter()
        """Messages that are no examples, by the code of what is wrong with them."""

    def take_in(self, records: Iterable[ExampleRecord]) -> set[str]:
        """The names of the pools whose examples are others now."""
        changed = set()
        for record in records:
            try:
                key, example = read_example(record.key, record.value)
            except MessageError as error:
                self.refused[error.code] += 1
                log.warning(
                    "a message is no example, and is passed over: %s",
                    error,
                    extra={"code": error.code, "partition": record.partition, "offset": record.offset},
                )
                continue
            if self._put(key, example):
                changed.add(key.pool)
        return changed

    def _put(self, key: ExampleKey, example: PoolExample | None) -> bool:
        of_pool = self._by_pool.setdefault(key.pool, {})
        if example is None:
            return of_pool.pop(key.digest, None) is not None
        if of_pool.get(key.digest) == example:
            return False
        of_pool[key.digest] = example
        return True

    @property
    def pools(self) -> list[str]:
        """The names of pools that have examples."""
        return [name for name, examples in self._by_pool.items() if examples]

    def get(self, key: ExampleKey) -> PoolExample | None:
        """The example that is taught under this key."""
        return self._by_pool.get(key.pool, {}).get(key.digest)

    def of(self, pool: str) -> Sequence[PoolExample]:
        """The pool's examples, in no order."""
        return list(self._by_pool.get(pool, {}).values())
