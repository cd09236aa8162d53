"""The join: what is known of a document, and when its outcome is settled. A pure state machine.

    (nothing) ──answer──▶ Open ──last answer, or deadline──▶ Closed ──worker.remember_seconds──▶ (nothing)
        └───────────────────┴──────────deletion─────────────────▲

Answers commute and may repeat: in whatever order they come, and however often, the same document comes out, once.

- Every answer carries on who produced the stages before it, so a verdict alone completes a document: an answer that
  was lost on the way, or is read later, is not waited for. A failure is final for its document; validation's leaves a
  *partial* document, for which the types are waited for.
- A higher revision starts the join again, a lower one is ignored; so is everything about a document that is closed,
  until it is forgotten. Only a *replay* (a message sent again from the dead letters) reopens a document that did not
  come out complete.
- A document's place in the raw topic (:class:`~workers.messages.envelope.Origin`) orders what its revision does not:
  what was written before a deletion cannot bring the document back, in whatever order it arrives.

Times are milliseconds on a clock of the caller's, and passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from el4ner.errors import DocumentError, MessageError
from el4ner.participation import STAGES
from el4ner.serialize import entity_to_json, fingerprint
from el4ner.types import TaggedDocument
from workers.messages.envelope import UNKNOWN, Origin, Record, error_json
from workers.roles import AGGREGATE

__all__ = [
    "Closed",
    "Deletion",
    "DocumentState",
    "JoinInput",
    "JoinRules",
    "LocalAnswer",
    "Open",
    "Outcome",
    "ReceivedAnswer",
    "event_id_of",
]

Status = Literal["complete", "partial", "failed", "deleted"]


@dataclass(frozen=True, slots=True, eq=False)
class LocalAnswer:
    """A stage's answer that was never written as a message, since the stage runs where its answers are joined.

    ``body``: what the message would say (of a result only what the join reads of it). ``tagged``: the entities of a
    result, assembled; None: there are none to assemble. ``record``: the message of ``documents`` that it is about.
    """

    body: Mapping[str, Any]
    tagged: TaggedDocument | None
    record: Record


@dataclass(frozen=True, slots=True)
class ReceivedAnswer:
    """A stage's answer, as the join receives it. ``value``: the message's bytes, which are read only if the outcome is
    made of them. ``place``: offset and timestamp of the message, -1 where they are not known. ``record``: the message
    itself, while it is taken in; it is not kept for an open document, whose headers would take as much memory as its
    value."""

    id: str
    revision: int
    stage: str
    failed: bool
    value: bytes | LocalAnswer
    origin: Origin = UNKNOWN
    trace: str | None = None
    place: tuple[int, int] = field(default=(-1, -1), compare=False)
    record: Record | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A null value: the document is gone."""

    id: str
    origin: Origin = UNKNOWN
    trace: str | None = None


JoinInput = ReceivedAnswer | Deletion


@dataclass(frozen=True, slots=True)
class Open:
    """A document that something is known of. ``best``: the result of the furthest stage that has one; ``failed``: the
    answer of a stage that gave up. ``since``: when the first answer came. ``deleted``: the position up to which
    whatever had this id is deleted."""

    revision: int
    origin: Origin
    since: int
    trace: str | None = None
    best: ReceivedAnswer | None = None
    failed: ReceivedAnswer | None = None
    deleted: int = -1

    @property
    def size(self) -> int:
        """Bytes that are kept for it, about."""
        values = [answer.value for answer in (self.best, self.failed) if answer is not None]
        return 500 + sum(len(value) for value in values if isinstance(value, bytes))


@dataclass(frozen=True, slots=True)
class Closed:
    """What is remembered of a document whose outcome is settled. ``deleted``: as of :class:`Open`."""

    revision: int
    position: int
    replays: int
    status: Status
    deleted: int = -1


DocumentState = Open | Closed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes out. ``tagged``: the value of the tagged document; None deletes it. ``answer``: what it is made of."""

    id: str
    closed: Closed
    tagged: Mapping[str, Any] | None
    origin: Origin
    trace: str | None
    answer: ReceivedAnswer | None = field(default=None, compare=False, repr=False)

    def refused(self, error: DocumentError) -> Iterator[Outcome]:
        """What comes out where it cannot be written: the document failed. Each is smaller than the one before: with the
        document's text, without it, without its metadata and the manifests too. None for a deletion."""
        if self.tagged is None:
            return
        stage = STAGES[-1] if self.answer is None else self.answer.stage
        whole = {**self.tagged, "status": "failed", "entities": [], "error": {"stage": stage, **error_json(error)}}
        bare = {**whole, "text": None, "pool": None}
        least = {name: value for name, value in bare.items() if name != "metadata"} | {"manifests": {}}
        closed = replace(self.closed, status="failed")
        for tagged in (whole, bare, least):
            yield replace(self, tagged=tagged, closed=closed)


