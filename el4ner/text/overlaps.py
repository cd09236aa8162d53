"""What to do with entities that overlap."""

from __future__ import annotations

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
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda e: (-e.confidence, e.start - e.end, e.start, e.type)):
        if not any(_conflict(entity, other, policy) for other in kept):
            kept.append(entity)
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
