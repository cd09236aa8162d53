"""Tagged documents as they come (kafka-python; for programs and the command line). Belongs to no consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any, Final, Literal

from el4ner.errors import El4nerError, MessageError
from el4ner.serialize import tagged_from_json
from el4ner.types import TaggedDocument
from workers.config import StreamSettings
from workers.kafka.topic_reader import reading, records_between
from workers.messages.envelope import decode
from workers.messages.headers import parse_traceparent
from workers.messages.result_reading import ResultReading
from workers.topics import Topic, topic_name

__all__ = ["TailError", "TailedDocument", "end_offsets", "tagged_at", "tagged_until_now", "tail_documents"]

_POLL_MS: Final = 200


class TailError(El4nerError):
    """The broker cannot be reached, or the topic is not there."""

    code = "tail"


@dataclass(frozen=True, slots=True)
class TailedDocument:
    """A message of ``tagged-documents``. ``value`` is valid by its schema."""

    value: Mapping[str, Any]
    partition: int
    offset: int
    timestamp_ms: int
    trace_id: str | None

    @property
    def status(self) -> str:
        """``complete``, ``partial`` or ``failed``."""
        return str(self.value["status"])

    @property
    def document(self) -> TaggedDocument | None:
        """The document with its entities; None if it failed."""
        if self.value["text"] is None or self.value["pool"] is None:
            return None
        return tagged_from_json(self.value)


def end_offsets(settings: StreamSettings) -> dict[int, int]:
    """Where ``tagged-documents`` ends now: to read, later, what comes from now on.

    Raises:
        TailError: no broker, or no topic.
    """
    with _consumer(settings) as (consumer, partitions):
        return {tp.partition: offset for tp, offset in consumer.end_offsets(partitions).items()}


def tail_documents(
    settings: StreamSettings,
    *,
    start: Literal["latest", "earliest"] | Mapping[int, int] = "latest",
    count: int | None = None,
    seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    unreadable: Callable[[MessageError], None] | None = None,
) -> Iterator[TailedDocument]:
    """Yield tagged documents from ``start`` on: until ``count`` of them, ``seconds`` have passed, or ``stop()``.

    ``start`` may be offsets by partition, as :func:`end_offsets` gives. A message that breaks the schema is passed
    over, and given to ``unreadable``.

    Raises:
        TailError: no broker, or no topic.
        RegistryAwayError: a value is framed by a schema registry, which does not say what its schema is.
    """
    end = None if seconds is None else time.monotonic() + seconds
    left = count
    with _consumer(settings) as (consumer, partitions), _reading(settings) as results:
        consumer.assign(partitions)
        if start == "latest":
            consumer.seek_to_end(*partitions)
        elif start == "earliest":
            consumer.seek_to_beginning(*partitions)
        else:
            for tp in partitions:
                consumer.seek(tp, start.get(tp.partition, 0))
        # Seeking is lazy: without this, "latest" would be the end as it is at the first poll.
        for tp in partitions:
            consumer.position(tp)
        while not stop() and (left is None or left > 0) and (end is None or time.monotonic() < end):
            for records in consumer.poll(timeout_ms=_POLL_MS).values():
                for record in records:
                    tailed = _tailed(record, results, unreadable)
                    if tailed is None:
                        continue
                    yield tailed
                    if left is not None:
                        left -= 1
                        if left == 0:
                            return


def tagged_until_now(
    settings: StreamSettings,
    *,
    unreadable: Callable[[MessageError], None] | None = None,
    deleted: Callable[[str], None] | None = None,
) -> Iterator[TailedDocument]:
    """Every tagged document that is there when this is called. Offsets do not tell how many: transactions take some.
    ``deleted`` is given the id of a document that was deleted, when that is read: it may have been yielded before.

    Raises:
        TailError: no broker, or no topic.
        RegistryAwayError: as of :func:`tail_documents`.
    """
    with _consumer(settings) as (consumer, partitions), _reading(settings) as results:
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        for record in records_between(settings.kafka, consumer, begins, ends, TailError):
            if record.value is None and record.key is not None and deleted is not None:
                deleted(record.key.decode("utf-8", "replace"))
            elif (tailed := _tailed(record, results, unreadable)) is not None:
                yield tailed


def tagged_at(settings: StreamSettings, places: Iterable[tuple[int, int]]) -> Iterator[TailedDocument]:
    """The tagged documents at these partitions and offsets, in their order, as far as they are still there.

    Raises:
        TailError: no broker, or no topic.
        RegistryAwayError: as of :func:`tail_documents`.
    """
    with _consumer(settings) as (consumer, partitions), _reading(settings) as results:
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        known = {tp.partition: tp for tp in partitions}
        for number, offset in places:
            tp = known.get(number)
            if tp is None or not begins[tp] <= offset < ends[tp]:
                continue
            # One that was deleted by its key is gone, and the next one is another document.
            for record in records_between(settings.kafka, consumer, {tp: offset}, {tp: offset + 1}, TailError):
                if record.offset == offset and (tailed := _tailed(record, results, None)) is not None:
                    yield tailed


def _tailed(
    record: Any, results: ResultReading, unreadable: Callable[[MessageError], None] | None
) -> TailedDocument | None:
    if record.value is None:
        return None
    try:
        value = decode(Topic.TAGGED_DOCUMENTS, results.json(record.value))
    except MessageError as error:
        if unreadable is not None:
            unreadable(error)
        return None
    trace = parse_traceparent(record.headers or ())
    return TailedDocument(
        value, record.partition, record.offset, record.timestamp, None if trace is None else trace.trace_id
    )


def _reading(settings: StreamSettings) -> AbstractContextManager[ResultReading]:
    return closing(ResultReading(settings.kafka, Topic.TAGGED_DOCUMENTS))


def _consumer(settings: StreamSettings) -> AbstractContextManager[tuple[Any, list[Any]]]:
    name = topic_name(settings.kafka, Topic.TAGGED_DOCUMENTS)
    return reading(settings.kafka, name, TailError, client_id="el4ner-tail")
