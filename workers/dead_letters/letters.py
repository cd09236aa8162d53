"""Dead letters as data: what a letter says, which letters are wanted, and which a replay sends. No Kafka in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from el4ner.errors import El4nerError
from workers.config import KafkaSettings
from workers.messages.envelope import DEAD_LETTER_PREFIX
from workers.messages.replay_headers import FIRST_FAILED_AT, REPLAY, REPLAY_HEADERS, REPLAY_OF, Replay, read_replay
from workers.topics import OPTIONAL, Topic, topic_name

__all__ = [
    "Coordinates",
    "DlqError",
    "KafkaHeaders",
    "Letter",
    "ReplayPlan",
    "Wanted",
    "headers_to_replay",
    "letter_of",
    "parse_coordinates",
    "plan_replay",
]

Coordinates = tuple[int, int]
"""Partition and offset of a letter on the dead-letters topic."""

KafkaHeaders = tuple[tuple[str, bytes | None], ...]
"""As they lie on the broker, where a value may be null."""

_FIRST_REASON: Final = f"{DEAD_LETTER_PREFIX}stage"
_MAX_DIGITS: Final = 19
_RESULTS: Final = frozenset({Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS, Topic.DEAD_LETTERS, *OPTIONAL})
"""What leaves the pipeline: no stage reads it, so nothing is ever sent back to it."""


class DlqError(El4nerError):
    """Dead letters cannot be read or sent again; the message says which, and why."""

    code = "dead-letters"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of ``dead-letters``. ``headers``: the original message's; ``reasons``: what the stage added.

    The names of ``reasons`` are without ``el4ner-``. It is empty for a message that no stage of this pipeline wrote.
    """

    partition: int
    offset: int
    timestamp_ms: int
    """When it was written."""
    key: bytes | None
    value: bytes | None
    headers: KafkaHeaders
    reasons: Mapping[str, str]

    @property
    def coordinates(self) -> Coordinates:
        """Where it lies."""
        return self.partition, self.offset

    @property
    def id(self) -> str:
        """``PARTITION-OFFSET``."""
        return f"{self.partition}-{self.offset}"

    @property
    def stage(self) -> str | None:
        """Which stage gave up on it."""
        return self.reasons.get("stage")

    @property
    def code(self) -> str | None:
        """Why: one of the stable error codes."""
        return self.reasons.get("error-code")

    @property
    def message(self) -> str | None:
        """Why, in words."""
        return self.reasons.get("error-message")

    @property
    def document(self) -> str | None:
        """Whose document it is; None if not even that could be read."""
        return self.reasons.get("document-id")

    @property
    def topic(self) -> str | None:
        """The broker's name of the topic that the message came from."""
        return self.reasons.get("topic")

    @property
    def source(self) -> tuple[str, int, int] | None:
        """Topic, partition and offset of the message; None if the letter does not say."""
        partition, offset = self._number("partition"), self._number("offset")
        return None if self.topic is None or partition is None or offset is None else (self.topic, partition, offset)

    @property
    def attempts(self) -> int | None:
        """How often the stage tried it."""
        return self._number("attempts")

    @property
    def replay(self) -> Replay:
        """Which replay of it failed; ``count`` 0: none, it failed for the first time."""
        return read_replay(self.headers)

    @property
    def first_failed_at_ms(self) -> int:
        """When it failed first; letters of el4ner 0.1 say only when they were written."""
        for name in ("first-failed-at", "failed-at"):
            failed_at = self._number(name)
            if failed_at is not None:
                return failed_at
        return self.timestamp_ms

    def to_json(self) -> dict[str, Any]:
        """What ``el4ner dlq list --format json`` shows: everything but the value and the original headers."""
        source = self.source
        return {
            "letter": self.id,
            "written_at": self.timestamp_ms,
            "stage": self.stage,
            "code": self.code,
            "message": self.message,
            "document": self.document,
            "topic": self.topic,
            "partition": source and source[1],
            "offset": source and source[2],
            "timestamp": self._number("timestamp"),
            "attempts": self.attempts,
            "replays": self.replay.count,
            "failed_at": self._number("failed-at"),
            "first_failed_at": self.first_failed_at_ms,
            "key": None if self.key is None else self.key.decode("utf-8", "backslashreplace"),
            "value_bytes": None if self.value is None else len(self.value),
        }

    def _number(self, name: str) -> int | None:
        text = self.reasons.get(name, "")
        digits = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
        return int(text) if digits else None


def letter_of(
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
) -> Letter:
    """The letter that a message of the topic is.

    A stage adds its reasons behind the original headers, ``el4ner-stage`` first. An original header may have any name,
    also one of ours (by mischief, or in a dead letter that was read as a document): the last one is where ours begin.
    """
    all_headers = tuple(headers)
    begin = max(
        (index for index, (name, _) in enumerate(all_headers) if name == _FIRST_REASON), default=len(all_headers)
    )
    reasons = {
        name.removeprefix(DEAD_LETTER_PREFIX): (value or b"").decode("utf-8", "replace")
        for name, value in all_headers[begin:]
        if name.startswith(DEAD_LETTER_PREFIX)
    }
    return Letter(partition, offset, timestamp_ms, key, value, all_headers[:begin], reasons)


