"""The join of what members in different processes answer: when a stage's answer is ready. Pure: no I/O.

    (nothing) ──answer──▶ Open ──all members, or deadline, or no room──▶ settled ──delivered──▶ remembered ──▶ (nothing)
        └───────────────────┴───────────────deletion───────────────────────▲

Members answer in any order, and may answer twice. Nothing is written down: the answers of what is open are not
acknowledged, so that after a crash they come again. A ticket (an answer's acknowledgement) is given back when it leads
to nothing more, or when what it led to is delivered.

- Only answers to the same *question* go together: the same candidates, pool and prompts. Where a stage before answered
  twice, and not the same, or processes are of two releases, the question with the most members wins when time is up.
- Where the pool was taught something while the members answered, some answer by what it was before, and some by what it
  is now. Nobody will answer again, so it is decided when all have answered: the version with the most members wins, and
  of equals the one whose answers began last. Mostly that is the newer one. Not where a process that has yet to read
  the correction is the slower one: then the document is tagged as if it had come just before the correction.
- A member that failed has answered. When all have failed, so has the stage.
- A higher revision (or replay) starts again, a lower one is dropped; so is what is late: the stage's answer is settled.
- A document's place in the raw topic orders what its revision does not: answers from before a deletion are dropped.

Times are milliseconds on a clock of the caller's that never goes back, and passed in.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from workers.messages.envelope import Origin

__all__ = ["MemberAnswer", "MemberDeletion", "MemberJoin", "SettledAnswer"]

T = TypeVar("T")
Key = tuple[str, str]
"""Stage and document."""


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """What some members answered. ``expected``: the ensemble, in its order. ``question``: names what they were asked;
    None: they failed. ``size``: of the message, in bytes. ``lineage``: names what they were asked, whatever the pool
    was taught over its files; empty: they failed."""

    stage: str
    document: str
    revision: int
    members: tuple[str, ...]
    expected: tuple[str, ...]
    question: str | None
    origin: Origin
    size: int
    lineage: str = ""


@dataclass(frozen=True, slots=True)
class MemberDeletion:
    """A null value: the document is gone, and the stage after has to know."""

    stage: str
    document: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class SettledAnswer(Generic[T]):
    """What a stage's answer is made of; or a deletion to pass on (``deleted``), which is the one of ``tickets``.

    ``parts``: members and their answer to one question, in the ensemble's order; ``failures``: of members that failed,
    in that order. ``expected``: the ensemble. ``tickets``: all that lead to this, to be finished when it is delivered.
    """

    stage: str
    document: str
    parts: tuple[tuple[tuple[str, ...], T], ...] = ()
    failures: tuple[T, ...] = ()
    expected: tuple[str, ...] = ()
    tickets: tuple[T, ...] = ()
    deleted: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Members that have no part in the answer."""
        answered = {name for members, _ in self.parts for name in members}
        return tuple(name for name in self.expected if name not in answered)


MemberAnswers = dict[tuple[str, ...], tuple[MemberAnswer, T]]


