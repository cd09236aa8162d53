"""What the page keeps of the stream, all of it bounded, and what each viewer is sent.

    a message → counted → kept among the latest → offered to each viewer, who is sent a sample of what is offered

On one event loop. No Kafka in here; the clock is passed in.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from workers.config import UiSettings
from workers.messages.envelope import peek
from workers.printable import escaped
from workers.ui.feed_records import FeedListener, FeedRecord
from workers.ui.live_filter import LiveFilter
from workers.ui.shown_documents import shown_string
from workers.ui.trend_counts import Mention, TrendCounts

__all__ = ["LiveFeed", "Viewer", "mention_of"]

_RATE_SECONDS: Final = 10
_RECENT: Final = 50
"""Documents that a viewer is sent when it comes."""
_MOST_NAME: Final = 80
_MOST_CHOICES: Final = 100
_MOST_TOLD: Final = 1_000
"""Deletions that a browser is told one by one; of more it begins anew."""
_MOST_DELETED: Final = 20_000
_TICKS: Final = 2
"""How often a second a viewer is sent documents."""


@dataclass(eq=False)
class Viewer:
    """A browser that looks at the stream: what it is to be sent next, and what it has missed.

    ``filter`` None: it wants no documents, and is told of deletions alone. ``anew``: what it shows from before is to be
    taken away, since it may have been deleted. ``offered`` of the documents since the last time matched the filter,
    ``seen`` came in all.
    """

    filter: LiveFilter | None
    waiting: deque[FeedRecord]
    anew: bool
    deleted: list[str] = field(default_factory=list)
    first: list[FeedRecord] = field(default_factory=list)
    """Those that were there when it came."""
    offered: int = 0
    seen: int = 0

    def take(self) -> dict[str, Any] | None:
        """What it is sent now; None: nothing is new."""
        if not (self.seen or self.deleted or self.first or self.anew):
            return None
        records = [*self.first, *self.waiting]
        documents = [shown for record in records if (shown := record.shown()) is not None]
        sent = {"documents": documents, "matched": self.offered, "seen": self.seen}
        sent |= {"anew": self.anew, "deleted": self.deleted}
        self.first, self.deleted, self.anew = [], [], False
        self.waiting.clear()
        self.offered = self.seen = 0
        return sent

    def forget(self, record_key: bytes, name: str) -> None:
        """A document was deleted."""
        self.first = [record for record in self.first if record.key != record_key]
        self.waiting = deque(
            (record for record in self.waiting if record.key != record_key), maxlen=self.waiting.maxlen
        )
        self.deleted.append(name)
        if len(self.deleted) > _MOST_TOLD:
            self.deleted, self.anew = [], True


class LiveFeed:
    """The stream's latest documents, its rates and trends, and the viewers.

    Args:
        now: seconds, by the clock that :meth:`take` is told the time of.
        listener: is told what comes, too.
    """

    def __init__(self, settings: UiSettings, now: float, listener: FeedListener | None = None) -> None:
        self._settings = settings
        self._listener = listener
        self._latest: deque[FeedRecord] = deque()
        self._latest_bytes = 0
        self._viewers: set[Viewer] = set()
        self._rates: deque[tuple[int, int]] = deque(maxlen=_RATE_SECONDS + 1)
        self._began = now
        self.trends = TrendCounts(settings.trend_names, now)
        self.types: dict[str, None] = {}
        self.pools: dict[str, None] = {}
        """What there is to filter by, as it is shown, in the order of coming, bounded."""
        self._deleted: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._told: deque[str] = deque(maxlen=_MOST_TOLD)
        self._known_from: dict[int, int] = {}
        self.documents = 0
        self.unreadable = 0
        self.skipped = 0

    @property
    def viewers(self) -> int:
        """How many there are."""
        return len(self._viewers)

    def view(self, wanted: LiveFilter | None) -> Viewer:
        """A new viewer, who is sent the latest documents first; None: who is told what is deleted, and was lately. Give
        it back by :meth:`leave`."""
        viewer = Viewer(wanted, deque(maxlen=max(1, self._settings.live_documents // _TICKS)), anew=wanted is not None)
        if wanted is None:
            viewer.deleted = list(self._told)
            self._viewers.add(viewer)
            return viewer
        recent: list[FeedRecord] = []
        for record in reversed(self._latest):
            if len(recent) == _RECENT:
                break
            value = _parsed(record.value or b"")
            if value is not None and wanted.wants(value):
                recent.append(record)
        viewer.first = list(reversed(recent))
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Nobody looks any more."""
        self._viewers.discard(viewer)

    def take(self, record: FeedRecord, now: float) -> None:
        """A message that came."""
        self._count(now)
        if record.value is None:
            self._forget(record)
            return
        value = _parsed(record.value)
        if value is None:
            self.unreadable += 1
            return
        self.documents += 1
        self._note_choice(self.pools, value["pool"])
        mentions = [mention_of(entity) for entity in value["entities"]]
        for entity in value["entities"]:
            self._note_choice(self.types, entity["type"])
        self.trends.add(mentions, (record.partition, record.offset), now)
        self._keep(record)
        if self._listener is not None:
            self._listener.take(record, value)
        for viewer in self._viewers:
            if viewer.filter is None:
                continue
            viewer.seen += 1
            if viewer.filter.wants(value):
                viewer.offered += 1
                viewer.waiting.append(record)

    def rate(self, now: float) -> float:
        """Documents a second, over the latest ten whole seconds."""
        second = int(now)
        seconds = min(_RATE_SECONDS, second - int(self._began))
        if seconds < 1:
            return 0.0
        return sum(count for at, count in self._rates if second - seconds <= at < second) / seconds

    def find(self, place: tuple[int, int]) -> FeedRecord | None:
        """A document that is kept."""
        return next((each for each in self._latest if (each.partition, each.offset) == place), None)

    def is_deleted(self, name: str, place: tuple[int, int]) -> bool:
        """Whether the document of this id that lies there was deleted since, or may have been without our knowing. The
        broker still has it until it compacts the topic."""
        partition, offset = place
        if offset < self._known_from.get(partition, 0):
            return True
        deletion = self._deleted.get(_digest(name.encode()))
        return deletion is not None and (deletion[0] != partition or offset < deletion[1])

    def begins_at(self, partition: int, offset: int) -> None:
        """What lies before was not read: nobody knows what was deleted there."""
        self._known_from[partition] = max(offset, self._known_from.get(partition, 0))
        self._latest = deque(each for each in self._latest if each.partition != partition)
        self._latest_bytes = sum(len(each.value or b"") for each in self._latest)
        if self._listener is not None:
            self._listener.begins_at(partition)
        for viewer in self._viewers:
            viewer.anew = True

    def _count(self, now: float) -> None:
        second = int(now)
        if self._rates and self._rates[-1][0] >= second:
            at, count = self._rates[-1]
            self._rates[-1] = (at, count + 1)
        else:
            self._rates.append((second, 1))

    def _note_choice(self, choices: dict[str, None], choice: str | None) -> None:
        if choice is not None and choice not in choices and len(choices) < _MOST_CHOICES:
            choices[shown_string(choice)] = None

    def _keep(self, record: FeedRecord) -> None:
        self._latest.append(record)
        self._latest_bytes += len(record.value or b"")
        while self._latest and (
            len(self._latest) > self._settings.keep_documents or self._latest_bytes > self._settings.keep_mb << 20
        ):
            self._latest_bytes -= len(self._latest.popleft().value or b"")

    def _forget(self, deletion: FeedRecord) -> None:
        """A document was deleted: nobody is shown it any more, and browsers are told to take it away."""
        key = deletion.key or b""
        if self._listener is not None:
            self._listener.forget(key)
        kept = deque(record for record in self._latest if record.key != key)
        self._latest, self._latest_bytes = kept, sum(len(record.value or b"") for record in kept)
        digest = _digest(key)
        self._deleted[digest] = (deletion.partition, deletion.offset)
        self._deleted.move_to_end(digest)
        if len(self._deleted) > _MOST_DELETED:
            partition, offset = self._deleted.popitem(last=False)[1]
            self._known_from[partition] = max(offset, self._known_from.get(partition, 0))
        name = shown_string(key.decode("utf-8", "replace"))  # as documents are named
        self._told.append(name)
        for viewer in self._viewers:
            viewer.forget(key, name)


def mention_of(entity: Mapping[str, Any]) -> Mention:
    """What an entity is counted as: its type, and its surface with single spaces, as they are shown, cut."""
    kind, surface = entity["type"][:_MOST_NAME], " ".join(entity["text"][: 2 * _MOST_NAME].split())[:_MOST_NAME]
    return escaped(kind, lines=False)[:_MOST_NAME], escaped(surface, lines=False)[:_MOST_NAME]


def _digest(key: bytes) -> bytes:
    """A key may be of any length."""
    return hashlib.blake2b(key, digest_size=16).digest()


def _parsed(value: bytes) -> dict[str, Any] | None:
    """The message, if it has what the feed looks at. Whether all of it is as its schema has it is checked of what is
    shown: at a thousand documents a second that would be most of the work."""
    try:
        data = peek(value)
        if isinstance(data["pool"], str | None) and isinstance(data["status"], str):
            for entity in data["entities"]:
                if not (
                    isinstance(entity["type"], str)
                    and isinstance(entity["text"], str)
                    and isinstance(entity["confidence"], float | int)
                ):
                    return None
            return data  # type: ignore[no-any-return]
    except (KeyError, TypeError):
        pass
    return None
