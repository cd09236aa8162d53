"""Was it delivered? What a restarted aggregator asks the output topic about the documents it was killed over.

A document in the join's phase ``emitting`` may or may not lie in ``tagged-documents`` already. Its state says to which
partition its outcome was to go, and an offset (``floor``) that was at or before that partition's end *before* the
attempt; the attempt began only after the state was delivered. So if it was delivered, it lies at ``floor`` or behind
it, and reading from there to the end settles the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from workers.config import KafkaSettings
from workers.headers import find

__all__ = ["OutputTopic"]


class OutputTopic:
    """A look at a topic from outside any consumer group."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings = settings
        self._name = name

    async def ends(self) -> dict[int, int]:
        """Per partition the offset that the next message gets."""
        consumer = await self._consumer()
        try:
            partitions = await self._partitions(consumer)
            return {tp.partition: offset for tp, offset in (await consumer.end_offsets(partitions)).items()}
        finally:
            await consumer.stop()

    async def event_ids(self, floors: Mapping[int, int]) -> set[str]:
        """The ``ce_id`` of every message at or behind its partition's floor, up to the end as it is now."""
        consumer = await self._consumer()
        found: set[str] = set()
        try:
            partitions = [tp for tp in await self._partitions(consumer) if tp.partition in floors]
            beginnings = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            consumer.assign(partitions)
            waiting = set()
            for tp in partitions:
                start = max(floors[tp.partition], beginnings[tp])
                consumer.seek(tp, start)
                if start < ends[tp]:
                    waiting.add(tp)
            while waiting:
                batches = await consumer.getmany(*waiting, timeout_ms=1000)
                for records in batches.values():
                    found.update(_event_ids(records))
                for tp in list(waiting):
                    # The position, not the last record: it also passes over what a transaction left behind.
                    if await consumer.position(tp) >= ends[tp]:
                        waiting.discard(tp)
            return found
        finally:
            await consumer.stop()

    async def _consumer(self) -> Any:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.servers,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=2 * self._settings.max_message_bytes,
            request_timeout_ms=int(self._settings.request_timeout_seconds * 1000),
        )
        await consumer.start()
        return consumer

    async def _partitions(self, consumer: Any) -> list[Any]:
        # Without a subscription the client knows no topic until it is told which to ask for.
        await consumer._client.set_topics([self._name])
        numbers: Iterable[int] = consumer.partitions_for_topic(self._name) or ()
        partitions = [TopicPartition(self._name, number) for number in sorted(numbers)]
        if not partitions:
            raise RuntimeError(f"topic {self._name!r} is gone")
        return partitions


def _event_ids(records: Iterable[Any]) -> Iterable[str]:
    for record in records:
        event_id = find(record.headers, "ce_id")
        if event_id is not None:
            yield event_id.decode("ascii", "replace")