Assemble = Callable[[str, Mapping[str, Any]], TaggedDocument]
"""``(stage, stage message)`` of the last stage with a result → the final entities: pure, no engine. Raises
:class:`~el4ner.errors.MessageError` if the message contradicts itself."""

Read = Callable[[str, bytes], Mapping[str, Any]]
"""``(stage, value)`` → the stage message, valid. Raises :class:`~el4ner.errors.MessageError`."""


@dataclass(frozen=True, slots=True)
class JoinRules:
    """The rules."""

    read: Read
    assemble: Assemble
    deadline_ms: int

    def apply(
        self, state: DocumentState | None, received: JoinInput, *, now: int
    ) -> tuple[DocumentState | None, Outcome | None]:
        """The state after a message, and the outcome if it settles one. The same object: the message changes nothing.

        Raises:
            MessageError: the message completes the document, but cannot be read. The state is as before; the caller
                then applies an answer which says that the stage has failed.
        """
        if isinstance(received, Deletion):
            return self._delete(state, received)
        if state is not None and _is_outdated(received, state):
            return state, None
        if isinstance(state, Closed) and not _reopens(received, state):
            return state, None
        if isinstance(state, Open):
            if received.revision < state.revision:
                return state, None
            known: Open | None = state if received.revision == state.revision else None
        else:
            known = None
        if known is None:
            deleted = -1 if state is None else state.deleted
            known = Open(received.revision, received.origin, now, received.trace, deleted=deleted)
        kept = _without_record(received)
        added = _add(known, kept)
        if added is known and known is state:
            return state, None
        if _is_settled(added):
            outcome = self._outcome(received.id, added, due=False)
            if outcome.answer is kept:
                outcome = Outcome(
                    outcome.id, outcome.closed, outcome.tagged, outcome.origin, outcome.trace, answer=received
                )
            return outcome.closed, outcome
        return added, None

    def due(self, state: Open) -> int:
        """When the document is emitted with what there is."""
        return state.since + self.deadline_ms

    def expire(self, document: str, state: Open, error: DocumentError | None = None) -> Outcome:
        """The outcome of a document whose time has come, or that cannot wait any longer: ``error`` says why."""
        return self._outcome(document, state, due=True, error=error)

    @staticmethod
    def _delete(state: DocumentState | None, deletion: Deletion) -> tuple[DocumentState | None, Outcome | None]:
        position = deletion.origin.position
        known = -1
        if state is not None:
            known = max(state.deleted, state.origin.position if isinstance(state, Open) else state.position)
        # Every stage passes a deletion on, so it comes several times. One without a position (from a producer that
        # writes to a stage's topic itself) deletes what there is.
        if known >= position >= 0 or (position < 0 and isinstance(state, Closed) and state.status == "deleted"):
            return state, None
        last = max(position, known)
        closed = Closed(-1, last, 0, "deleted", last)
        return closed, Outcome(deletion.id, closed, None, deletion.origin, deletion.trace)

    def _outcome(self, document: str, state: Open, *, due: bool, error: DocumentError | None = None) -> Outcome:
        best, failed = state.best, state.failed
        usable = self._read_usable(best, strict=failed is None and not due)
        failure: Mapping[str, Any] | None = None
        reported: dict[str, Any] | None = None
        tagged: TaggedDocument | None = None
        if failed is not None:
            try:
                failure = self._read(failed)
                reported = {"stage": failed.stage, **failure["error"]}
            except MessageError as unreadable:
                reported = {"stage": failed.stage, **error_json(unreadable)}
        if usable is not None and best is not None and best.stage != "extract":
            try:
                tagged = best.value.tagged if isinstance(best.value, LocalAnswer) else self.assemble(best.stage, usable)
            except MessageError:
                if failed is None and not due:
                    raise
                usable = None
        bodies = [body for body in (usable, failure) if body is not None]
        manifests: dict[str, Any] = {}
        for body in reversed(bodies):
            manifests.update(body.get("manifests", {}))
        if usable is not None and best is not None:
            manifests[best.stage] = usable["producer"]
        awaited = STAGES if failed is None else STAGES[: STAGES.index(failed.stage)]
        missing = [name for name in awaited if name not in manifests]
        if reported is None and due and missing:
            late = DocumentError(f"no answer within {self.deadline_ms / 1000:g} s", code="deadline")
            reported = {"stage": missing[0], **error_json(error or late)}
        status: Status = "complete" if reported is None else "failed" if tagged is None else "partial"
        source = bodies[0]["document"] if bodies else {"text": None, "pool": None}
        value: dict[str, Any] = {
            "id": document,
            "revision": state.revision,
            "text": source["text"] if tagged is None else tagged.text,
            "pool": source["pool"] if tagged is None else tagged.pool,
            "status": status,
            "entities": [] if tagged is None else [entity_to_json(entity) for entity in tagged.entities],
            "manifests": {name: manifests[name] for name in STAGES if name in manifests},
            "missing": missing if reported is not None else [],
            "error": reported,
        }
        metadata = next((body["metadata"] for body in bodies if "metadata" in body), None)
        if metadata is not None:
            value["metadata"] = metadata
        closed = Closed(state.revision, state.origin.position, state.origin.replays, status, state.deleted)
        last = failed or best
        # The span that the join's own follows on: that of the answer which settled it.
        trace = state.trace if last is None or last.trace is None else last.trace
        return Outcome(document, closed, value, state.origin, trace, best or failed)

    def _read(self, answer: ReceivedAnswer) -> Mapping[str, Any]:
        value = answer.value
        return value.body if isinstance(value, LocalAnswer) else self.read(answer.stage, value)

    def _read_usable(self, best: ReceivedAnswer | None, *, strict: bool) -> Mapping[str, Any] | None:
        if best is None:
            return None
        try:
            return self._read(best)
        except MessageError:
            # The stage after it could not read it either, and said so in the dead letters.
            if strict:
                raise
            return None


