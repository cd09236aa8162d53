"""Sending what dead letters hold back to where it came from (kafka-python).

No letter is deleted or changed: the topic's retention does that. What was sent again, and is confirmed by the broker,
is told one by one (:func:`replay`); a :class:`Journal` keeps it, so that a run that was cut short can go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import orjson
from kafka.errors import KafkaError

from workers.config import StreamSettings
from workers.dead_letters.letters import (
    Coordinates,
    DlqError,
    Letter,
    ReplayPlan,
    Wanted,
    headers_to_replay,
    plan_replay,
)
from workers.dead_letters.listing import dead_letters, find_letters
from workers.kafka.topic_reader import partitions_of
from workers.kafka.topic_sender import Confirmations, sending

__all__ = ["Journal", "Replayed", "plan_named", "replay"]

_IN_FLIGHT: Final = 100
_HEADERS_BYTES: Final = 64 * 1024
"""What headers may add to a value of ``kafka.max_message_bytes``."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A letter whose message was sent again: where the broker has it now."""

    letter: str
    topic: str
    partition: int
    offset: int

    def to_json(self) -> dict[str, Any]:
        """A line of the journal, and of ``el4ner dlq replay --format json``."""
        return {"letter": self.letter, "topic": self.topic, "partition": self.partition, "offset": self.offset}


def plan_named(
    settings: StreamSettings, coordinates: Sequence[Coordinates], *, done: Collection[str] = ()
) -> ReplayPlan:
    """What a replay of these letters would send, also of one that was replayed before.

    Raises:
        DlqError: one of them is not there; no broker.
    """
    return plan_replay(find_letters(settings, coordinates), settings.kafka, wanted=Wanted(), done=done)


def replay(
    settings: StreamSettings,
    letters: Iterable[Letter],
    *,
    delivered: Callable[[Replayed], None],
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Send the messages of ``letters`` back to topic and partition that they came from; returns how many.

    Key, value and headers are the original ones, with those of :mod:`workers.messages.replay_headers` behind.
    ``delivered`` is called for each, in order, on this thread, when the broker has it. ``stop`` is asked before each;
    what was sent is still waited for.

    Raises:
        DlqError: no broker, a topic or partition that is not there, or a message that was not taken; those that were
            reported are delivered.
    """
    counts: dict[str, int] = {}
    confirmed: Confirmations[Letter] = Confirmations(
        settings.kafka,
        most=_IN_FLIGHT,
        delivered=lambda letter, sent: delivered(Replayed(letter.id, sent.topic, sent.partition, sent.offset)),
        failed=lambda letter, error: DlqError(f"dead letter {letter.id} was not delivered to {letter.topic}: {error}"),
    )
    with dead_letters(settings) as (consumer, _), _producer(settings) as producer:
        for letter in letters:
            if stop():
                break
            source = letter.source
            if source is None:
                raise DlqError(f"dead letter {letter.id} does not say where its message came from")
            topic, partition, _ = source
            if topic not in counts:
                counts[topic] = partitions_of(consumer, topic, DlqError)
            if partition >= counts[topic]:
                now = f"{topic!r} has {counts[topic]} partitions now"
                raise DlqError(f"dead letter {letter.id} came from partition {partition}, but {now}")
            try:
                future = producer.send(
                    topic,
                    key=letter.key,
                    value=letter.value,
                    headers=headers_to_replay(letter),
                    # Where its document's other messages are, whatever partitioner its producer used.
                    partition=partition,
                )
            except KafkaError as error:
                raise DlqError(f"dead letter {letter.id} cannot be sent to {topic}: {error}") from error
            confirmed.add(letter, future)
        confirmed.finish(producer)
    return confirmed.count


class Journal:
    """A file with a line for each letter that was sent again; used in a ``with`` block.

    ``done`` has the ids of its letters, those of earlier runs too. A line is written when the delivery is confirmed: a
    process that is killed between the two sends that one again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: set[str] = set()
        self._file: IO[bytes] | None = None

    def add(self, replayed: Replayed) -> None:
        """Note it down."""
        assert self._file is not None
        self._file.write(orjson.dumps(replayed.to_json()) + b"\n")
        self._file.flush()
        self.done.add(replayed.letter)

    def __enter__(self) -> Journal:
        try:
            self.done = self._read()
            self._file = self.path.open("ab")
        except OSError as error:
            raise DlqError(f"{self.path}: cannot be used as a journal: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> set[str]:
        if not self.path.exists():
            return set()
        raw = self.path.read_bytes()
        if raw and not raw.endswith(b"\n"):
            # A run was killed while it wrote: that letter is not noted, and the next line has to begin a line.
            raw = raw[: raw.rfind(b"\n") + 1]
            with self.path.open("r+b") as file:
                file.truncate(len(raw))
        done = set()
        for number, line in enumerate(raw.splitlines(), 1):
            try:
                done.add(str(orjson.loads(line)["letter"]))
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise DlqError(f"{self.path}:{number}: is no line of a journal of replays") from error
        return done


def _producer(settings: StreamSettings) -> AbstractContextManager[Any]:
    # A stage's message may be twice as large as a document.
    size = 2 * settings.kafka.max_message_bytes + _HEADERS_BYTES
    return sending(settings.kafka, DlqError, client_id="el4ner-dlq", max_request_size=size)
