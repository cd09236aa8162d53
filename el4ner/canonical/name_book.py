"""What documents have of names, within the kept windows, and the limits of that."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from el4ner.canonical.entity_settings import EntitySettings
from el4ner.canonical.name_counts import NameCounts, SealedCounts
from el4ner.canonical.names import canonical_name, entity_id

__all__ = ["NameBook", "NameChanges", "NamedDocument", "PutOutcome", "SealedKey"]

PutOutcome = Literal["counted", "known", "late"]
_HOUR_MS: Final = 3_600_000
_EVICTED_SHARE: Final = 20
"""When there are too many names, one in so many goes at once: to look for the oldest costs a sort."""
_SPARE_TIMES: Final = 1_000
"""Times of versions that are no more, beside one for each document, before they are cleared away."""

Surfaces = Mapping[str, int]
SealedKey = tuple[str, str, int]
"""Type, name and window."""


@dataclass(frozen=True, slots=True)
class NamedDocument:
    """What a version of a document counts: types and names, with how often each spelling of them is there.

    ``key``: of the document, short and the same for all its versions. The greatest ``version`` counts. A document that
    was deleted has no names.
    """

    key: str
    version: int
    time_ms: int
    names: tuple[tuple[str, str, Surfaces], ...] = ()


@dataclass(slots=True)
class NameChanges:
    """What a book is rebuilt from, as far as it is different since it was last asked. None: it is no more."""

    documents: dict[str, NamedDocument | None] = field(default_factory=dict)
    sealed: dict[SealedKey, SealedCounts | None] = field(default_factory=dict)
    latest_window: int | None = None


class NameBook:
    """The names, by their ids.

    Args:
        settings: the limits.
        changed: told of a name whose counts have changed, and the forms that it was written in more or less often. One
            that has no windows any more is gone.
    """

    def __init__(self, settings: EntitySettings, changed: Callable[[NameCounts, Iterable[str]], None]) -> None:
        self._settings = settings
        self._changed = changed
        self.names: dict[str, NameCounts] = {}
        self.in_window: dict[tuple[int, str], set[str]] = defaultdict(set)
        """Ids of the names of each type that each window has."""
        self.changed_windows: set[tuple[int, str]] = set()
        """Windows and types whose counts have changed; whoever reads it empties it."""
        self.sealed = 0
        """Documents that were sealed."""
        self.evicted = 0
        """Names that were forgotten because there were too many."""
        self._documents: dict[str, NamedDocument] = {}
        self._oldest: list[tuple[int, str]] = []
        self._latest_window: int | None = None
        self._changes = NameChanges()

    @property
    def documents(self) -> int:
        """Documents that are remembered."""
        return len(self._documents)

    @property
    def latest_version(self) -> int:
        """The greatest version of a remembered document; 0: there is none."""
        return max((document.version for document in self._documents.values()), default=0)

    @property
    def window_ms(self) -> int:
        """The length of a window."""
        return self._settings.window_hours * _HOUR_MS

    @property
    def first_window(self) -> int:
        """The first one that is kept."""
        return 0 if self._latest_window is None else self._latest_window - self._settings.windows + 1

    def window_of(self, time_ms: int) -> int:
        """The number of the window that a time lies in."""
        return time_ms // self.window_ms

    def put(self, document: NamedDocument) -> PutOutcome:
        """A version of a document. ``known``: that one, or a later one, was here before. ``late``: it is too old."""
        before = self._documents.get(document.key)
        if before is not None and document.version <= before.version:
            return "known"
        if before is not None:
            self._take_back(before)
        window = self.window_of(document.time_ms)
        if self._latest_window is None or window > self._latest_window:
            self._begin(window)
        if window < self.first_window:
            self._forget(document.key)
            return "late"
        self._remember(document)
        self.keep_limits()
        return "counted"

    def changed_in(self, window: int, kind: str) -> None:
        """Something has changed about names of a type in a window."""
        self.changed_windows.add((window, kind))
        if (window + 1, kind) in self.in_window:
            # It is compared with the one before.
            self.changed_windows.add((window + 1, kind))

    def restore(
        self,
        latest_window: int | None,
        documents: Iterable[NamedDocument],
        sealed: Iterable[tuple[SealedKey, SealedCounts]],
    ) -> set[str]:
        """Go on from what :class:`NameChanges` had. Of an empty book; before :meth:`keep_limits`. Returns the ids of
        names that have lost something, since more windows were kept before."""
        over = NameChanges(latest_window=latest_window)
        lost: set[tuple[str, str, int]] = set()
        if latest_window is not None:
            self._begin(latest_window)
        for (kind, name, window), counts in sealed:
            if window >= self.first_window:
                part = self._named(kind, name)
                part.restore(window, counts)
                self._counted(part, window, counts.surfaces)
            else:
                over.sealed[kind, name, window] = None
                lost.add((kind, name, window))
        for document in documents:
            if (window := self.window_of(document.time_ms)) >= self.first_window:
                self._remember(document)
            else:
                over.documents[document.key] = None
                lost.update((kind, name, window) for kind, name, _ in document.names)
        self._changes = over
        self.changed_windows |= {(window, kind) for kind, _, window in lost}
        return {entity_id(kind, name) for kind, name, _ in lost}

    def keep_limits(self) -> None:
        """Seal and forget what is too much."""
        self._seal_some()
        self._evict_some()

    def take_changes(self) -> NameChanges:
        """What has changed since the last call."""
        changes, self._changes = self._changes, NameChanges()
        return changes

    def _remember(self, document: NamedDocument) -> None:
        self._documents[document.key] = self._changes.documents[document.key] = document
        heapq.heappush(self._oldest, (document.time_ms, document.key))
        if len(self._oldest) > 2 * len(self._documents) + _SPARE_TIMES:
            self._oldest = [(each.time_ms, each.key) for each in self._documents.values()]
            heapq.heapify(self._oldest)
        window = self.window_of(document.time_ms)
        for kind, name, surfaces in document.names:
            part = self._named(kind, name)
            part.add(document.key, window, document.time_ms, surfaces)
            self._counted(part, window, surfaces)

    def _take_back(self, document: NamedDocument) -> None:
        window = self.window_of(document.time_ms)
        for kind, name, surfaces in document.names:
            if (part := self.names.get(entity_id(kind, name))) is not None:
                part.take_back(document.key, window, surfaces)
                self._counted(part, window, surfaces)

    def _forget(self, key: str) -> None:
        if self._documents.pop(key, None) is not None:
            self._changes.documents[key] = None

    def _oldest_documents(self) -> Iterator[NamedDocument]:
        """The remembered ones, oldest first. Each is taken out, unless the caller stops before."""
        while self._oldest:
            time_ms, key = self._oldest[0]
            document = self._documents.get(key)
            if document is not None and document.time_ms == time_ms:
                yield document
                self._forget(key)
            heapq.heappop(self._oldest)

    def _seal_some(self) -> None:
        if len(self._documents) <= self._settings.max_documents:
            return
        for document in self._oldest_documents():
            if len(self._documents) <= self._settings.max_documents:
                return
            self.sealed += 1
            window = self.window_of(document.time_ms)
            for kind, name, surfaces in document.names:
                part = self.names.get(entity_id(kind, name))
                if part is None or document.key not in part.documents:
                    continue
                part.seal(document.key, window, surfaces)
                self._changes.sealed[kind, name, window] = part.windows[window].sealed

    def _begin(self, window: int) -> None:
        """A later window than any before."""
        self._latest_window = self._changes.latest_window = window
        first = self.first_window
        for document in self._oldest_documents():
            if self.window_of(document.time_ms) >= first:
                break
            for kind, name, _ in document.names:
                if (part := self.names.get(entity_id(kind, name))) is not None:
                    part.documents.pop(document.key, None)
        over: dict[str, list[int]] = defaultdict(list)
        for key in [each for each in self.in_window if each[0] < first]:
            for entity in self.in_window.pop(key):
                over[entity].append(key[0])
        for entity, windows in over.items():
            part = self.names[entity]
            forms = list(part.forms)
            for old in windows:
                self.changed_in(old, part.type)
                if part.windows[old].sealed is not None:
                    self._changes.sealed[part.type, part.name, old] = None
            part.drop_windows(windows)
            self._tell(part, forms)

    def _named(self, kind: str, name: str) -> NameCounts:
        entity = entity_id(kind, name)
        if (part := self.names.get(entity)) is None:
            part = self.names[entity] = NameCounts(entity, kind, name)
        return part

    def _counted(self, part: NameCounts, window: int, surfaces: Iterable[str]) -> None:
        """What is counted of a name in a window has changed, by these spellings."""
        if window in part.windows:
            self.in_window[window, part.type].add(part.id)
        else:
            self._out_of(window, part)
        self.changed_in(window, part.type)
        self._tell(part, {canonical_name(surface) for surface in surfaces})

    def _out_of(self, window: int, part: NameCounts) -> None:
        if (there := self.in_window.get((window, part.type))) is not None:
            there.discard(part.id)
            if not there:
                del self.in_window[window, part.type]

    def _tell(self, part: NameCounts, forms: Iterable[str]) -> None:
        if not part.windows:
            self.names.pop(part.id, None)
        self._changed(part, forms)

    def _forget_in_documents(self, part: NameCounts) -> None:
        """Its documents lose it too: a book that is rebuilt from them does not have it either."""
        for key in part.documents:
            if (document := self._documents.get(key)) is not None:
                names = tuple(each for each in document.names if each[:2] != (part.type, part.name))
                self._documents[key] = self._changes.documents[key] = replace(document, names=names)
        part.documents.clear()

    def _evict_some(self) -> None:
        if len(self.names) <= self._settings.max_entities:
            return
        count = len(self.names) - self._settings.max_entities + self._settings.max_entities // _EVICTED_SHARE
        for part in heapq.nsmallest(count, self.names.values(), key=lambda each: (each.last_ms, each.id)):
            self.evicted += 1
            forms, windows = list(part.forms), list(part.windows)
            for window in windows:
                if part.windows[window].sealed is not None:
                    self._changes.sealed[part.type, part.name, window] = None
                self.changed_in(window, part.type)
                self._out_of(window, part)
            self._forget_in_documents(part)
            part.drop_windows(windows)
            self._tell(part, forms)
