"""What there is to say about an entity, and about the entities of a window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from el4ner.canonical.name_counts import NameCounts
from el4ner.canonical.names import canonical_name

__all__ = ["EntityView", "MergedName", "TrendEntity", "WindowTrend", "WindowView", "view_of"]


@dataclass(frozen=True, slots=True)
class WindowView:
    """Counts of an entity in a window. A document that has two names of the entity counts for each."""

    window: int
    mentions: int
    documents: int


@dataclass(frozen=True, slots=True)
class EntityView:
    """An entity. ``aliases``: its spellings, the most frequent ones first. ``names``: ids and names that are joined in
    it, its own among them, in the order of the names."""

    id: str
    type: str
    name: str
    aliases: Sequence[str]
    names: Sequence[tuple[str, str]]
    first_ms: int
    last_ms: int
    windows: Sequence[WindowView]


@dataclass(frozen=True, slots=True)
class MergedName:
    """A name that is another entity. ``decided``: somebody said so; else it is that one's short form."""

    id: str
    type: str
    name: str
    into: str
    decided: bool


@dataclass(frozen=True, slots=True)
class TrendEntity:
    """An entity in a window; ``before``: its mentions in the window before."""

    id: str
    name: str
    mentions: int
    documents: int
    before: int


@dataclass(frozen=True, slots=True)
class WindowTrend:
    """The most frequent entities of a type in a window, of ``entities`` that it has."""

    window: int
    type: str
    entities: int
    top: Sequence[TrendEntity]


def view_of(entity: str, kind: str, name: str, parts: Iterable[NameCounts], *, most_aliases: int) -> EntityView:
    """An entity of the names that are joined in it. ``name``: its canonical name; it shows as it is mostly spelt."""
    parts = sorted(parts, key=lambda part: (part.name, part.id))
    surfaces: Counter[str] = Counter()
    mentions: Counter[int] = Counter()
    documents: Counter[int] = Counter()
    for part in parts:
        for window, counts in part.windows.items():
            surfaces.update(counts.surfaces)
            mentions[window] += counts.mentions
            documents[window] += counts.documents
    return EntityView(
        entity,
        kind,
        shown_name(name, surfaces),
        most_frequent(surfaces, most_aliases),
        [(part.id, part.name) for part in parts],
        min(part.first_ms for part in parts),
        max(part.last_ms for part in parts),
        [WindowView(window, mentions[window], documents[window]) for window in sorted(mentions)],
    )


def shown_name(name: str, surfaces: Mapping[str, int]) -> str:
    """The most frequent spelling of a canonical name; itself, if none is known."""
    spellings = {surface: count for surface, count in surfaces.items() if canonical_name(surface) == name}
    return most_frequent(spellings, 1)[0] if spellings else name


def most_frequent(counts: Mapping[str, int], most: int) -> list[str]:
    """The keys with the greatest counts; equal ones in alphabetical order."""
    return sorted(counts, key=lambda key: (-counts[key], key))[:most]
