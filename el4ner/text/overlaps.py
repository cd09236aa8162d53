"""What to do with entities that overlap: of all choices that a policy allows, the one with the largest total stays.

An entity's weight is its length times the square of its odds, p / (1 - p). If exactly one of some entities is right,
each is that one with a probability in proportion to its odds, so what is summed is how likely the right names are among
those that stay. A sum of log-odds would count two short names side by side (*European Chapter*, *Association for
Computational Linguistics*) twice, although they stand or fall together. The square makes what is likely count more than
what is many, and the length keeps a well-known short name from winning over the name that it is a part of.

A name inside of an entity of another type (*Sydney*, in *Sydney Opera House*) is likely by itself, but not as likely
there: its confidence is multiplied by the probability that the outer one is wrong.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, Literal

from el4ner.types import Entity

__all__ = ["OverlapPolicy", "resolve_overlaps", "weight"]

OverlapPolicy = Literal["flat", "nested"]

_CERTAIN: Final = 1e-6
_UNITS: Final = 1e12
"""Totals are sums of whole numbers of this fraction: exact, in whatever order they are added."""
_TIE: Final = 1 << 40
"""More characters than any document has: of equal totals the longer one is larger."""
_STEPS: Final = 64
"""The most steps of the search for names in names, for each entity of a cluster (counted as at least as many)."""
_FEW: Final = 12
"""Entities of a cluster that are looked at one beside the other: most clusters have two or three."""
_DEPTH: Final = 50
"""The most names one inside the other."""
_LEXICON: Final = "lexicon"


def resolve_overlaps(entities: Iterable[Entity], policy: OverlapPolicy = "flat") -> tuple[Entity, ...]:
    """The entities that stay, sorted by start, then longest first. The order of the input makes no difference.

    ``flat``: entities that do not overlap, with the largest total of weights. Between equal totals the longest stay,
    then the leftmost, then those whose type sorts first. In time n log n.

    ``nested``: an entity may lie inside another one of another type, but two may not cross, and the same span stays
    once. Of entities of one type one inside the other one stays, as parts of one name. Both do where the inner one does
    not end where the outer one does and the pool's lexicon knows it: *Bank of England* in *Bank of England Museum*. Of
    what these rules allow, what has the largest total of weights. Where so many lie one inside the other that the
    search would take long, those that are connected there by overlaps are resolved as ``flat`` says.

    Whatever goes overlaps something that stays.
    """
    ordered = sorted(entities, key=lambda e: (e.start, -e.end, e.type, -e.confidence, e.proposed_by))
    kept: list[Entity] = []
    for cluster in _clusters(ordered):
        if len(cluster) == 1:
            kept += cluster
            continue
        chosen = _NamesInNames(cluster).chosen() if policy == "nested" else None
        kept += [cluster[index] for index in (_flat(cluster) if chosen is None else chosen)]
    return tuple(sorted(kept, key=lambda e: (e.start, -e.end)))


def weight(entity: Entity, wrong: float = 1.0) -> float:
    """What an entity adds to the total of those that stay: more than 0.

    Args:
        entity: its confidence and its length count.
        wrong: the probability that what holds the entity, and has another type, is wrong.
    """
    likely = min(max(entity.confidence * wrong, _CERTAIN), 1 - _CERTAIN)
    odds = likely / (1 - likely)
    return odds * odds * max(1, entity.end - entity.start)


def _total(entity: Entity, wrong: float = 1.0) -> int:
    return round(weight(entity, wrong) * _UNITS) * _TIE + entity.end - entity.start


def _clusters(ordered: Iterable[Entity]) -> Iterator[list[Entity]]:
    """Entities that are connected by overlaps."""
    cluster: list[Entity] = []
    reach = 0
    for entity in ordered:
        if cluster and entity.start >= reach:
            yield cluster
            cluster = []
        reach = max(reach, entity.end) if cluster else entity.end
        cluster.append(entity)
    if cluster:
        yield cluster


def _flat(cluster: Sequence[Entity]) -> list[int]:
    totals = [_total(entity, 1 - held) for entity, held in zip(cluster, _held(cluster), strict=True)]
    return _best(cluster, range(len(cluster)), totals)[1]


def _best(cluster: Sequence[Entity], among: Sequence[int], totals: Sequence[int]) -> tuple[int, list[int]]:
    """The largest total of entities that do not overlap, and their indices: weighted interval scheduling (Kleinberg and
    Tardos 2005, section 6.1).

    Args:
        cluster: sorted.
        among: those that are to be chosen from, ascending.
        totals: of each of these.
    """
    starts = [cluster[index].start for index in among]
    best = [0] * (len(among) + 1)
    behind = [0] * len(among)
    for place in range(len(among) - 1, -1, -1):
        behind[place] = bisect_left(starts, cluster[among[place]].end, lo=place + 1)
        best[place] = max(totals[place] + best[behind[place]], best[place + 1])
    chosen = []
    place = 0
    while place < len(among):
        if totals[place] + best[behind[place]] == best[place]:
            chosen.append(among[place])
            place = behind[place]
        else:
            place += 1
    return best[0], chosen


def _held(cluster: Sequence[Entity]) -> list[float]:
    """For each entity of a sorted cluster the largest confidence of those that hold it and have another type; 0 if none
    does. In time n log n, or by looking at all where they are few."""
    if len(cluster) <= _FEW:
        return [_held_by(entity, cluster) for entity in cluster]
    ends = sorted({entity.end for entity in cluster}, reverse=True)
    places = {end: place for place, end in enumerate(ends, start=1)}
    # A Fenwick tree over ends, the last one first: the likeliest entity so far, and the likeliest of another type.
    tree: list[tuple[_Likeliest, _Likeliest]] = [(_NOBODY, _NOBODY)] * (len(ends) + 1)
    held: list[float] = []
    for _, same_span in groupby(cluster, key=lambda entity: (entity.start, entity.end)):
        entities = list(same_span)
        for entity in entities:
            top = (_NOBODY, _NOBODY)
            place = places[entity.end]
            while place:
                top = _likeliest(top, tree[place])
                place &= place - 1
            held.append(next(confidence for confidence, kind in top if kind != entity.type))
        for entity in entities:
            place = places[entity.end]
            while place < len(tree):
                tree[place] = _likeliest(tree[place], ((entity.confidence, entity.type), _NOBODY))
                place += place & -place
    return held


def _held_by(entity: Entity, cluster: Sequence[Entity]) -> float:
    start, end = entity.start, entity.end
    held = 0.0
    for other in cluster:
        if other.start > start:
            break
        holds = other.end >= end and (other.start < start or other.end > end)
        if holds and other.type != entity.type and other.confidence > held:
            held = other.confidence
    return held


_Likeliest = tuple[float, str | None]
"""A confidence, and a type."""
_NOBODY: Final[_Likeliest] = (0.0, None)


def _likeliest(
    left: tuple[_Likeliest, _Likeliest], right: tuple[_Likeliest, _Likeliest]
) -> tuple[_Likeliest, _Likeliest]:
    """The likeliest of four, and the likeliest of those that have another type than that."""
    first = max(left[0], right[0], key=lambda each: each[0])
    others = [each for each in (*left, *right) if each[1] != first[1]]
    return first, max(others, key=lambda each: each[0], default=_NOBODY)


class _NamesInNames:
    """The search for the best names, and names inside of them, in one cluster.

    What may lie inside of an entity depends on what holds that: on the types there, and on which of them end where it
    ends. So the search goes from the outside to the inside, and remembers what it found for each entity under each of
    these; it gives up where that takes more than :data:`_STEPS` allow.
    """

    def __init__(self, cluster: Sequence[Entity]) -> None:
        self._cluster = cluster
        self._steps = _STEPS * max(len(cluster), _STEPS)
        self._known: dict[tuple[int, frozenset[str], frozenset[str]], tuple[int, list[int]]] = {}

    def chosen(self) -> list[int] | None:
        """Indices of the entities that stay; None if that would take long."""
        try:
            return self._inside(range(len(self._cluster)), None, frozenset(), frozenset(), depth=0)[1]
        except _TooLongError:
            return None

    def _inside(
        self, among: Sequence[int], end: int | None, types: frozenset[str], ending: frozenset[str], depth: int
    ) -> tuple[int, list[int]]:
        """The best of ``among``. ``end``, ``types``: of what holds them; ``ending``: types of that which ends there."""
        if depth > _DEPTH:
            raise _TooLongError
        allowed: list[int] = []
        totals: list[int] = []
        families: list[list[int]] = []
        for index in among:
            self._count()
            entity = self._cluster[index]
            at_end = ending if entity.end == end else frozenset()
            if entity.type in (types if _LEXICON not in entity.proposed_by else at_end):
                continue
            total, family = self._family(index, among, types, at_end, depth)
            allowed.append(index)
            totals.append(total)
            families.append(family)
        total, chosen = _best(self._cluster, allowed, totals)
        by_index = dict(zip(allowed, families, strict=True))
        return total, [member for index in chosen for member in by_index[index]]

    def _family(
        self, index: int, among: Sequence[int], types: frozenset[str], ending: frozenset[str], depth: int
    ) -> tuple[int, list[int]]:
        """An entity with the best of what lies inside of it."""
        key = (index, types, ending)
        if key not in self._known:
            outer = self._cluster[index]
            inside = []
            for inner in among[bisect_left(among, index) + 1 :]:
                self._count()
                entity = self._cluster[inner]
                if entity.start >= outer.end:
                    break
                if entity.end <= outer.end and (entity.start, entity.end) != (outer.start, outer.end):
                    inside.append(inner)
            total = 0
            members: list[int] = []
            if inside:
                total, members = self._inside(inside, outer.end, types | {outer.type}, ending | {outer.type}, depth + 1)
            self._known[key] = (_total(outer) + total, [index, *members])
        return self._known[key]

    def _count(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise _TooLongError


class _TooLongError(Exception):
    """The search would take too many steps."""
