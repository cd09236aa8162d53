"""What a stage does with messages, without Kafka, threads or a clock of its own.

    records ──read──▶ Work | Failure | Deleted | nothing ──call (on the engine's thread)──▶ results ──answer──▶ messages

The stages themselves are in :mod:`workers.stages.table`. Every answer carries on, beside the stage's own result, what
the join needs to complete a document from the last answer alone: who produced the stages before (``manifests``), the
document's ``metadata``, and its origin (headers).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from el4ner.errors import DocumentError, MessageError
from el4ner.serialize import fingerprint
from el4ner.types import Document
from workers.messages import replay_headers
from workers.messages.decoded_documents import as_json_document
from workers.messages.document_paths import DocumentPaths
from workers.messages.envelope import (
    REVISION,
    STATUS,
    Outgoing,
    Record,
    checked,
    dead_letter,
    document_id,
    failed_value,
    message_id,
    origin_of,
    outgoing,
    revision_of,
    value_of,
    whose_answer,
)
from workers.messages.headers import CE_TYPE, Headers, RandomBytes, find, next_trace
from workers.stages.isolation import Result
from workers.topics import Topic

__all__ = ["STAGE", "Deleted", "Failure", "Parse", "Stage", "StageAnswer", "Work"]

STAGE: Final = "el4ner-stage"
"""Header of ``member-answers``: whose part of which stage's answer it is."""

_OWN_DOCUMENTS: Final = f"el4ner.{Topic.DOCUMENTS.value}.v1".encode()
"""``ce_type`` of what ``el4ner produce`` sends: it is read as it is, wherever others have their text."""

T = TypeVar("T")
R = TypeVar("R")

