"""What to do with entities that overlap.

Confidence alone would choose *Sydney* over *Sydney Opera House*, since the short name is the better known one. So
entities are compared by a score, the log-odds of the confidence plus a share of the log of the length, and a name
inside of an entity of another type (a place in the name of an organization) has to be far more likely to displace that.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from el4ner.types import Entity

__all__ = ["LENGTH_WEIGHT", "OUTER_MARGIN", "OverlapPolicy", "resolve_overlaps", "score"]

OverlapPolicy = Literal["flat", "nested"]

LENGTH_WEIGHT: Final = 0.5
"""What a name gains for each time that it is e times as long. Of 0, 0.25, 0.5, 0.75, 1 and 1.5 the best in the mean of
the dev splits of CrossNER politics, CrossNER AI and WNUT 2017."""
OUTER_MARGIN: Final = 2.5
"""How much larger the score of a name inside of an entity of another type has to be to displace that. On the same
splits 2, 2.5, 3 and 4 were equal, and better than 0 and 1."""
_CERTAIN: Final = 1e-6
_PAIRS: Final = 64
"""The most pairs that are compared in a cluster of overlapping entities, for each entity: time stays linear."""
_LEXICON: Final = "lexicon"


def resolve_overlaps(entities: Iterable[Entity], policy: OverlapPolicy = "flat") -> tuple[Entity, ...]:
    """The entities that stay, sorted by start, then longest first. The order of the input makes no difference.

    ``flat``: of entities that overlap one stays: the one with the larger score; between equals the longest, then the
    leftmost, then the type that sorts first. One that holds an entity of another type stays although that has a larger
    score, as long as it is not larger by more than :data:`OUTER_MARGIN`.

    ``nested``: an entity may lie inside another one of another type, but two may not cross, and the same span stays
    once. Of entities of one type one inside the other the one with the larger score stays, as parts of one name. Both
    do where the inner one does not end where the outer one does and the pool's lexicon knows it: *Bank of England* in
    *Bank of England Museum*.
    """
    ranked = sorted(entities, key=lambda e: (-score(e), e.start - e.end, e.start, e.type, -e.confidence, e.proposed_by))
    remaining: list[Entity] = []
    for cluster, pairs in _clusters(ranked, policy):
        if len(cluster) == 1:
            remaining.append(ranked[cluster[0]])
        elif pairs is None:
            remaining += _by_rank([ranked[index] for index in sorted(cluster)], policy)
        else:
            remaining += [ranked[index] for index in _unbeaten(ranked, cluster, pairs, policy)]
    return tuple(sorted(remaining, key=lambda e: (e.start, -e.end)))


def score(entity: Entity) -> float:
    """By which entities that overlap are compared; larger is better."""
    likely = min(max(entity.confidence, _CERTAIN), 1 - _CERTAIN)
    return math.log(likely / (1 - likely)) + LENGTH_WEIGHT * math.log(max(1, entity.end - entity.start))


def _clusters(
    ranked: Sequence[Entity], policy: OverlapPolicy
) -> Iterator[tuple[list[int], list[tuple[int, int]] | None]]:
    """Entities that are connected by overlaps, by their ranks, and the pairs of them that cannot both stay, the better
    ranked first; None where there are too many to compare."""
    order = sorted(range(len(ranked)), key=lambda index: (ranked[index].start, ranked[index].end, index))
    cluster: list[int] = []
    pairs: list[tuple[int, int]] | None = []
    open_: list[int] = []  # those that may overlap the next one
    reach = 0
    compared = 0
    for index in order:
        entity = ranked[index]
        if cluster and entity.start >= reach:
            yield cluster, pairs
            cluster, pairs, open_, compared = [], [], [], 0
        reach = max(reach, entity.end) if cluster else entity.end
        cluster.append(index)
        if pairs is not None:
            open_ = [earlier for earlier in open_ if ranked[earlier].end > entity.start]
            compared += len(open_)
            if compared > _PAIRS * max(len(cluster), _PAIRS):
                pairs = None
                continue
            pairs += [
                (min(index, earlier), max(index, earlier))
                for earlier in open_
                if _conflict(entity, ranked[earlier], policy)
            ]
            open_.append(index)
    if cluster:
        yield cluster, pairs


def _unbeaten(
    ranked: Sequence[Entity], cluster: Sequence[int], pairs: Sequence[tuple[int, int]], policy: OverlapPolicy
) -> list[int]:
    """One after the other, what is beaten by nobody who is left: it stays, and what is in its way goes. Where everybody
    is beaten by somebody, in a circle, the best ranked stays."""
    rivals: dict[int, list[int]] = {index: [] for index in cluster}
    beaten: dict[int, list[int]] = {index: [] for index in cluster}
    beaters = dict.fromkeys(cluster, 0)
    for better, worse in pairs:
        winner, loser = better, worse
        if policy == "flat" and _holds_a_part(ranked[worse], ranked[better]):
            winner, loser = worse, better
        rivals[winner].append(loser)
        rivals[loser].append(winner)
        beaten[winner].append(loser)
        beaters[loser] += 1
    ready = [index for index in cluster if not beaters[index]]
    heapq.heapify(ready)
    waiting = sorted(cluster)
    left = set(cluster)
    unbeaten = []
    for best in waiting:
        ready += [] if ready or best not in left else [best]
        while ready:
            index = heapq.heappop(ready)
            if index not in left:
                continue
            unbeaten.append(index)
            left.discard(index)
            for gone in left.intersection(rivals[index]):
                left.discard(gone)
                for beaten_by_it in beaten[gone]:
                    beaters[beaten_by_it] -= 1
                    if not beaters[beaten_by_it] and beaten_by_it in left:
                        heapq.heappush(ready, beaten_by_it)
    return unbeaten


def _by_rank(ranked: Sequence[Entity], policy: OverlapPolicy) -> list[Entity]:
    kept: list[Entity] = []
    for entity in ranked:
        if not any(_conflict(entity, better, policy) for better in kept):
            kept.append(entity)
    return kept


def _holds_a_part(outer: Entity, inner: Entity) -> bool:
    """Whether ``inner``, of the larger score, is a part of ``outer`` nevertheless."""
    inside = outer.start <= inner.start and inner.end <= outer.end and outer.end - outer.start > inner.end - inner.start
    return inside and outer.type != inner.type and score(outer) >= score(inner) - OUTER_MARGIN


def _conflict(left: Entity, right: Entity, policy: OverlapPolicy) -> bool:
    if left.end <= right.start or right.end <= left.start:
        return False
    if policy == "flat" or (left.start, left.end) == (right.start, right.end):
        return True
    outer, inner = (left, right) if left.end - left.start > right.end - right.start else (right, left)
    if not (outer.start <= inner.start and inner.end <= outer.end):
        return True
    return outer.type == inner.type and (inner.end == outer.end or _LEXICON not in inner.proposed_by)
