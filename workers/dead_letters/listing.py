"""Reading the dead letters that there are (kafka-python; no consumer group). Nothing changes by it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from workers.config import StreamSettings
from workers.dead_letters.letters import Coordinates, DlqError, Letter, letter_of
from workers.kafka.topic_reader import reading, records_between
from workers.topics import Topic, topic_name

__all__ = ["dead_letters", "find_letter", "find_letters", "read_letters"]


def read_letters(
    settings: StreamSettings,
    *,
    since_ms: int | None = None,
    only: Collection[Coordinates] | None = None,
    latest: int | None = None,
) -> Iterator[Letter]:
    """Every letter that is there now, in the order of each partition. ``only``: those of these that are still there.

    ``since_ms`` spares reading what was written before, ``latest`` what is further than so many from each partition's
    end.

    Raises:
        DlqError: no broker, no topic, or the broker does not answer any more.
    """
    with dead_letters(settings) as (consumer, partitions):
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        if since_ms is not None:
            first_since = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
            begins = {tp: ends[tp] if at is None else max(begins[tp], at.offset) for tp, at in first_since.items()}
        if latest is not None:
            begins = {tp: max(begins[tp], ends[tp] - latest) for tp in partitions}
        if only is not None:
            offsets = {tp: [offset for number, offset in only if number == tp.partition] for tp in partitions}
            begins = {tp: max(begins[tp], min(offsets[tp], default=ends[tp])) for tp in partitions}
            ends = {tp: min(ends[tp], max(offsets[tp], default=-1) + 1) for tp in partitions}
        for letter in _between(settings, consumer, begins, ends):
            if only is None or letter.coordinates in only:
                yield letter


def find_letter(settings: StreamSettings, coordinates: Coordinates) -> Letter:
    """The letter that lies there.

    Raises:
        DlqError: none does: says what there is; or as for :func:`read_letters`.
    """
    (letter,) = find_letters(settings, [coordinates])
    return letter


def find_letters(settings: StreamSettings, coordinates: Iterable[Coordinates]) -> Iterator[Letter]:
    """The letters that lie there, in this order, by one consumer.

    Raises:
        DlqError: as :func:`find_letter`, when it comes to one that is not there.
    """
    with dead_letters(settings) as (consumer, partitions):
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        known = {tp.partition: tp for tp in partitions}
        for number, offset in coordinates:
            if (tp := known.get(number)) is None:
                raise DlqError(
                    f"there is no dead letter {number}-{offset}: the topic has partitions 0 to {len(partitions) - 1}"
                )
            begin, end = begins[tp], ends[tp]
            found = None
            if begin <= offset < end:
                there_is = _between(settings, consumer, {tp: offset}, {tp: offset + 1})
                found = next((letter for letter in there_is if letter.offset == offset), None)
            if found is None:
                there = f"has {number}-{begin} to {number}-{end - 1}" if begin < end else "is empty"
                raise DlqError(f"there is no dead letter {number}-{offset}: partition {number} {there}")
            yield found


def dead_letters(settings: StreamSettings) -> AbstractContextManager[tuple[Any, list[Any]]]:
    """A consumer for the topic of dead letters, and its partitions, as :func:`~workers.kafka.topic_reader.reading`."""
    name = topic_name(settings.kafka, Topic.DEAD_LETTERS)
    return reading(settings.kafka, name, DlqError, client_id="el4ner-dlq")


def _between(
    settings: StreamSettings, consumer: Any, begins: Mapping[Any, int], ends: Mapping[Any, int]
) -> Iterator[Letter]:
    """The letters from ``begins`` (included) to ``ends`` (not included)."""
    for record in records_between(settings.kafka, consumer, begins, ends, DlqError):
        yield letter_of(
            record.partition, record.offset, record.timestamp, record.key, record.value, record.headers or ()
        )