Parse = Callable[[Record, Mapping[str, Any]], tuple[Document, T]]
"""``(message, its value)`` → the document, and what the pipeline's stage takes. Raises
:class:`~el4ner.errors.MessageError`."""


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """A message that the stage has to work on.

    ``item``: what the pipeline's stage takes. ``carried``: the fields that every answer about the document has.
    """

    record: Record
    document: Document
    item: T
    carried: Mapping[str, Any] = field(default_factory=dict)

    def failure(self, error: DocumentError, *, attempts: int = 1) -> Failure:
        """The failure of a stage that gives up on this."""
        document = self.document
        return Failure(
            self.record,
            document.id,
            document.revision,
            document.text,
            document.pool,
            error,
            attempts,
            self.carried,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that the stage gives up on.

    ``document`` None: the message does not even say whose document it is, so only the dead letters can be told.
    """

    record: Record
    document: str | None
    revision: int
    text: str | None
    pool: str | None
    error: DocumentError
    attempts: int = 1
    carried: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deleted:
    """A null value: the document is deleted, and every stage after this one has to know."""

    record: Record
    document: str


@dataclass(frozen=True, slots=True)
class StageAnswer:
    """The messages that a record leads to. The record is finished when all of them are delivered."""

    record: Record
    document: str | None
    messages: tuple[Outgoing, ...]
    error: DocumentError | None = None

    @property
    def deletes(self) -> bool:
        """Whether the document is deleted."""
        return self.error is None and any(message.value is None for message in self.messages)


@dataclass(frozen=True, slots=True)
class Stage(Generic[T, R]):
    """One stage of the stream: which topics it reads and writes, what the values are, and what the pipeline does."""

    name: str
    before: str | None
    """The stage whose answers this one reads."""
    input: Topic
    output: Topic
    parse: Parse[T]
    encode: Callable[[R], dict[str, Any]]
    """A result as JSON, with ``document``, ``producer``, ``usage`` and ``sentences``."""
    call: Callable[[Any, Sequence[T]], list[R | DocumentError]]
    """One batch of the pipeline's stage: of a :class:`~el4ner.pipeline.Pipeline`, or of a
    :class:`~el4ner.members_pipeline.MembersPipeline` where ``members`` are named."""
    members: tuple[str, ...] = ()
    """Whose answers these are, where other members of ``ensemble`` answer in processes of their own: the stage's answer
    is then made of all of them (:mod:`workers.ensemble.combiner`)."""
    ensemble: tuple[str, ...] = ()
    paths: DocumentPaths | None = None
    """Where somebody else's messages have the document; None: they are as the topic's schema says."""

    @property
    def journal_name(self) -> str:
        """What :mod:`workers.stages.crash_journal` calls the stage: what kills a process of some members does not kill
        those of the others. A member's name need not be one of a file."""
        return f"{fingerprint(self.members)[:12]}-{self.name}" if self.members else self.name

    def read(self, record: Record, *, max_document_chars: int) -> Work[T] | Failure | Deleted | None:
        """What the stage has to do about a message; None: nothing, since an earlier stage has failed."""
        if record.value is None:
            return Deleted(record, document_id(record, None))
        try:
            data = self._value(record)
            if self.input is Topic.DOCUMENTS and "text" not in data:
                return Deleted(record, document_id(record, data))
            # Not of documents, which may have fields of any name.
            if self.before is not None and data.get("status") == "failed":
                return None
            document, item = self.parse(record, data)
        except MessageError as error:
            return self._unreadable(record, error)
        work = Work(record, document, item, self._carried(data))
        if len(document.text) > max_document_chars:
            too_long = DocumentError(
                f"the text has {len(document.text)} characters, method.max_document_chars is {max_document_chars}",
                code="document-too-long",
            )
            # Without its text: that is what was too long.
            return replace(work.failure(too_long), text=None)
        return work

    def _value(self, record: Record) -> Mapping[str, Any]:
        data, paths = value_of(record), self._paths_of(record)
        if paths is not None:
            return paths.document(data)
        if record.schema is not None:
            data = as_json_document(data)
        return checked(self.input, data, record.value or b"")

    def _paths_of(self, record: Record) -> DocumentPaths | None:
        return None if find(record.headers, CE_TYPE) == _OWN_DOCUMENTS else self.paths

    def _carried(self, data: Mapping[str, Any]) -> dict[str, Any]:
        carried: dict[str, Any] = {}
        if self.before is not None:
            carried["manifests"] = {**data.get("manifests", {}), self.before: data["producer"]}
        metadata = data.get("metadata")
        if metadata is not None:
            carried["metadata"] = metadata
        return carried

    def _unreadable(self, record: Record, error: MessageError) -> Failure:
        if self.input is Topic.DOCUMENTS:
            data = None
            with suppress(MessageError):
                data = value_of(record)
            if (paths := self._paths_of(record)) is not None:
                data = paths.identity(data)
            return Failure(record, document_id(record, data), revision_of(data), None, None, error)
        whose, revision = whose_answer(record)
        return Failure(record, whose, revision, None, None, error)

    def answer(self, work: Work[T], result: Result[R], *, now_ms: int, random: RandomBytes) -> StageAnswer:
        """The messages for an item that was worked on."""
        if isinstance(result.value, DocumentError):
            failure = work.failure(result.value, attempts=result.attempts)
            return self.give_up(failure, now_ms=now_ms, random=random)
        value = {"stage": self.name, "status": "ok", **self.encode(result.value), **work.carried, **self._whose}
        message = self._message(work.record, value, value["producer"], now_ms, random)
        return StageAnswer(work.record, work.document.id, (message,))

    def give_up(self, failure: Failure, *, now_ms: int, random: RandomBytes) -> StageAnswer:
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
            return StageAnswer(failure.record, None, (letter,), failure.error)
        message = self.failed(failure.document, failure, now_ms=now_ms, random=random)
        return StageAnswer(failure.record, failure.document, (letter, message), failure.error)

    def smaller(
        self, record: Record, error: DocumentError, *, now_ms: int, random: RandomBytes
    ) -> Iterator[StageAnswer]:
        """Answers that give up on a message because its own answer cannot be delivered.

        Each is smaller than the one before: with the document's text, without it, without its metadata too. There are
        none for a deletion, which is as small as can be. If the message itself has failed, its own error is told
        instead of ``error``.
        """
        item = self.read(record, max_document_chars=sys.maxsize)
        if isinstance(item, Work):
            item = item.failure(error)
        if isinstance(item, Failure):
            for failure in (item, replace(item, text=None), replace(item, text=None, carried={})):
                yield self.give_up(failure, now_ms=now_ms, random=random)

    def failed(self, document: str, failure: Failure, *, now_ms: int, random: RandomBytes) -> Outgoing:
        """The terminal answer about a document."""
        value = failed_value(
            self.name,
            document=document,
            revision=failure.revision,
            text=failure.text,
            pool=failure.pool,
            error=failure.error,
            carried={**failure.carried, **self._whose},
        )
        return self._message(failure.record, value, value["error"]["code"], now_ms, random)

    def forward(self, deleted: Deleted, *, now_ms: int, random: RandomBytes) -> StageAnswer:
        """The deletion, for the next stage."""
        record, document = deleted.record, deleted.document
        origin = origin_of(record)
        message = outgoing(
            self.output,
            None,
            key=document,
            subject=document,
            event_id=message_id(document, origin.position, self.name, self.members or None),
            source=self.name,
            now_ms=now_ms,
            trace=next_trace(record.headers, random),
            partition=record.partition,
            more=(*self._routed, *origin.headers, *replay_headers.carried(record.headers)),
        )
        return StageAnswer(record, document, (message,))

    def _message(
        self, record: Record, value: Mapping[str, Any], producer: Any, now_ms: int, random: RandomBytes
    ) -> Outgoing:
        document = value["document"]
        if self.members:
            producer = [producer, self.members]
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
            more=(*self._routed, *answer_headers(record, document["revision"], value["status"])),
        )

    @property
    def _whose(self) -> dict[str, Any]:
        return {"members": list(self.members), "expected": list(self.ensemble)} if self.members else {}

    @property
    def _routed(self) -> tuple[tuple[str, bytes], ...]:
        """On a topic that stages share, a deletion has to say which stage it is for."""
        return ((STAGE, self.name.encode()),) if self.members else ()


def answer_headers(record: Record, revision: int, status: str) -> Headers:
    """What the join reads of an answer without decoding its value, and what a replayed document's messages carry on."""
    return (
        (REVISION, str(revision).encode()),
        (STATUS, status.encode()),
        *origin_of(record).headers,
        *replay_headers.carried(record.headers),
    )