@dataclass(slots=True)
class _OpenAnswer(Generic[T]):
    """``attempt``: revision and replays. ``position``: of the document in the raw topic. ``groups``: by question."""

    attempt: tuple[int, int]
    since: int
    position: int = -1
    groups: dict[str, MemberAnswers[T]] = field(default_factory=dict)
    failures: MemberAnswers[T] = field(default_factory=dict)
    size: int = 0

    def add(self, answer: MemberAnswer, ticket: T) -> bool:
        """Whether it is new."""
        group = self.failures if answer.question is None else self.groups.setdefault(answer.question, {})
        if answer.members in group:
            return False
        group[answer.members] = (answer, ticket)
        self.size += answer.size
        self.position = max(self.position, answer.origin.position)
        return True

    @property
    def is_complete(self) -> bool:
        failed = _members(self.failures)
        groups = [group for group in (*self.groups.values(), self.failures) if group]
        if any(set(_expected(group)) <= _members(group) | failed for group in groups):
            return True
        by_lineage: dict[str, set[str]] = {}
        for group in self.groups.values():
            if lineage := _lineage(group):
                by_lineage.setdefault(lineage, set(failed)).update(_members(group))
        expected = {name for group in groups for name in _expected(group)}
        return any(expected <= answered for answered in by_lineage.values())

    def _best(self) -> MemberAnswers[T]:
        """The question with the most members. Of equals the first one, and of versions of a pool the one that was
        answered by last."""
        best: MemberAnswers[T] = {}
        for group in self.groups.values():
            of_one_lineage = bool(best) and _lineage(group) != "" and _lineage(group) == _lineage(best)
            if len(_members(group)) > len(_members(best)) - of_one_lineage:
                best = group
        return best

    def tickets(self) -> list[T]:
        return [ticket for group in (*self.groups.values(), self.failures) for _, ticket in group.values()]

    def settled(self, stage: str, document: str) -> SettledAnswer[T]:
        best = self._best()
        expected = _expected(best or self.failures)
        return SettledAnswer(
            stage,
            document,
            tuple((members, ticket) for members, (_, ticket) in _in_order(best, expected)),
            tuple(ticket for _, (_, ticket) in _in_order(self.failures, expected)),
            expected,
            tuple(self.tickets()),
        )


@dataclass(eq=False, slots=True)
class _LastAttempt:
    """What is remembered of a document. ``attempt``: the one that was settled last; None if none was since the document
    was deleted. ``position``: where that attempt lay. ``deleted``: where the last deletion lay. ``until``: when this is
    forgotten; None if the answer is not delivered yet."""

    attempt: tuple[int, int] | None = None
    position: int = -1
    deleted: int = -1
    until: int | None = None


