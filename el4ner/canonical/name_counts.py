"""What is counted of one name, by windows of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from el4ner.canonical.names import canonical_name

__all__ = ["NameCounts", "SealedCounts", "WindowCounts"]

_MOST_SURFACES: Final = 50
"""Spellings of a name in a window; of more, each counts as the name that it writes, of which there are few."""


@dataclass(slots=True)
class SealedCounts:
    """What documents counted that are not remembered any more: it is not taken back."""

    documents: int
    first_ms: int
    last_ms: int
    surfaces: dict[str, int]


@dataclass(slots=True)
class WindowCounts:
    """Mentions by their spelling, and documents, within a window. ``sealed``: how much of it is sealed."""

    documents: int = 0
    surfaces: dict[str, int] = field(default_factory=dict)
    sealed: SealedCounts | None = None

    @property
    def mentions(self) -> int:
        """Of all spellings."""
        return sum(self.surfaces.values())

    def add(self, surfaces: Mapping[str, int], documents: int = 1) -> None:
        """Documents have these."""
        self.documents += documents
        for surface, count in surfaces.items():
            _count(self.surfaces, surface, count)

    def take_back(self, surfaces: Mapping[str, int]) -> None:
        """A document has them no more."""
        self.documents -= 1
        for surface, count in surfaces.items():
            left = self.surfaces.get(surface, 0) - count
            if surface in self.surfaces and left >= 0:
                if left:
                    self.surfaces[surface] = left
                else:
                    del self.surfaces[surface]
                continue
            # Some of it was counted as the name it writes.
            self.surfaces.pop(surface, None)
            plain = canonical_name(surface)
            if (rest := self.surfaces.get(plain, 0) + left) > 0:
                self.surfaces[plain] = rest
            else:
                self.surfaces.pop(plain, None)

    def seal(self, surfaces: Mapping[str, int], time_ms: int) -> None:
        """What a document of that time counted is not taken back any more."""
        if self.sealed is None:
            self.sealed = SealedCounts(0, time_ms, time_ms, {})
        self.sealed.documents += 1
        self.sealed.first_ms = min(self.sealed.first_ms, time_ms)
        self.sealed.last_ms = max(self.sealed.last_ms, time_ms)
        for surface, count in surfaces.items():
            _count(self.sealed.surfaces, surface, count)


def _count(surfaces: dict[str, int], surface: str, count: int) -> None:
    key = surface if surface in surfaces or len(surfaces) < _MOST_SURFACES else canonical_name(surface)
    surfaces[key] = surfaces.get(key, 0) + count


@dataclass(eq=False, slots=True)
class NameCounts:
    """A name of a type, with what is counted of it.

    ``documents``: keys of the remembered ones that have it, and their times. ``forms``: how often it was written as
    which name, its short forms among them.
    """

    id: str
    type: str
    name: str
    windows: dict[int, WindowCounts] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    forms: Counter[str] = field(default_factory=Counter)
    _first_ms: int = 0
    _last_ms: int = 0
    _times_are_stale: bool = False

    @property
    def first_ms(self) -> int:
        """The earliest time of all that is counted."""
        self._look_at_times()
        return self._first_ms

    @property
    def last_ms(self) -> int:
        """The latest one."""
        self._look_at_times()
        return self._last_ms

    def add(self, document: str, window: int, time_ms: int, surfaces: Mapping[str, int]) -> None:
        """A document has it so often."""
        self._seen(time_ms, time_ms)
        self.documents[document] = time_ms
        self.windows.setdefault(window, WindowCounts()).add(surfaces)
        self._wrote(surfaces, 1)

    def take_back(self, document: str, window: int, surfaces: Mapping[str, int]) -> None:
        """The document does not count any more."""
        time_ms = self.documents.pop(document, None)
        counts = self.windows.get(window)
        if time_ms is None or counts is None:
            return
        counts.take_back(surfaces)
        self._wrote(surfaces, -1)
        if counts.documents <= 0:
            del self.windows[window]
        if time_ms in (self._first_ms, self._last_ms):
            self._times_are_stale = True

    def seal(self, document: str, window: int, surfaces: Mapping[str, int]) -> None:
        """The document is not remembered any more, and goes on to count."""
        time_ms = self.documents.pop(document, None)
        counts = self.windows.get(window)
        if time_ms is not None and counts is not None:
            counts.seal(surfaces, time_ms)

    def restore(self, window: int, sealed: SealedCounts) -> None:
        """What was sealed of a window before."""
        self._seen(sealed.first_ms, sealed.last_ms)
        counts = self.windows.setdefault(window, WindowCounts())
        counts.add(sealed.surfaces, sealed.documents)
        counts.sealed = sealed
        self._wrote(sealed.surfaces, 1)

    def drop_windows(self, windows: Iterable[int]) -> None:
        """These windows are over; documents of theirs were taken out before."""
        for window in windows:
            self._wrote(self.windows.pop(window).surfaces, -1)
        self._times_are_stale = True

    def _wrote(self, surfaces: Mapping[str, int], sign: int) -> None:
        for surface, count in surfaces.items():
            form = canonical_name(surface)
            self.forms[form] += sign * count
            if not self.forms[form]:
                del self.forms[form]

    def _seen(self, first_ms: int, last_ms: int) -> None:
        if not self.windows:
            self._first_ms, self._last_ms, self._times_are_stale = first_ms, last_ms, False
        else:
            self._first_ms, self._last_ms = min(self._first_ms, first_ms), max(self._last_ms, last_ms)

    def _look_at_times(self) -> None:
        # All documents are looked at for it: once when somebody asks, and not for each that was taken back.
        if not self._times_are_stale:
            return
        self._times_are_stale = False
        sealed = [counts.sealed for counts in self.windows.values() if counts.sealed is not None]
        times = [*self.documents.values(), *(time for each in sealed for time in (each.first_ms, each.last_ms))]
        self._first_ms, self._last_ms = (min(times), max(times)) if times else (0, 0)
