"""What a stage worker does with messages, without Kafka, threads or a clock of its own.

    records ──read──▶ Work | Given up | nothing ──call (on the engine's thread)──▶ results ──answer──▶ messages

:func:`run_isolated` is what the engine's thread runs: a batch that an engine fails on is tried again one document at a
time, so a poison document costs only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from el4ner.errors import DocumentError, EngineError, MessageError
from el4ner.serialize import (
    candidates_from_json,
    candidates_to_json,
    entities_to_json,
    types_from_json,
    types_to_json,
)
from el4ner.types import Document, DocumentCandidates, DocumentEntities, DocumentTypes
from workers.headers import RandomBytes, next_trace
from workers.messages import (
    Outgoing,
    Record,
    dead_letter,
    decode,
    document_id,
    document_of,
    failed_value,
    message_id,
    outgoing,
    peek,
    revision_of,
)
from workers.topics import Topic

__all__ = ["CLASSIFY", "EXTRACT", "STAGES", "VALIDATE", "Answer", "Failure", "Result", "Stage", "Work", "run_isolated"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """A message that the stage has to work on: ``item`` is what the pipeline's stage takes."""

    record: Record
    document: Document
    item: T


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that the stage gives up on.

    ``document`` None: not even whose document it is can be read, so nobody can be told but the dead letters.
    """

    record: Record
    document: str | None
    revision: int
    text: str | None
    pool: str | None
    error: DocumentError
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Result(Generic[R]):
    """What became of one item: a result, or the error that it alone is to blame for."""

    value: R | DocumentError
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """The messages that a record leads to, all of which have to be delivered before it is finished."""

    record: Record
    document: str | None
    messages: tuple[Outgoing, ...]
    error: DocumentError | None = None


@dataclass(frozen=True, slots=True)
class Stage(Generic[T, R]):
    """One stage of the stream: which topic it reads and writes, and what the values are."""

    name: str
    input: Topic
    output: Topic
    parse: Callable[[Record, Mapping[str, Any]], tuple[Document, T]]
    encode: Callable[[R], dict[str, Any]]
    """A result as JSON, with ``document``, ``producer``, ``usage`` and ``sentences``."""

    def read(self, record: Record, *, max_document_chars: int) -> Work[T] | Failure | None:
        """What is to be done about a message; None: nothing (a deletion, or a failure of an earlier stage)."""
        if record.value is None:
            return None
        try:
            data = decode(self.input, record.value)
            if data.get("status") == "failed":
                return None
            document, item = self.parse(record, data)
        except MessageError as error:
            return self._unreadable(record, error)
        if len(document.text) > max_document_chars:
            too_long = DocumentError(
                f"the text has {len(document.text)} characters, method.max_document_chars is {max_document_chars}",
                code="document-too-long",
            )
            # Its text is not sent around: what a document may weigh is what was just refused.
            return Failure(record, document.id, document.revision, None, document.pool, too_long)
        return Work(record, document, item)

    def _unreadable(self, record: Record, error: MessageError) -> Failure:
        data = peek(record.value)
        if self.input is Topic.DOCUMENTS:
            whose: str | None = document_id(record, data)
            revision, text, pool = revision_of(data), None, None
        else:
            inner = data.get("document") if isinstance(data, dict) else None
            revision, text, pool = revision_of(inner), None, None
            # Coordinates on a stage's topic are not the document's: they would answer for a document that is none.
            found = document_id(record, inner)
            whose = None if found == f"{record.source}-{record.partition}-{record.offset}" else found
        return Failure(record, whose, revision, text, pool, error)

    def answer(self, work: Work[T], result: Result[R], *, now_ms: int, random: RandomBytes) -> Answer:
        """The messages for an item that was worked on."""
        if isinstance(result.value, DocumentError):
            document = work.document
            failure = Failure(
                work.record, document.id, document.revision, document.text, document.pool, result.value, result.attempts
            )
            return self.give_up(failure, now_ms=now_ms, random=random)
        value = {"stage": self.name, "status": "ok", **self.encode(result.value)}
        message = self._message(work.record, value, value["producer"], now_ms, random)
        return Answer(work.record, work.document.id, (message,))

    def give_up(self, failure: Failure, *, now_ms: int, random: RandomBytes) -> Answer:
        """The dead letter, and the terminal answer by which the join learns of it."""
        letter = dead_letter(
            failure.record,
            stage=self.name,
            error=failure.error,
            document=failure.document,
            attempts=failure.attempts,
            now_ms=now_ms,
        )
        if failure.document is None:
            return Answer(failure.record, None, (letter,), failure.error)
        value = failed_value(
            self.name,
            document=failure.document,
            revision=failure.revision,
            text=failure.text,
            pool=failure.pool,
            error=failure.error,
        )
        message = self._message(failure.record, value, value["error"]["code"], now_ms, random)
        return Answer(failure.record, failure.document, (letter, message), failure.error)

    def _message(
        self, record: Record, value: Mapping[str, Any], producer: Any, now_ms: int, random: RandomBytes
    ) -> Outgoing:
        document = value["document"]
        return outgoing(
            self.output,
            value,
            key=document["id"],
            subject=document["id"],
            event_id=message_id(document["id"], document["revision"], self.name, producer),
            source=self.name,
            now_ms=now_ms,
            trace=next_trace(record.headers, random),
            # The document's own partition number, whatever partitioner its producer used: the join is by partition.
            partition=record.partition,
        )


def run_isolated(call: Callable[[Sequence[T]], list[R | DocumentError]], items: Sequence[T]) -> list[Result[R]]:
    """Run a stage of the pipeline over a batch; results in the order of the items.

    An :class:`~el4ner.errors.EngineError` means that somebody in the batch is poison (or that the engine is ill): each
    item is tried once more alone, and the one that fails alone gets the error. Anything else that is raised is a bug
    and is not caught.
    """
    if not items:
        return []
    try:
        return [Result(value) for value in _checked(call, items)]
    except EngineError:
        pass
    results: list[Result[R]] = []
    for item in items:
        try:
            (value,) = _checked(call, [item])
        except EngineError as error:
            results.append(Result(_given_up(error), attempts=2))
        else:
            results.append(Result(value, attempts=2))
    return results


def _checked(call: Callable[[Sequence[T]], list[R | DocumentError]], items: Sequence[T]) -> list[R | DocumentError]:
    values = call(items)
    if len(values) != len(items):
        raise RuntimeError(f"a stage answered {len(values)} results to {len(items)} documents")
    return values


def _given_up(error: EngineError) -> DocumentError:
    given_up = DocumentError(f"an engine fails on this document alone: {error}", code=error.code)
    given_up.__cause__ = error
    return given_up


def _parse_document(record: Record, data: Mapping[str, Any]) -> tuple[Document, Document]:
    document = document_of(record, data)
    return document, document


def _parse_candidates(_record: Record, data: Mapping[str, Any]) -> tuple[Document, DocumentCandidates]:
    item = candidates_from_json(data)
    return item.document, item


def _parse_types(_record: Record, data: Mapping[str, Any]) -> tuple[Document, DocumentTypes]:
    item = types_from_json(data)
    return item.document, item


EXTRACT: Stage[Document, DocumentCandidates] = Stage(
    "extract", Topic.DOCUMENTS, Topic.SPAN_CANDIDATES, _parse_document, candidates_to_json
)
CLASSIFY: Stage[DocumentCandidates, DocumentTypes] = Stage(
    "classify", Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, _parse_candidates, types_to_json
)
VALIDATE: Stage[DocumentTypes, DocumentEntities] = Stage(
    "validate", Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS, _parse_types, entities_to_json
)
STAGES: Mapping[str, Stage[Any, Any]] = {stage.name: stage for stage in (EXTRACT, CLASSIFY, VALIDATE)}
