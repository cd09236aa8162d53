"""entity-occurrences and entity-decisions → entities and trends: the one owner of all entities.

What a batch leads to (entities, the changelog's records) and its offset are one transaction. Where there are very many
entities, transactions with some of them come before it: if it fails, the batch comes again, and they with it. Whoever
takes over fences the owner before off and rebuilds the book from the changelog: it is what was committed, neither more
nor less.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from el4ner.canonical.entity_book import BookChanges, EntityBook
from el4ner.canonical.entity_settings import EntitySettings
from el4ner.canonical.entity_views import EntityView, MergedName
from el4ner.errors import MessageError
from workers.entities.entity_messages import entity_message, read_decision, trend_message
from workers.entities.occurrence_partition import TakenRecord
from workers.entities.occurrences import named_document
from workers.entities.state_changelog import EntityState, EntityStateError, state_records, writing_settings
from workers.join.agent import World
from workers.join.owned_partition import ConsumedPartition
from workers.kafka.offsets import OffsetTracker
from workers.kafka.transactions import ConsumedOffset, TransactionalWriter
from workers.messages.envelope import Outgoing, Record, coordinates, dead_letter, decode
from workers.messages.headers import next_trace
from workers.roles import ENTITIES
from workers.topics import Topic

__all__ = ["BookPartition", "restored_book"]

log = logging.getLogger(__name__)

_AT_ONCE: Final = 500
"""Messages that are taken in at once at most."""
_WRITTEN_AT_ONCE: Final = 5_000
"""Entities of one transaction at most. When a window begins, all of the one that is over have changed."""


def restored_book(settings: EntitySettings, state: EntityState) -> EntityBook:
    """The book that the changelog tells of.

    Raises:
        EntityStateError: it was written with windows of another length.
    """
    if state.window_hours not in (None, settings.window_hours):
        raise EntityStateError(
            f"entities.window_hours is {settings.window_hours}, but what is kept was counted by windows of "
            f"{state.window_hours}: set it back, or delete the topics entities, entity-trends, entity-occurrences and "
            "the entities' changelog, and the consumer group, to count anew"
        )
    book = EntityBook(settings)
    book.restore(
        latest_window=state.latest_window,
        documents=state.documents.values(),
        sealed=state.sealed.values(),
        decisions=state.decisions.values(),
        anew=state.window_hours is not None and state.written_by != writing_settings(settings),
    )
    return book


@dataclass(eq=False)
class BookPartition:
    """The book, with its one writer. ``consumed``: how far it has come with each of its topics.

    ``uncounted`` is called for a document that is too old to count, ``gave_up`` with the code of what cannot be read.
    """

    book: EntityBook
    settings: EntitySettings
    changelog: str
    writer: TransactionalWriter
    consumed: dict[Topic, ConsumedPartition]
    positions: OffsetTracker
    world: World
    uncounted: Callable[[], None]
    gave_up: Callable[[str], None]
    _trends_at_ms: int = field(default=-1, init=False)
    _arrivals: int = field(init=False)

    def __post_init__(self) -> None:
        self._arrivals = self.book.names.latest_version

    async def work(self, taken: Sequence[TakenRecord]) -> None:
        """Take messages of one topic in, in their order, and write what has changed."""
        for first in range(0, len(taken), _AT_ONCE):
            group = taken[first : first + _AT_ONCE]
            letters = await asyncio.to_thread(self._take_in, [record for record, _ in group])
            tickets = [ticket for _, ticket in group]
            consumed = self.consumed[group[0][0].topic]
            offset = consumed.offset(tickets)
            await self._write_changes(letters, offset)
            if offset is not None:
                consumed.committed(offset)
            for ticket in tickets:
                self.positions.finish(ticket)

    async def look(self) -> None:
        """Write trends that are due, and commit what lies behind the last messages."""
        now = self.world.monotonic_ms()
        messages: list[Outgoing] = []
        if self._trends_at_ms < 0:
            # Other settings, or less room than the owner before had: what it wrote is no longer so.
            await self._write_changes([], None)
        if self._trends_at_ms < 0 or now - self._trends_at_ms >= self.settings.trend_seconds * 1000:
            messages = await asyncio.to_thread(self._trends)
            self._trends_at_ms = now
        if messages:
            await self.writer.write(messages)
        for consumed in self.consumed.values():
            if (offset := consumed.offset()) is not None:
                await self.writer.write([], offset)
                consumed.committed(offset)

    async def stop(self) -> None:
        """Let go of it."""
        await self.writer.stop()

    def _take_in(self, records: Sequence[Record]) -> list[Outgoing]:
        """Learn of them; returns dead letters."""
        letters = []
        for record in records:
            try:
                self._learn(record)
            except MessageError as error:
                now = self.world.clock_ms()
                letters.append(dead_letter(record, stage=ENTITIES, error=error, document=None, attempts=1, now_ms=now))
                self.gave_up(error.code)
                log.warning(
                    "a message is passed over: %s",
                    error,
                    extra={"stage": ENTITIES, "code": error.code, "source": coordinates(record)},
                )
        return letters

    async def _write_changes(self, letters: Sequence[Outgoing], offset: ConsumedOffset | None) -> None:
        changes = await asyncio.to_thread(self.book.take_changes)
        entities = list(changes.entities.items())
        while len(entities) > _WRITTEN_AT_ONCE:
            page, entities = entities[:_WRITTEN_AT_ONCE], entities[_WRITTEN_AT_ONCE:]
            await self.writer.write(await asyncio.to_thread(self._entities, page))
        rest = await asyncio.to_thread(self._rest, entities, changes)
        messages = [*letters, *rest]
        if messages or offset is not None:
            await self.writer.write(messages, offset)

    def _rest(
        self, entities: Sequence[tuple[str, EntityView | MergedName | None]], changes: BookChanges
    ) -> list[Outgoing]:
        gone = self._trends(only_gone=True)
        return [*self._entities(entities), *gone, *state_records(changes, self.changelog, self.settings)]

    def _entities(self, views: Sequence[tuple[str, EntityView | MergedName | None]]) -> list[Outgoing]:
        now, trace = self.world.clock_ms(), next_trace((), self.world.random)
        window_ms = self.book.names.window_ms
        return [entity_message(entity, view, window_ms, now_ms=now, trace=trace) for entity, view in views]

    def _learn(self, record: Record) -> None:
        if record.value is None:
            return  # nothing that was written here is ever taken back by a null
        if record.topic is Topic.ENTITY_DECISIONS:
            self.book.decide(read_decision(record.key, record.value))
            return
        document = named_document(decode(record.topic, record.value), self._arrivals + 1)
        self._arrivals += 1
        if self.book.put(document) == "late":
            self.uncounted()

    def _trends(self, *, only_gone: bool = False) -> list[Outgoing]:
        now, trace = self.world.clock_ms(), next_trace((), self.world.random)
        window_ms = self.book.names.window_ms
        return [
            trend_message(window, kind, trend, window_ms, now_ms=now, trace=trace)
            for window, kind, trend in self.book.take_trends(only_gone=only_gone)
        ]