def parse_coordinates(text: str) -> Coordinates:
    """``PARTITION-OFFSET``, as ``el4ner dlq list`` shows it.

    Raises:
        ValueError: it is none.
    """
    partition, dash, offset = text.partition("-")
    if not (
        dash and all(part.isascii() and part.isdigit() and len(part) <= _MAX_DIGITS for part in (partition, offset))
    ):
        raise ValueError(f"{text!r} is no dead letter: expected PARTITION-OFFSET, as in 3-17")
    return int(partition), int(offset)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters. Empty sets and None: all. ``topics``: where they came from, with or without the prefix.

    ``since_ms`` (included) and ``until_ms`` (not included) are about when the letter was written.
    """

    codes: Collection[str] = ()
    stages: Collection[str] = ()
    documents: Collection[str] = ()
    topics: Collection[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    prefix: str = ""

    def matches(self, letter: Letter) -> bool:
        """Whether it is one of them."""
        topic = letter.topic or ""
        return (
            (not self.codes or letter.code in self.codes)
            and (not self.stages or letter.stage in self.stages)
            and (not self.documents or letter.document in self.documents)
            and (not self.topics or topic in self.topics or topic.removeprefix(self.prefix) in self.topics)
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
        )


@dataclass(slots=True)
class ReplayPlan:
    """What a replay would send, and what it leaves out although it was asked for."""

    letters: dict[Coordinates, tuple[str, str, str]] = field(default_factory=dict)
    """Coordinates to stage, code and topic, in the order in which they were written."""
    superseded: int = 0
    """Replayed before, and failed again: the later letter stands for them."""
    repeated: int = 0
    """The same message of the same topic, given up on more than once (a stage was killed and began again)."""
    done: int = 0
    """Sent by an earlier run, says its journal."""
    foreign: Counter[str] = field(default_factory=Counter)
    """Topics that no stage of this pipeline reads (``?``: the letter names none): nothing is sent there."""

    def counts(self) -> list[tuple[str, str, str, int]]:
        """Stage, code, topic, and how many letters; most first."""
        return [(*kind, count) for kind, count in Counter(self.letters.values()).most_common()]


def plan_replay(
    letters: Iterable[Letter],
    settings: KafkaSettings,
    *,
    wanted: Wanted,
    done: Collection[str] = (),
    limit: int | None = None,
) -> ReplayPlan:
    """Which of ``letters`` (all that there are, whatever is wanted) to send again, at most ``limit``, oldest first.

    Each original message is sent once: of letters about the same message, and of a letter and those that its own
    replays led to, the latest counts. ``done``: ids of letters that were sent before; others about the same message
    are done with them.
    """
    readable = {topic_name(settings, topic) for topic in Topic if topic not in _RESULTS}
    plan = ReplayPlan()
    # Only what the choice needs is kept of a letter: there may be a million, of megabytes each.
    chosen: dict[tuple[str, int, int], tuple[int, Coordinates, int, tuple[str, str, str]]] = {}
    successors: set[tuple[str, int]] = set()
    finished: set[tuple[str, int, int]] = set()
    for letter in letters:
        if letter.replay.of is not None:
            successors.add((letter.replay.of, letter.first_failed_at_ms))
        source = letter.source
        if source is not None and letter.id in done:
            finished.add(source)
        if not wanted.matches(letter):
            continue
        if source is None or source[0] not in readable:
            plan.foreign[letter.topic or "?"] += 1
        else:
            kind = (letter.stage or "?", letter.code or "?", source[0])
            entry = (letter.timestamp_ms, letter.coordinates, letter.first_failed_at_ms, kind)
            plan.repeated += source in chosen
            chosen[source] = max(chosen.get(source, entry), entry)
    for source in finished & chosen.keys():
        plan.done += 1
        del chosen[source]
    for _, coordinates, first_failed_at, kind in sorted(chosen.values()):
        # The time too: a topic that was made anew counts its offsets from 0 again.
        if (f"{coordinates[0]}-{coordinates[1]}", first_failed_at) in successors:
            plan.superseded += 1
        elif limit is None or len(plan.letters) < limit:
            plan.letters[coordinates] = kind
    return plan


def headers_to_replay(letter: Letter) -> list[tuple[str, bytes | None]]:
    """The original headers, and those by which the stages know a replay."""
    original = [(name, value) for name, value in letter.headers if name not in REPLAY_HEADERS]
    added = {REPLAY: letter.replay.count + 1, REPLAY_OF: letter.id, FIRST_FAILED_AT: letter.first_failed_at_ms}
    return [*original, *((name, str(value).encode()) for name, value in added.items())]
