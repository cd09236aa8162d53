"""The topic ``pool-examples`` for who follows it: from its beginning, and on (kafka-python)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from workers.config import KafkaSettings
from workers.kafka.followed_topics import FollowedRecords, followed_records
from workers.teaching.taught_examples import ExampleRecord
from workers.topics import MOST_EXAMPLE_BYTES, Topic

__all__ = ["FollowedExamples", "followed_examples"]

_CLIENT: Final = "el4ner-teaching"


class FollowedExamples:
    """The topic from its beginning, and on: in no group, since every process reads all of it."""

    def __init__(self, records: FollowedRecords) -> None:
        self._records = records

    @property
    def is_read(self) -> bool:
        """Whether everything is read that was there when this was made."""
        return self._records.is_read

    def poll(self, milliseconds: int) -> list[ExampleRecord]:
        """What has come; waits so long for something."""
        return [_record(record) for record in self._records.poll(milliseconds)]


@contextmanager
def followed_examples(settings: KafkaSettings) -> Iterator[FollowedExamples]:
    """Raises as :func:`workers.kafka.followed_topics.followed_records` does."""
    topics = [Topic.POOL_EXAMPLES]
    with followed_records(settings, topics, client_id=_CLIENT, fetch_bytes=8 * MOST_EXAMPLE_BYTES) as records:
        yield FollowedExamples(records)


def _record(record: Any) -> ExampleRecord:
    return ExampleRecord(record.key, record.value, record.partition, record.offset, record.timestamp)
