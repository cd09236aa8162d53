"""Which names are mentioned most, and which more than before, over minutes, hours and a day: in bounded memory.

Mentions are counted in buckets of 30 seconds. A bucket that is over is added to one of five minutes, and that to one of
an hour. Each keeps a bounded number of names by the algorithm of Misra and Gries (1982): a count is never too high, and
too low by at most the bucket's mentions divided by that number.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

__all__ = ["WINDOWS", "BoundedCounts", "Mention", "Trend", "TrendCounts", "TrendReport"]

Mention = tuple[str, str]
"""A type and a name, as they are shown."""

WINDOWS: Final[Mapping[str, tuple[int, int]]] = {"5m": (0, 10), "1h": (1, 12), "24h": (2, 24)}
"""By its name: which level of buckets a window is made of, and of how many."""
_LEVELS: Final = ((30, 20), (300, 24), (3600, 48))
"""Seconds of a bucket, and how many are kept: twice the window, to compare with the one before."""
_PLACES_A_NAME: Final = 5


class BoundedCounts:
    """Counts of at most ``2 * capacity`` names. Each is too low by at most :attr:`error`; a name that is not there was
    mentioned at most so often."""

    __slots__ = ("_capacity", "counts", "error", "total")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.counts: dict[Mention, int] = {}
        self.total = 0
        self.error = 0

    def add(self, mention: Mention, times: int = 1) -> None:
        """Count a mention."""
        self.counts[mention] = self.counts.get(mention, 0) + times
        self.total += times
        if len(self.counts) > 2 * self._capacity:
            self._prune()

    def merge(self, other: BoundedCounts) -> None:
        """Add what another one has counted."""
        for mention, count in other.counts.items():
            self.add(mention, count)
        # What the other one has missed is missed here too.
        self.total += other.total - sum(other.counts.values())
        self.error += other.error

    def trim(self) -> None:
        """Nothing is added any more: keep no more names than the capacity."""
        if len(self.counts) > self._capacity:
            self._prune()

    def _prune(self) -> None:
        cut = heapq.nlargest(self._capacity + 1, self.counts.values())[-1]
        self.counts = {mention: count - cut for mention, count in self.counts.items() if count > cut}
        self.error += cut


@dataclass(frozen=True, slots=True)
class Trend:
    """A name, how often it was mentioned in the window and in the one before, and how often in each part of it.

    ``score``: by how many standard deviations it is above what the window before lets expect.
    """

    type: str
    name: str
    count: int
    before: float
    score: float
    series: Sequence[int]


@dataclass(frozen=True, slots=True)
class TrendReport:
    """``most`` and ``rising``, highest first. ``covered_seconds``: how much of the window was counted.

    ``rising`` is None as long as nothing is known of the time before the window. ``error``: by how much a count may be
    too low. ``bucket_seconds``: of the parts of a series, the latest of which is not over yet.
    """

    most: Sequence[Trend]
    rising: Sequence[Trend] | None
    mentions: int
    types: Mapping[str, int]
    error: int
    covered_seconds: float
    bucket_seconds: int


class TrendCounts:
    """Counts mentions by time. Not thread-safe.

    Args:
        names: how many are kept in each bucket (twice as many for a moment).
        now: seconds; when counting begins.
    """

    def __init__(self, names: int, now: float) -> None:
        self._names = names
        self._began = now
        self._levels: list[deque[tuple[int, BoundedCounts]]] = [deque(maxlen=kept) for _, kept in _LEVELS]
        self._places: OrderedDict[Mention, deque[tuple[int, int]]] = OrderedDict()

    def add(self, mentions: Iterable[Mention], place: tuple[int, int], now: float) -> None:
        """A document's mentions; ``place``: its partition and offset."""
        self._advance(now)
        counts = self._levels[0][-1][1]
        for mention in mentions:
            counts.add(mention)
            places = self._places.get(mention)
            if places is None:
                places = self._places[mention] = deque(maxlen=_PLACES_A_NAME)
                if len(self._places) > 4 * self._names:
                    self._places.popitem(last=False)
            else:
                self._places.move_to_end(mention)
            if not places or places[-1] != place:
                places.append(place)

    def places(self, mention: Mention) -> list[tuple[int, int]]:
        """Where the latest documents that mention it lie, latest first: of names that were mentioned lately."""
        return list(reversed(self._places.get(mention, ())))

    def report(self, window: str, now: float, *, kind: str | None = None, most: int = 20) -> TrendReport:
        """What is mentioned in the window that ends now; ``kind``: of one type alone."""
        self._advance(now)
        level, count = WINDOWS[window]
        seconds = _LEVELS[level][0]
        newest = int(now // seconds)
        parts = {number: counts for number, counts in self._levels[level] if number > newest - 2 * count}
        # What is not added to this level yet.
        open_parts = [self._levels[finer][-1][1] for finer in range(level) if self._levels[finer]]
        inside = BoundedCounts(_UNBOUNDED)
        for counts in [*(parts[number] for number in parts if number > newest - count), *open_parts]:
            inside.merge(counts)
        before = BoundedCounts(_UNBOUNDED)
        for number in parts:
            if number <= newest - count:
                before.merge(parts[number])
        window_begins = (newest - count + 1) * seconds
        covered = now - max(self._began, window_begins)
        covered_before = min(window_begins - self._began, count * seconds)
        scale = covered / covered_before if covered_before >= seconds else None

        def trend(mention: Mention) -> Trend:
            here = inside.counts[mention]
            expected = before.counts.get(mention, 0) * (scale or 0)
            series = [
                _count_of(parts.get(number), mention)
                + (sum(_count_of(part, mention) for part in open_parts) if number == newest else 0)
                for number in range(newest - count + 1, newest + 1)
            ]
            score = (here - expected) / math.sqrt(here + expected + 1)
            return Trend(*mention, here, round(expected, 1), round(score, 2), series)

        wanted = [mention for mention in inside.counts if kind is None or mention[0] == kind]
        types: dict[str, int] = {}
        for (name, _), times in inside.counts.items():
            types[name] = types.get(name, 0) + times
        largest = heapq.nsmallest(most, wanted, key=lambda mention: (-inside.counts[mention], mention))
        rising = None
        if scale is not None:
            # Two mentions are chance.
            risen = (trend(mention) for mention in wanted if inside.counts[mention] > _CHANCE)
            rising = heapq.nsmallest(
                most, (each for each in risen if each.score > 1), key=lambda each: (-each.score, each.name)
            )
        return TrendReport(
            most=[trend(mention) for mention in largest],
            rising=rising,
            mentions=inside.total,
            types=dict(islice(sorted(types.items(), key=lambda item: (-item[1], item[0])), _MOST_TYPES)),
            error=inside.error,
            covered_seconds=covered,
            bucket_seconds=seconds,
        )

    def _advance(self, now: float) -> None:
        """Begin the bucket of ``now``, and add those that are over to the next level's."""
        self._open(0, int(now // _LEVELS[0][0]))

    def _open(self, level: int, number: int) -> BoundedCounts:
        buckets = self._levels[level]
        if buckets and buckets[-1][0] >= number:
            return buckets[-1][1]
        if buckets and level + 1 < len(_LEVELS):
            over, counts = buckets[-1]
            counts.trim()
            ratio = _LEVELS[level + 1][0] // _LEVELS[level][0]
            self._open(level + 1, over // ratio).merge(counts)
            # If that one is over as well, it is added on too.
            self._open(level + 1, number // ratio)
        opened = BoundedCounts(self._names)
        buckets.append((number, opened))
        return opened


_UNBOUNDED: Final = 1 << 60
_CHANCE: Final = 2
_MOST_TYPES: Final = 100


def _count_of(counts: BoundedCounts | None, mention: Mention) -> int:
    return 0 if counts is None else counts.counts.get(mention, 0)