def event_id_of(tagged: Mapping[str, Any]) -> str:
    """The ``ce_id`` of a tagged document: equal outcomes have equal ids."""
    return fingerprint(
        tagged["id"], tagged["revision"], AGGREGATE, tagged["status"], tagged["manifests"], tagged["entities"]
    )


def _is_outdated(answer: ReceivedAnswer, state: DocumentState) -> bool:
    """Whether an answer is about a document that was deleted since, or is the failure that was replayed."""
    origin = answer.origin
    if origin.position < 0:
        # An answer that does not say where its document lies may be of a new one, which must not be lost.
        return False
    if origin.position <= state.deleted:
        return True
    if not answer.failed or not isinstance(state, Open) or answer.revision != state.revision:
        return False
    return origin.replays < state.origin.replays and origin.position <= state.origin.position


def _reopens(answer: ReceivedAnswer, closed: Closed) -> bool:
    """Whether an answer is about more than the outcome that is remembered."""
    if closed.status == "deleted":
        return True
    if answer.revision != closed.revision:
        return answer.revision > closed.revision
    return answer.origin.replays > closed.replays and closed.status != "complete"


def _add(state: Open, answer: ReceivedAnswer) -> Open:
    if answer.failed:
        earlier = state.failed is not None and _order(state.failed) <= _order(answer)
        # A stage that was killed between a failure and its acknowledgement may answer twice; the result counts.
        answered = state.best is not None and _order(state.best) >= _order(answer)
        return state if earlier or answered else replace(state, failed=answer)
    if state.best is not None and _order(state.best) >= _order(answer):
        return state
    refuted = state.failed is not None and _order(state.failed) <= _order(answer)
    # Not by replace(), which takes several times as long: every document passes here.
    return Open(
        state.revision,
        state.origin,
        state.since,
        state.trace,
        best=answer,
        failed=None if refuted else state.failed,
        deleted=state.deleted,
    )


def _without_record(answer: ReceivedAnswer) -> ReceivedAnswer:
    if answer.record is None:
        return answer
    return ReceivedAnswer(
        answer.id,
        answer.revision,
        answer.stage,
        answer.failed,
        answer.value,
        answer.origin,
        answer.trace,
        answer.place,
    )


def _order(answer: ReceivedAnswer) -> int:
    return STAGES.index(answer.stage)


def _is_settled(state: Open) -> bool:
    if state.best is not None and state.best.stage == "validate":
        return True
    if state.failed is None:
        return False
    return state.failed.stage != "validate" or (state.best is not None and state.best.stage == "classify")
