"""What a replayed message says about itself, in headers that its stage hands on with what it sends.

``el4ner dlq replay`` sends a dead letter's message again as it was, with these headers added. The stages copy them: the
count with the document's origin (:class:`workers.messages.envelope.Origin`), so that the join knows another attempt at
the same revision, the rest by :func:`carried`, so that a message that fails once more, at whatever stage, is remembered
as the same failure (:func:`workers.messages.envelope.dead_letter`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from workers.messages.headers import Headers, find

__all__ = ["FIRST_FAILED_AT", "REPLAY", "REPLAY_HEADERS", "REPLAY_OF", "Replay", "carried", "read_replay"]

REPLAY: Final = "el4ner-replay"
"""How often the message was replayed: 1, 2, …"""
REPLAY_OF: Final = "el4ner-replay-of"
"""The dead letter that it was, ``PARTITION-OFFSET``."""
FIRST_FAILED_AT: Final = "el4ner-first-failed-at"
"""When its first attempt failed; milliseconds since the epoch."""
REPLAY_HEADERS: Final = (REPLAY, REPLAY_OF, FIRST_FAILED_AT)

# Anybody can write a header. One that is not of this form is ignored.
_NUMBER: Final = re.compile(rb"[0-9]{1,15}")
_LETTER: Final = re.compile(rb"[0-9]{1,10}-[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Replay:
    """Which attempt a message is. ``count`` 0: the first; then the rest is None."""

    count: int = 0
    of: str | None = None
    first_failed_at_ms: int | None = None


def read_replay(headers: Iterable[tuple[str, bytes | None]]) -> Replay:
    """The replay that the headers name. Without a valid count it is none; other parts that are broken are None."""
    pairs = tuple(headers)
    count = _number(find(pairs, REPLAY))
    if not count:
        return Replay()
    of = find(pairs, REPLAY_OF)
    return Replay(
        count,
        of.decode() if of is not None and _LETTER.fullmatch(of) else None,
        _number(find(pairs, FIRST_FAILED_AT)),
    )


def carried(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Which failure a message goes back to: what a stage copies beside the document's origin, which has the count."""
    replay = read_replay(headers)
    values = {REPLAY_OF: replay.of, FIRST_FAILED_AT: replay.first_failed_at_ms}
    return tuple((name, str(value).encode()) for name, value in values.items() if value is not None)


def _number(raw: bytes | None) -> int | None:
    return int(raw) if raw is not None and _NUMBER.fullmatch(raw) else None
