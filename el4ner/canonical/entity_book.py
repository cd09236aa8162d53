"""All entities of the kept windows: documents and decisions in, entities out. Pure, and in memory.

What it says is a function of the latest version of each document and of the decisions, whatever the order in which it
learns them, and however often. Three limits bound it, and only beyond them does the order matter:

- A document older than the kept windows does not count. The windows end with that of the latest document.
- Of more than ``max_documents`` documents the oldest are *sealed*: they go on to count, and are not taken back.
- Of more than ``max_entities`` names those that were seen least recently are forgotten.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from el4ner.canonical.decisions import EntityDecision, EntityDecisions
from el4ner.canonical.entity_settings import EntitySettings
from el4ner.canonical.entity_views import EntityView, MergedName, TrendEntity, WindowTrend, shown_name, view_of
from el4ner.canonical.joins import NameJoins
from el4ner.canonical.name_book import NameBook, NameChanges, NamedDocument, PutOutcome, SealedKey
from el4ner.canonical.name_counts import NameCounts, SealedCounts
from el4ner.canonical.names import entity_id

__all__ = ["BookChanges", "EntityBook"]


@dataclass(slots=True)
class BookChanges:
    """What is different since it was last asked.

    ``entities``: what there is to say about a name, by its id; None: it is no more. The book is rebuilt from the rest.
    """

    entities: dict[str, EntityView | MergedName | None]
    names: NameChanges
    decisions: list[EntityDecision] = field(default_factory=list)


class EntityBook:
    """Not to be used by two threads at a time."""

    def __init__(self, settings: EntitySettings) -> None:
        self._settings = settings
        self.names = NameBook(settings, self._look_at)
        """What documents have."""
        self.decisions = EntityDecisions()
        """What people decided."""
        self._joins = NameJoins(self.decisions, self._name_of, unique=settings.short_forms == "unique")
        self._entity_of: dict[str, str] = {}
        """Names that are other entities."""
        self._joined: dict[str, set[str]] = defaultdict(set)
        """And those entities' names."""
        self._dirty: set[str] = set()
        """Names about which there is something else to say, and which may be other entities now."""
        self._to_join: set[str] = set()
        """Names that may be other entities now; if they are not, there is nothing to say."""
        self._new_decisions: list[EntityDecision] = []

    # --- learning ---

    def put(self, document: NamedDocument) -> PutOutcome:
        """A version of a document. ``known``: that one, or a later one, was here before. ``late``: it is too old."""
        return self.names.put(document)

    def decide(self, decision: EntityDecision) -> bool:
        """Somebody decided that; whether it was new."""
        if not self.decisions.add(decision):
            return False
        self._new_decisions.append(decision)
        affected = {entity for entity in (decision.entity, decision.target) if entity is not None}
        for entity in list(affected):
            top = self._entity_of.get(entity, entity)
            affected |= {top, *self._joined.get(top, ())}
        for entity in affected:
            if (part := self.names.names.get(entity)) is not None:
                # Which long forms a short form has depends on what is joined.
                self._to_join |= {entity_id(part.type, form) for form in part.forms}
        self._dirty |= affected
        return True

    def restore(
        self,
        *,
        latest_window: int | None,
        documents: Iterable[NamedDocument],
        sealed: Iterable[tuple[SealedKey, SealedCounts]],
        decisions: Iterable[EntityDecision],
        anew: bool = False,
    ) -> None:
        """Go on from what :class:`BookChanges` had. Of an empty book. Nothing counts as changed but the trends and what
        is forgotten since it is too much for these settings; every name does, if there were more windows before, or
        with ``anew``: what was said of them may not hold."""
        for decision in decisions:
            self.decide(decision)
        lost = self.names.restore(latest_window, documents, sealed)
        self._join()
        if anew or lost:
            # Which short forms mean which name may be different for any of them.
            self._dirty |= lost | {self._entity_of.get(name, name) for name in lost}
            self._dirty |= self.names.names.keys() | self._joined.keys()
        self.names.keep_limits()
        self._new_decisions.clear()

    # --- asking ---

    def take_changes(self) -> BookChanges:
        """What has changed since the last call."""
        entities = {entity: self.entity(entity) for entity in sorted(self._join())}
        decisions, self._new_decisions = self._new_decisions, []
        return BookChanges(entities, self.names.take_changes(), decisions)

    def take_trends(self, *, only_gone: bool = False) -> list[tuple[int, str, WindowTrend | None]]:
        """The windows and types whose counts have changed since the last call, with what they are now; ``only_gone``:
        those that have nothing any more. A book that is rebuilt does not know of these. After :meth:`take_changes`."""
        changed = self.names.changed_windows
        taken = {each for each in changed if not only_gone or each not in self.names.in_window}
        changed -= taken
        return [(window, kind, self._trend(window, kind)) for window, kind in sorted(taken)]

    def entity(self, name: str) -> EntityView | MergedName | None:
        """What there is to say about a name, by its id. As of the last :meth:`take_changes`."""
        if (entity := self._entity_of.get(name)) is not None:
            if (part := self.names.names.get(name)) is None:
                return None
            return MergedName(name, part.type, part.name, entity, self._joins.is_by_decision(name))
        parts, known = self._parts(name), self._name_of(name)
        if not parts or known is None:
            return None
        return view_of(name, *known, parts, most_aliases=self._settings.max_aliases)

    # --- what has changed ---

    def _name_of(self, entity: str) -> tuple[str, str] | None:
        part = self.names.names.get(entity)
        return self.decisions.name(entity) if part is None else (part.type, part.name)

    def _look_at(self, part: NameCounts, forms: Iterable[str]) -> None:
        for form in forms:
            self._joins.set_written(part.type, form, part.id, part.forms.get(form, 0))
            self._to_join.add(entity_id(part.type, form))
        self._dirty.add(part.id)

    def _join(self) -> set[str]:
        """Bring the joins up to date; returns the names about which there is something else to say."""
        changed = {each for name in self._dirty for each in (name, self._entity_of.get(name, name))}
        waiting, seen = [*(self._dirty | self._to_join)], self._dirty | self._to_join
        self._dirty, self._to_join = set(), set()
        while waiting:
            name = waiting.pop()
            before = self._entity_of.get(name, name)
            # Also of a name that no document has: a decision may lead through it.
            now = name if self._name_of(name) is None else self._joins.entity(name)
            if now == before:
                continue
            changed |= {name, before, now}
            affected = {*self._joined.get(before, ()), *self._joined.get(name, ()), before, now} - seen
            self._set_entity(name, before, now)
            self._count_in_trends(name)
            seen |= affected
            waiting += affected
        return changed

    def _set_entity(self, name: str, before: str, now: str) -> None:
        if before != name:
            self._joined[before].discard(name)
            if not self._joined[before]:
                del self._joined[before]
            del self._entity_of[name]
        if now != name:
            self._joined[now].add(name)
            self._entity_of[name] = now

    def _count_in_trends(self, name: str) -> None:
        if (part := self.names.names.get(name)) is not None:
            for window in part.windows:
                self.names.changed_in(window, part.type)

    def _trend(self, window: int, kind: str) -> WindowTrend | None:
        mentions: Counter[str] = Counter()
        documents: Counter[str] = Counter()
        for name in self.names.in_window.get((window, kind), ()):
            counts = self.names.names[name].windows[window]
            entity = self._entity_of.get(name, name)
            mentions[entity] += counts.mentions
            documents[entity] += counts.documents
        if not mentions:
            return None
        top = heapq.nsmallest(self._settings.trend_entities, mentions, key=lambda entity: (-mentions[entity], entity))
        shown = [
            TrendEntity(
                entity,
                self._shown_in(window, entity),
                mentions[entity],
                documents[entity],
                self._before(entity, window),
            )
            for entity in top
        ]
        return WindowTrend(window, kind, len(mentions), shown)

    def _parts(self, entity: str) -> Sequence[NameCounts]:
        return [self.names.names[each] for each in (entity, *self._joined.get(entity, ())) if each in self.names.names]

    def _before(self, entity: str, window: int) -> int:
        return sum(part.windows[window - 1].mentions for part in self._parts(entity) if window - 1 in part.windows)

    def _shown_in(self, window: int, entity: str) -> str:
        known = self._name_of(entity)
        surfaces: Counter[str] = Counter()
        for part in self._parts(entity):
            if window in part.windows:
                surfaces.update(part.windows[window].surfaces)
        return shown_name("" if known is None else known[1], surfaces)
