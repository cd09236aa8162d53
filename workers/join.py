"""The join: which parts of a document have been seen, and when it is complete. A pure state machine.

    (nothing) ──part──▶ open ──last part, or deadline──▶ emitting ──delivered──▶ done ──remember_seconds──▶ (nothing)
                          └──deletion──▶ deleted ──remember_seconds──▶ (nothing)

A state is JSON data, so it survives in a table's changelog at any point. Parts commute and may repeat: in whatever
order they come, and however often, the same document comes out, once. A document is complete when it itself and every
stage that its answers call for have been seen: a stage that failed calls for none after it. A higher revision starts
the join again, a lower one is ignored; so is everything about a finished document, until it is forgotten.

``emitting`` holds the outcome until it is delivered, so that a crash in between loses nothing; who comes back to a
document in that phase has to find out whether it was delivered (:mod:`workers.recovery`), and then calls
:meth:`Join.delivered`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from el4ner.errors import DocumentError
from el4ner.serialize import entity_to_json, fingerprint
from el4ner.types import TaggedDocument
from workers.messages import error_json

__all__ = [
    "STAGE_NAMES",
    "AnswerPart",
    "Deletion",
    "DocumentPart",
    "Join",
    "Part",
    "State",
    "event_id_of",
    "is_due",
]

STAGE_NAMES: Final = ("extract", "classify", "validate")

State = Mapping[str, Any]
"""JSON data; :func:`el4ner.serialize.dumps` writes it."""


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """The document itself. ``text`` None: it could not be read, and extraction's failure is on its way."""

    id: str
    revision: int
    text: str | None
    pool: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A stage's answer. ``body``: the stage message's value, valid."""

    id: str
    revision: int
    stage: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deletion:
    """A null value on the documents topic: forget the open join."""

    id: str


Part = DocumentPart | AnswerPart | Deletion

Assemble = Callable[[str, Mapping[str, Any]], TaggedDocument]
"""``(stage, stage message)`` of the last stage with a result → the final entities: pure, no engine."""


@dataclass(frozen=True, slots=True)
class Join:
    """The rules. Times are milliseconds; ``now`` is passed in."""

    assemble: Assemble
    deadline_ms: int
    remember_ms: int

    def apply(self, state: State | None, part: Part, *, partition: int, now: int, trace: str | None = None) -> State:
        """The state after a part. The same object if the part changes nothing.

        ``trace`` is kept from the first part on, for the headers of the outcome.

        A state of phase ``emitting`` is left alone; whoever drives this delivers it before it applies a higher
        revision.
        """
        if isinstance(part, Deletion):
            return self._delete(state, partition, now)
        if state is not None and state["phase"] != "open":
            if state["phase"] == "deleted" and isinstance(part, DocumentPart):
                state = None
            elif part.revision <= state["revision"]:
                return state
            elif state["phase"] == "emitting":
                raise ValueError(f"document {part.id!r} is still being emitted")
            else:
                state = None
        if state is not None and part.revision < state["revision"]:
            return state
        if state is None or part.revision > state["revision"]:
            state = {
                "v": 1,
                "phase": "open",
                "partition": partition,
                "revision": part.revision,
                "deadline": now + self.deadline_ms,
                "document": None,
                "answers": {},
                **({} if trace is None else {"trace": trace}),
            }
        added = self._add_document(state, part) if isinstance(part, DocumentPart) else self._add_answer(state, part)
        if added is not state and self._is_complete(added):
            return self._finish(part.id, added, due=False)
        return added

    def expire(self, document: str, state: State, *, now: int) -> State | None:
        """The state when its time may have come: ``emitting`` past the deadline, None if it is to be forgotten."""
        if not is_due(state, now):
            return state
        return self._finish(document, state, due=True) if state["phase"] == "open" else None

    def delivered(self, state: State, *, now: int) -> State:
        """What remains of a document whose outcome was delivered."""
        if state["phase"] != "emitting":
            raise ValueError(f"a join in phase {state['phase']!r} has nothing to deliver")
        return {
            "v": 1,
            "phase": "done",
            "partition": state["partition"],
            "revision": state["revision"],
            "event_id": event_id_of(state["tagged"]),
            "forget": now + self.remember_ms,
        }

    def _delete(self, state: State | None, partition: int, now: int) -> State:
        if state is not None and state["phase"] in {"emitting", "deleted"}:
            return state
        return {
            "v": 1,
            "phase": "deleted",
            "partition": partition,
            "revision": 0 if state is None else state["revision"],
            "forget": now + self.remember_ms,
        }

    @staticmethod
    def _add_document(state: State, part: DocumentPart) -> State:
        if state["document"] is not None:
            return state
        document: dict[str, Any] = {"text": part.text, "pool": part.pool}
        if part.metadata is not None:
            document["metadata"] = dict(part.metadata)
        return {**state, "document": document}

    @staticmethod
    def _add_answer(state: State, part: AnswerPart) -> State:
        known = state["answers"].get(part.stage)
        status = part.body["status"]
        # A stage that was killed between a failure and its acknowledgement may answer twice; the better answer counts.
        if known is not None and (known["status"] == "ok" or status != "ok"):
            return state
        answer: dict[str, Any] = {"status": status}
        if status == "ok":
            answer["producer"] = part.body["producer"]
            if part.stage != "extract":
                # What the outcome is made of. Of extraction, only that it is done.
                answer["body"] = {key: part.body[key] for key in ("document", "producer", "usage", "sentences")}
        else:
            answer["error"] = {"code": part.body["error"]["code"], "message": part.body["error"]["message"]}
            answer["document"] = {"text": part.body["document"]["text"], "pool": part.body["document"]["pool"]}
        return {**state, "answers": {**state["answers"], part.stage: answer}}

    @staticmethod
    def _is_complete(state: State) -> bool:
        if state["document"] is None:
            return False
        for stage in STAGE_NAMES:
            answer = state["answers"].get(stage)
            if answer is None:
                return False
            if answer["status"] == "failed":
                return True
        return True

    def _finish(self, document: str, state: State, *, due: bool) -> State:
        answers: Mapping[str, Any] = state["answers"]
        usable = next((name for name in ("validate", "classify") if _is_ok(answers.get(name))), None)
        failed = next((name for name in STAGE_NAMES if name in answers and not _is_ok(answers[name])), None)
        awaited = STAGE_NAMES if failed is None else STAGE_NAMES[: STAGE_NAMES.index(failed)]
        missing = [name for name in awaited if name not in answers]
        if state["document"] is None:
            missing.insert(0, "document")
        tagged = None if usable is None else self.assemble(usable, answers[usable]["body"])
        error = None
        if failed is not None:
            error = {"stage": failed, **answers[failed]["error"]}
        elif missing and due:
            late = DocumentError(f"no answer within {self.deadline_ms / 1000:g} s", code="deadline")
            error = {"stage": missing[0], **error_json(late)}
        status = "failed" if tagged is None else "complete" if usable == "validate" and not missing else "partial"
        text, pool = self._text_and_pool(state)
        value: dict[str, Any] = {
            "id": document,
            "revision": state["revision"],
            "text": text if tagged is None else tagged.text,
            "pool": pool if tagged is None else tagged.pool,
            "status": status,
            "entities": [] if tagged is None else [entity_to_json(entity) for entity in tagged.entities],
            "manifests": {name: answers[name]["producer"] for name in STAGE_NAMES if _is_ok(answers.get(name))},
            "missing": missing,
            "error": error,
        }
        metadata = (state["document"] or {}).get("metadata")
        if metadata is not None:
            value["metadata"] = metadata
        emitting = {
            "v": 1,
            "phase": "emitting",
            "partition": state["partition"],
            "revision": state["revision"],
            "tagged": value,
        }
        return {**emitting, "trace": state["trace"]} if "trace" in state else emitting

    @staticmethod
    def _text_and_pool(state: State) -> tuple[str | None, str | None]:
        known = [state["document"]] if state["document"] is not None else []
        known += [answer["document"] for answer in state["answers"].values() if "document" in answer]
        text = next((source["text"] for source in known if source["text"] is not None), None)
        pool = next((source["pool"] for source in known if source["pool"] is not None), None)
        return text, pool


def event_id_of(tagged: Mapping[str, Any]) -> str:
    """The ``ce_id`` of a tagged document: equal outcomes have equal ids."""
    return fingerprint(
        tagged["id"], tagged["revision"], "aggregate", tagged["status"], tagged["manifests"], tagged["entities"]
    )


def is_due(state: State, now: int) -> bool:
    """Whether a tick at ``now`` changes the state."""
    due = state.get("deadline") if state["phase"] == "open" else state.get("forget")
    return due is not None and due <= now


def _is_ok(answer: Mapping[str, Any] | None) -> bool:
    return answer is not None and answer["status"] == "ok"
