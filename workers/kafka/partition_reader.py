"""Reading what is committed of one partition, from its beginning to its end as it is now (aiokafka)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from workers import security
from workers.config import KafkaSettings

__all__ = ["committed_records"]


async def committed_records(settings: KafkaSettings, name: str, partition: int) -> AsyncIterator[Any]:
    """The records, in their order. Call it when nobody else can write to the partition any more."""
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 * settings.max_message_bytes,
        request_timeout_ms=int(settings.request_timeout_seconds * 1000),
        bootstrap_servers=settings.servers,
        **security.kafka_options(settings),
    )
    place = TopicPartition(name, partition)
    await consumer.start()
    try:
        # Without a subscription the client knows no topic until it is told which to ask for.
        await consumer._client.set_topics([name])
        consumer.assign([place])
        (beginning,) = (await consumer.beginning_offsets([place])).values()
        (end,) = (await consumer.end_offsets([place])).values()
        consumer.seek(place, beginning)
        # The position, not the last record: it also passes over what transactions leave behind.
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(place, timeout_ms=500)).values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()
