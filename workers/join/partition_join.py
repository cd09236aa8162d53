"""The documents of one partition that are open or remembered, and what has to be written about them. No I/O.

The answers of an open document are not acknowledged: after a crash they come again, from Kafka. So a document that is
answered quickly leaves no trace but its outcome. Three things are written, always a *group* of them in one transaction
(:mod:`workers.join.aggregator`):

- outcomes, together with one record of what they were about (to be remembered for ``remember_ms``);
- documents that are open for longer than ``checkpoint_ms``, so that their answers may be acknowledged;
- records that are not needed any more, deleted.

A ticket (an answer's acknowledgement) is given back when what its answer led to is committed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from el4ner.errors import DocumentError
from workers.join.rules import Closed, DocumentState, JoinInput, JoinRules, Open, Outcome

__all__ = ["Group", "PartitionJoin"]

_SPARE: Final = 1_000

T = TypeVar("T")


@dataclass(slots=True)
class _OpenEntry(Generic[T]):
    """An open document. ``tickets``: of answers that are in no record."""

    state: Open
    tickets: list[T] = field(default_factory=list)


@dataclass(slots=True)
class _SettledOutcome(Generic[T]):
    """An outcome on its way out. ``entry``: what it was made of, if the document was open before. ``has_record``: what
    the changelog says of the document is about that entry, as far as everything before this group goes."""

    outcome: Outcome
    tickets: list[T]
    entry: _OpenEntry[T] | None
    has_record: bool = False


@dataclass(slots=True)
class _SavedDocument(Generic[T]):
    """A document that stays open and is written down. ``tickets``: of the answers that it is made of."""

    document: str
    state: Open
    tickets: list[T]
    entry: _OpenEntry[T]


@dataclass(slots=True)
class Group(Generic[T]):
    """What is written in one transaction. ``number``: of the record of the outcomes, -1 if there are none.

    ``saved``: documents that stay open. ``drops``: ids whose record of an open document is deleted. ``forgets``:
    numbers of records of outcomes that are deleted.
    """

    number: int = -1
    settled: list[_SettledOutcome[T]] = field(default_factory=list)
    saved: list[_SavedDocument[T]] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    forgets: list[int] = field(default_factory=list)

    @property
    def tickets(self) -> list[T]:
        """What is finished when this is written."""
        tickets = [ticket for saved in self.saved for ticket in saved.tickets]
        return tickets + [ticket for settled in self.settled for ticket in settled.tickets]

    @property
    def saves(self) -> list[tuple[str, Open]]:
        """Documents that stay open."""
        return [(saved.document, saved.state) for saved in self.saved]

    @property
    def outcomes(self) -> list[Outcome]:
        """In the order in which they were settled."""
        return [settled.outcome for settled in self.settled]


class PartitionJoin(Generic[T]):
    """Times are milliseconds on one clock that never goes back. ``T``: an answer's ticket, which acknowledges it."""

    def __init__(self, rules: JoinRules, *, remember_ms: int, checkpoint_ms: int) -> None:
        self._rules = rules
        self._remember_ms = remember_ms
        self._checkpoint_ms = checkpoint_ms
        self._open: dict[str, _OpenEntry[T]] = {}
        # By document: whose record is in the changelog. A newer revision may be written down before the outcome of the
        # one before has gone out, and then the record is not the older one's to delete.
        self._records: dict[str, _OpenEntry[T]] = {}
        self._closed: dict[str, tuple[Closed, int]] = {}
        self._remembered: deque[tuple[int, int, list[str]]] = deque()
        self._settled: deque[_SettledOutcome[T]] = deque()
        self._on_its_way: dict[str, _SettledOutcome[T]] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._checkpoints: deque[tuple[int, str]] = deque()
        self._to_save: dict[str, None] = {}
        self._forgotten: list[int] = []
        self._next_number = 0
        self.open_bytes = 0

    # --- what is there ---

    @property
    def open_documents(self) -> int:
        """Documents that wait for an answer."""
        return len(self._open)

    @property
    def settled_documents(self) -> int:
        """Outcomes that wait to be written."""
        return len(self._settled)

    @property
    def remembered_documents(self) -> int:
        """Documents whose outcome is known."""
        return len(self._closed)

    @property
    def has_work(self) -> bool:
        """Whether :meth:`take` would give anything."""
        return bool(self._settled or self._to_save or self._forgotten)

    def oldest_since(self) -> int | None:
        """When the document that is open longest was begun, about."""
        while self._deadlines:
            due, document = self._deadlines[0]
            entry = self._open.get(document)
            if entry is not None and self._rules.due(entry.state) == due:
                return entry.state.since
            heapq.heappop(self._deadlines)
        return None

    # --- what comes ---

    def restore_open(self, document: str, state: Open) -> None:
        """A record of an open document, from the changelog."""
        entry: _OpenEntry[T] = _OpenEntry(state)
        self._records[document] = entry
        self._keep(document, state, entry)

    def restore_closed(self, number: int, until: int, documents: Iterable[tuple[str, Closed]]) -> None:
        """A record of outcomes, from the changelog; in the order of their numbers."""
        ids = []
        for document, closed in documents:
            self._closed[document] = (closed, number)
            ids.append(document)
        self._remembered.append((until, number, ids))
        self._next_number = max(self._next_number, number + 1)

    def apply(self, received: JoinInput, ticket: T, *, now: int) -> T | None:
        """Take a message in. Returns the ticket if nothing has to be written because of it, else keeps it.

        Raises:
            MessageError: as :meth:`workers.join.rules.JoinRules.apply`; the ticket is still the caller's.
        """
        entry = self._open.get(received.id)
        closed = self._closed.get(received.id)
        state: DocumentState | None = entry.state if entry is not None else closed[0] if closed is not None else None
        after, outcome = self._rules.apply(state, received, now=now)
        if outcome is not None:
            self._settle(outcome, [ticket], entry)
            return None
        if isinstance(after, Open) and after is not state:
            if entry is not None and after.revision == entry.state.revision:
                self._change(received.id, entry, after, ticket, now)
                return None
            new = _OpenEntry(after, [ticket])
            if entry is not None:
                # The answers of the revision that is given up are of no more use once this one is written down.
                new.tickets = [*entry.tickets, ticket]
                self.open_bytes -= entry.state.size
                if self._records.get(received.id) is entry:
                    self._records[received.id] = new
            self._keep(received.id, after, new)
            self._checkpoints.append((now + self._checkpoint_ms, received.id))
            return None
        on_its_way = self._on_its_way.get(received.id)
        if entry is None and on_its_way is not None:
            # Too late to change the outcome, but not if the outcome is lost in a crash.
            on_its_way.tickets.append(ticket)
            return None
        return ticket

    def tick(self, *, now: int, committed: int | None = None) -> None:
        """Settle what is due, and see what has to be written down or may be forgotten.

        ``committed``: the offset in the raw topic from which messages come again after a crash, where outcomes may be
        ahead of it; -1: not known. What is about them is remembered for as long as they may come.
        """
        while self._deadlines and self._deadlines[0][0] <= now:
            due, document = heapq.heappop(self._deadlines)
            entry = self._open.get(document)
            if entry is not None and self._rules.due(entry.state) <= due:
                self._settle(self._rules.expire(document, entry.state), [], entry)
        while self._checkpoints and self._checkpoints[0][0] <= now:
            _, document = self._checkpoints.popleft()
            entry = self._open.get(document)
            if entry is not None and entry.tickets:
                self._to_save[document] = None
        while self._remembered and self._remembered[0][0] <= now:
            _, number, documents = self._remembered[0]
            if committed is not None and self._is_ahead(number, documents, committed):
                break
            self._remembered.popleft()
            for document in documents:
                known = self._closed.get(document)
                if known is not None and known[1] == number:
                    del self._closed[document]
            self._forgotten.append(number)

    def _is_ahead(self, number: int, documents: Iterable[str], committed: int) -> bool:
        known = (self._closed.get(document) for document in documents)
        return any(each is not None and each[1] == number and each[0].position >= committed for each in known)

    # --- what goes ---

    def take(self, most: int) -> Group[T]:
        """What is to be written next; at most ``most`` outcomes and as many documents that stay open."""
        group = [self._settled.popleft() for _ in range(min(most, len(self._settled)))]
        for settled in group:
            settled.has_record = settled.entry is not None and self._records.get(settled.outcome.id) is settled.entry
        saved: list[_SavedDocument[T]] = []
        for document in list(self._to_save)[:most]:
            del self._to_save[document]
            entry = self._open.get(document)
            if entry is not None:
                saved.append(_SavedDocument(document, entry.state, entry.tickets, entry))
                entry.tickets = []
                self._records[document] = entry
        drops = []
        for settled in group:
            # Not where a newer revision is written down in its place, in this group.
            if settled.has_record and self._records.get(settled.outcome.id) is settled.entry:
                del self._records[settled.outcome.id]
                drops.append(settled.outcome.id)
        number = -1
        if group:
            number = self._next_number
            self._next_number += 1
        forgets, self._forgotten = self._forgotten, []
        return Group(number, group, saved, drops, forgets)

    def split(self, group: Group[T]) -> list[Group[T]]:
        """The same in as many groups as it has parts, in their order: one outcome or one open document in each.

        Between two parts the process may die. So an outcome takes the document's record along if that is about it, and
        no other outcome of the document does.
        """
        parts: list[Group[T]] = []
        for index, settled in enumerate(group.settled):
            number = group.number if index == 0 else self._next_number
            self._next_number += index > 0
            parts.append(Group(number, [settled], drops=[settled.outcome.id] if settled.has_record else []))
        parts += [Group(saved=[saved]) for saved in group.saved]
        if group.forgets:
            parts.append(Group(forgets=group.forgets))
        return parts

    def replace(self, group: Group[T], outcome: Outcome) -> None:
        """The one outcome of the group cannot be written; this one goes out in its place."""
        (settled,) = group.settled
        known = self._closed.get(outcome.id)
        if known is not None and known[0] is settled.outcome.closed:
            self._closed[outcome.id] = (outcome.closed, known[1])
        settled.outcome = outcome

    def give_up(self, group: Group[T], error: DocumentError) -> list[T]:
        """The one open document of the group cannot be written down: it comes out with what there is.

        Returns tickets of answers that nothing is to be written of any more.
        """
        (saved,) = group.saved
        entry = self._open.get(saved.document)
        if entry is not None:
            # Its answers, and those of a later revision that has come meanwhile, are acknowledged together.
            entry.tickets = [*saved.tickets, *entry.tickets]
            if entry is saved.entry:
                self._settle(self._rules.expire(saved.document, entry.state, error), [], entry)
            return []
        on_its_way = self._on_its_way.get(saved.document)
        if on_its_way is not None:
            on_its_way.tickets += saved.tickets
            return []
        return saved.tickets

    def committed(self, group: Group[T], *, now: int) -> list[T]:
        """The group is in Kafka. Returns the tickets of all answers whose outcome, or open document, is written now."""
        for settled in group.settled:
            document = settled.outcome.id
            if self._on_its_way.get(document) is settled:
                del self._on_its_way[document]
            known = self._closed.get(document)
            if known is not None and known[0] is settled.outcome.closed:
                self._closed[document] = (known[0], group.number)
        if group.settled:
            self._remembered.append((now + self._remember_ms, group.number, [outcome.id for outcome in group.outcomes]))
        return group.tickets

    def until(self, *, now: int) -> int:
        """Until when an outcome that is written now is remembered."""
        return now + self._remember_ms

    def _keep(self, document: str, state: Open, entry: _OpenEntry[T]) -> None:
        self._open[document] = entry
        self._closed.pop(document, None)
        self.open_bytes += state.size
        heapq.heappush(self._deadlines, (self._rules.due(state), document))
        if len(self._deadlines) > 2 * len(self._open) + _SPARE:
            # Most documents are settled long before their deadline, and there are many in an hour.
            self._deadlines = [(self._rules.due(entry.state), document) for document, entry in self._open.items()]
            heapq.heapify(self._deadlines)

    def _change(self, document: str, entry: _OpenEntry[T], after: Open, ticket: T, now: int) -> None:
        self.open_bytes += after.size - entry.state.size
        entry.state = after
        entry.tickets.append(ticket)
        if len(entry.tickets) == 1:
            # All that came before is written down.
            self._checkpoints.append((now + self._checkpoint_ms, document))

    def _settle(self, outcome: Outcome, tickets: list[T], entry: _OpenEntry[T] | None) -> None:
        if entry is not None:
            tickets = [*entry.tickets, *tickets]
            del self._open[outcome.id]
            self.open_bytes -= entry.state.size
        settled = _SettledOutcome(outcome, tickets, entry)
        self._settled.append(settled)
        self._on_its_way[outcome.id] = settled
        self._closed[outcome.id] = (outcome.closed, -1)