class MemberJoin(Generic[T]):
    """The members' answers of all partitions of one process.

    Args:
        deadline_ms: so long after the first answer, a document goes on without the members that have not answered.
        remember_ms: for how long what is settled is remembered, so that what comes late leads to nothing.
        max_documents: when more documents are open, the oldest is settled with what there is.
        max_bytes: the same for the size of their messages.
    """

    def __init__(self, *, deadline_ms: int, remember_ms: int, max_documents: int, max_bytes: int) -> None:
        self._deadline_ms = deadline_ms
        self._remember_ms = remember_ms
        self._max_documents = max_documents
        self._max_bytes = max_bytes
        # In the order of their times: a document that begins again goes to the end.
        self._open: dict[Key, _OpenAnswer[T]] = {}
        self._settled: deque[tuple[SettledAnswer[T], _LastAttempt]] = deque()
        self._on_its_way: dict[int, _LastAttempt] = {}
        self._last: dict[Key, _LastAttempt] = {}
        self._forgettable: deque[tuple[int, Key, _LastAttempt]] = deque()
        self.open_bytes = 0
        self.settled_early = 0
        """Documents that were settled for want of room."""

    @property
    def open_documents(self) -> int:
        """Documents that wait for a member's answer."""
        return len(self._open)

    @property
    def settled_documents(self) -> int:
        """Documents that wait to be taken."""
        return len(self._settled)

    @property
    def remembered_documents(self) -> int:
        """Documents whose answer was delivered, or is about to be."""
        return len(self._last)

    def open_by_stage(self) -> dict[str, int]:
        """Documents that wait for a member's answer, by stage."""
        return dict(Counter(stage for stage, _ in self._open))

    def reset(self) -> None:
        """Partitions were assigned: what is not delivered comes again, here or elsewhere."""
        self._open.clear()
        self._settled.clear()
        self._on_its_way.clear()
        self.open_bytes = 0
        self._last = {key: last for key, last in self._last.items() if last.until is not None}

    # --- what comes ---

    def answer(self, answer: MemberAnswer, ticket: T, *, now: int) -> list[T]:
        """Take an answer in. Returns the tickets that lead to nothing more, this one perhaps among them."""
        key = (answer.stage, answer.document)
        attempt = (answer.revision, answer.origin.replays)
        last = self._last.get(key, _LastAttempt())
        if 0 <= answer.origin.position <= last.deleted or (last.attempt is not None and attempt <= last.attempt):
            return [ticket]
        state = self._open.get(key)
        free: list[T] = []
        if state is not None and attempt < state.attempt:
            return [ticket]
        if state is not None and attempt > state.attempt:
            free = self._drop(key)
            state = None
        if state is None:
            state = self._open[key] = _OpenAnswer(attempt, now)
        if not state.add(answer, ticket):
            return [*free, ticket]
        self.open_bytes += answer.size
        if state.is_complete:
            self._settle(key)
        while self._open and (len(self._open) > self._max_documents or self.open_bytes > self._max_bytes):
            self.settled_early += 1
            self._settle(next(iter(self._open)))
        return free

    def delete(self, deletion: MemberDeletion, ticket: T) -> list[T]:
        """Take a deletion in. It comes several times: each process of members passes it on. Returns what
        :meth:`answer` returns."""
        key = (deletion.stage, deletion.document)
        position = deletion.origin.position
        last, state = self._last.get(key), self._open.get(key)
        known = last or _LastAttempt()
        if 0 <= position <= known.deleted or (
            # One that does not say where it lies deletes what there is: nothing, if that is deleted.
            position < 0 and state is None and last is not None and last.attempt is None
        ):
            return [ticket]
        free: list[T] = []
        if state is not None and not 0 <= position < state.position:
            free = self._drop(key)
        remembered = _LastAttempt(deleted=max(position, known.deleted))
        if 0 <= position < known.position:  # the document's next life is answered already
            remembered = _LastAttempt(known.attempt, known.position, remembered.deleted)
        self._hand_over(key, SettledAnswer(*key, tickets=(ticket,), deleted=True), remembered)
        return free

    def tick(self, *, now: int) -> None:
        """Settle what is due, and forget what may be forgotten."""
        while self._open:
            key, state = next(iter(self._open.items()))
            if state.since + self._deadline_ms > now:
                break
            self._settle(key)
        while self._forgettable and self._forgettable[0][0] <= now:
            _, key, last = self._forgettable.popleft()
            if self._last.get(key) is last:
                del self._last[key]

    # --- what goes ---

    def take(self, most: int) -> list[SettledAnswer[T]]:
        """What is to be delivered next, in the order in which it was settled."""
        taken = [self._settled.popleft() for _ in range(min(most, len(self._settled)))]
        self._on_its_way.update((id(settled), last) for settled, last in taken)
        return [settled for settled, _ in taken]

    def delivered(self, settled: SettledAnswer[T], *, now: int) -> tuple[T, ...]:
        """It is delivered. Returns the tickets of the messages that led to it."""
        last = self._on_its_way.pop(id(settled), None)
        if last is not None:
            last.until = now + self._remember_ms
            self._forgettable.append((last.until, (settled.stage, settled.document), last))
        return settled.tickets

    def _drop(self, key: Key) -> list[T]:
        state = self._open.pop(key)
        self.open_bytes -= state.size
        return state.tickets()

    def _settle(self, key: Key) -> None:
        state = self._open.pop(key)
        self.open_bytes -= state.size
        known = self._last.get(key, _LastAttempt())
        self._hand_over(key, state.settled(*key), _LastAttempt(state.attempt, state.position, known.deleted))

    def _hand_over(self, key: Key, settled: SettledAnswer[T], last: _LastAttempt) -> None:
        self._last[key] = last
        self._settled.append((settled, last))


def _members(answers: MemberAnswers[T]) -> set[str]:
    return {name for members in answers for name in members}


def _lineage(answers: MemberAnswers[T]) -> str:
    return next(iter(answers.values()))[0].lineage


def _expected(answers: MemberAnswers[T]) -> tuple[str, ...]:
    return next(iter(answers.values()))[0].expected


def _in_order(
    answers: MemberAnswers[T], expected: tuple[str, ...]
) -> list[tuple[tuple[str, ...], tuple[MemberAnswer, T]]]:
    place = {name: number for number, name in enumerate(expected)}
    return sorted(answers.items(), key=lambda item: min((place.get(name, len(place)) for name in item[0]), default=0))
