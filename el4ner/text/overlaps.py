"""What to do with entities that overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Literal

from el4ner.types import Entity

__all__ = ["OverlapPolicy", "resolve_overlaps"]

OverlapPolicy = Literal["flat", "nested"]


def resolve_overlaps(entities: Iterable[Entity], policy: OverlapPolicy = "flat") -> tuple[Entity, ...]:
    """The entities that stay, sorted by start, then longest first.

    ``flat``: of entities that overlap the most confident stays; between equals the longest, then the leftmost, then the
    type that sorts first: the result does not depend on the order of the input. ``nested``: an entity may lie inside
    another one, but two may not cross, and the same span stays once.
    """
    ranked = sorted(entities, key=lambda e: (-e.confidence, e.start - e.end, e.start, e.type))
    longest = max((entity.end - entity.start for entity in ranked), default=0)
    kept: list[Entity] = []  # by start, and their starts: only those near by can be in an entity's way
    starts: list[int] = []
    for entity in ranked:
        near = range(bisect_right(starts, entity.start - longest), bisect_left(starts, entity.end))
        if not any(_conflict(entity, kept[index], policy) for index in near):
            place = bisect_right(starts, entity.start)
            kept.insert(place, entity)
            starts.insert(place, entity.start)
    return tuple(sorted(kept, key=lambda e: (e.start, -e.end)))


def _conflict(one: Entity, other: Entity, policy: OverlapPolicy) -> bool:
    if one.end <= other.start or other.end <= one.start:
        return False
    if policy == "flat":
        return True
    same = (one.start, one.end) == (other.start, other.end)
    inside = one.start >= other.start and one.end <= other.end
    around = one.start <= other.start and one.end >= other.end
    return same or not (inside or around)
