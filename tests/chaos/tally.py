"""What came out of the stream beside what went in, and how long it was silent. No Kafka, no clock: plain data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, Self

__all__ = ["SILENCE_SECONDS", "Emitted", "Identity", "Record", "Tally", "recovery_seconds", "tally"]

Status = Literal["ok", "failed", "not run"]
"""``not run``: there was no time for it, which is neither a success nor a failure."""
Identity = tuple[str, int]
"""A document's id and its revision."""

SILENCE_SECONDS: Final = 2.0
"""A partition that is silent for no longer than this has not stopped: batches, rebalances and a busy machine do it."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """A tagged document that a ``read_committed`` consumer received; ``at``: when, in seconds of a monotonic clock.

    ``status`` None: the message had no value, which is what a deletion leaves.
    """

    document: Identity
    status: str | None
    partition: int
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Tally:
    """``lost``: went in, never came out. ``repeated``: came out so many times more than once. ``strangers``: came out
    and never went in."""

    documents_in: int
    documents_out: int
    lost: tuple[Identity, ...]
    repeated: dict[Identity, int]
    strangers: tuple[Identity, ...]

    @property
    def duplicated(self) -> int:
        """Messages too many."""
        return sum(self.repeated.values())


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the report. What was not run, or broke down before it was counted, has no figures."""

    scenario: str
    documents_in: int | None
    documents_out: int | None
    lost: int | None
    duplicated: int | None
    recovery_seconds: float | None
    seed: int
    status: Status

    @classmethod
    def without_figures(cls, scenario: str, seed: int, status: Status) -> Self:
        """Of a scenario that was not counted."""
        return cls(scenario, None, None, None, None, None, seed, status)

    def to_json(self) -> dict[str, Any]:
        """As ``build/chaos.json`` has it."""
        return {name: getattr(self, name) for name in self.__slots__}


def tally(sent: Collection[Identity], emitted: Iterable[Identity]) -> Tally:
    """Count by (id, revision). A document that was sent several times counts once: it has one result."""
    expected = set(sent)
    counted = Counter(emitted)
    return Tally(
        documents_in=len(expected),
        documents_out=counted.total(),
        lost=tuple(sorted(expected - counted.keys())),
        repeated={document: times - 1 for document, times in sorted(counted.items()) if times > 1},
        strangers=tuple(sorted(counted.keys() - expected)),
    )


def recovery_seconds(
    faults: Sequence[float], emitted: Iterable[Emitted], *, silence: float = SILENCE_SECONDS
) -> float | None:
    """From a fault until every partition gave results again; the worst of ``faults``. None: nothing stopped.

    Of each partition, and of each fault, it is the time from the fault to the end of the longest silence of more than
    ``silence`` seconds that lasted at the fault or began after it, before the next one. Documents have to come in all
    the time, to all partitions: a partition that nobody sent anything to is silent too. Silence after a partition's
    last result is not counted: a document that never comes out is lost, not late.
    """
    moments: dict[int, list[float]] = {}
    for one in emitted:
        moments.setdefault(one.partition, []).append(one.at)
    worst: float | None = None
    for fault, until in pairwise([*sorted(faults), math.inf]):
        for own in moments.values():
            times = sorted(own)
            gaps = [
                (after - max(before, fault), after)
                for before, after in zip([fault, *times], times, strict=False)
                if after > fault and before < until and after - max(before, fault) > silence
            ]
            if gaps:
                _, end = max(gaps)
                worst = max(end - fault, worst or 0.0)
    return worst
