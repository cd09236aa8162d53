"""What the stages made of a document, and what a process that runs all of them tells the join about it. Pure: no I/O.

The join's rules are those of the staged topology (:mod:`workers.join.rules`): what the stages say reaches them as their
messages would. Only a result's JSON is left out, unless ``worker.publish_stages`` asks for the messages themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from el4ner.assemble import assemble_by
from el4ner.config import MethodSettings
from el4ner.errors import DocumentError
from el4ner.serialize import document_to_json, manifest_to_json
from el4ner.types import Document, TaggedDocument
from workers.join.owned_partition import PendingLetter
from workers.join.rules import Deletion, JoinInput, LocalAnswer, ReceivedAnswer
from workers.kafka.delivery import RefusedError
from workers.messages.envelope import Outgoing, Record, dead_letter, failed_value, origin_of
from workers.messages.headers import RandomBytes, Trace, next_trace, parse_traceparent
from workers.stages.isolation import Result
from workers.stages.stage import Deleted, Failure, Stage, Work
from workers.stages.table import STAGE_TABLE
from workers.topics import Topic

__all__ = ["DocumentAnswer", "Journey", "TaggedJourney", "Teller"]

_STAGES: Final[Sequence[Stage[Any, Any]]] = tuple(STAGE_TABLE.values())


@dataclass(frozen=True, slots=True)
class Journey:
    """A document, and each stage's result, in their order. It ends with the stage that gave up, if any did."""

    work: Work[Document]
    results: Sequence[Result[Any]]


@dataclass(frozen=True, slots=True)
class TaggedJourney:
    """A document that all stages have worked on in one call. ``manifests``: who answered, by stage, as JSON."""

    work: Work[Document]
    tagged: TaggedDocument
    manifests: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class DocumentAnswer:
    """What there is to tell about a message of ``documents``.

    ``inputs``: for the join. ``letters``: dead letters. ``published``: the stages' messages, where they are asked for.
    ``error``: of the stage that gave up. ``trace``: of the work on it; messages about the document follow on it.
    """

    record: Record
    document: str
    inputs: Sequence[JoinInput]
    trace: Trace
    letters: Sequence[PendingLetter] = ()
    published: Sequence[Outgoing] = ()
    error: DocumentError | None = None

    @property
    def deletes(self) -> bool:
        """Whether the document is deleted."""
        return any(isinstance(received, Deletion) for received in self.inputs)


class Teller:
    """Makes answers.

    Args:
        names: the topics' names on the broker.
        publishes: whether the stages' messages are wanted too.
        refusal: why a message cannot be sent; None: it can.
    """

    def __init__(
        self,
        method: MethodSettings,
        names: Mapping[Topic, str],
        random: RandomBytes,
        *,
        publishes: bool,
        refusal: Callable[[Outgoing], RefusedError | None],
    ) -> None:
        self._method = method
        self._names = names
        self._random = random
        self._publishes = publishes
        self._refusal = refusal

    def tell(self, item: Journey | TaggedJourney | Failure | Deleted, *, now_ms: int) -> DocumentAnswer:
        """The answer about a document that the stages have worked on, that cannot be read, or that is deleted."""
        if isinstance(item, TaggedJourney):
            return self._tagged(item)
        if isinstance(item, Deleted):
            return self._deletion(item, now_ms)
        if isinstance(item, Failure):
            return self._failed(_STAGES[0], item, _Published(item.record, self._names), now_ms)
        return self._worked(item, now_ms)

    def _tagged(self, journey: TaggedJourney) -> DocumentAnswer:
        work, manifests, last = journey.work, journey.manifests, _STAGES[-1].name
        document, record = work.document, work.record
        trace = next_trace(record.headers, self._random)
        body = {
            "document": document_to_json(document),
            "producer": manifests[last],
            "manifests": {name: manifest for name, manifest in manifests.items() if name != last},
            **work.carried,
        }
        local = LocalAnswer(body, journey.tagged, record)
        answer = _answer(document.id, document.revision, last, local, trace, failed=False)
        return DocumentAnswer(record, document.id, [answer], trace)

    def _worked(self, journey: Journey, now_ms: int) -> DocumentAnswer:
        work = journey.work
        published = _Published(work.record, self._names)
        before: _LastResult | None = None
        carried: Mapping[str, Any] = work.carried
        manifests: dict[str, Any] = {}
        for stage, result in zip(_STAGES, journey.results, strict=False):
            value = result.value
            if self._publishes and not isinstance(value, DocumentError):
                at_work = Work(published.record, work.document, value, carried)
                (message,) = stage.answer(at_work, result, now_ms=now_ms, random=self._random).messages
                if (refused := self._refusal(message)) is None:
                    published.add(message)
                else:
                    value = refused.of_the_document
            if isinstance(value, DocumentError):
                failure = replace(work.failure(value, attempts=result.attempts), carried=carried)
                return self._failed(stage, failure, published, now_ms, before=before)
            producer = manifest_to_json(value.manifest)
            before = _LastResult(stage, value, producer, carried)
            manifests = {**manifests, stage.name: producer}
            carried = {"manifests": manifests, **work.carried}
        if before is None:
            raise RuntimeError(f"no stage has worked on document {work.document.id!r}")
        trace = self._trace(work.record, published)
        # The last stage's answer completes the document alone.
        answer = self._received(before, work.record, work.document, trace)
        return DocumentAnswer(work.record, work.document.id, [answer], trace, published=published.messages)

    def _failed(
        self,
        stage: Stage[Any, Any],
        failure: Failure,
        published: _Published,
        now_ms: int,
        before: _LastResult | None = None,
    ) -> DocumentAnswer:
        """``before``: what the stage before said; where validation fails, the document comes out with its types."""
        record, document, error = failure.record, failure.document, failure.error
        if document is None:
            raise RuntimeError(f"a message of {record.source} is nobody's document")
        letter = dead_letter(
            record, stage=stage.name, error=error, document=document, attempts=failure.attempts, now_ms=now_ms
        )
        if self._publishes:
            self._publish_failure(stage, document, replace(failure, record=published.record), published, now_ms)
        trace = self._trace(record, published)
        body = failed_value(
            stage.name,
            document=document,
            revision=failure.revision,
            text=failure.text,
            pool=failure.pool,
            error=error,
            carried=failure.carried,
        )
        answer = _answer(document, failure.revision, stage.name, LocalAnswer(body, None, record), trace, failed=True)
        inputs: list[JoinInput] = [answer]
        if before is not None and before.stage.name == _STAGES[-2].name:
            inputs.insert(0, self._received(before, record, before.value.document, trace))
        letters = [PendingLetter(letter, stage.name, error.code)]
        return DocumentAnswer(record, document, inputs, trace, letters, published.messages, error)

    def _publish_failure(
        self, stage: Stage[Any, Any], document: str, failure: Failure, published: _Published, now_ms: int
    ) -> None:
        """As large as the topic takes it."""
        for smaller in (failure, replace(failure, text=None), replace(failure, text=None, carried={})):
            message = stage.failed(document, smaller, now_ms=now_ms, random=self._random)
            if self._refusal(message) is None:
                published.add(message)
                return

    def _deletion(self, deleted: Deleted, now_ms: int) -> DocumentAnswer:
        record, published = deleted.record, _Published(deleted.record, self._names)
        for stage in _STAGES if self._publishes else ():
            passed_on = replace(deleted, record=published.record)
            published.add(*stage.forward(passed_on, now_ms=now_ms, random=self._random).messages)
        trace = self._trace(record, published)
        deletion = Deletion(deleted.document, origin_of(record), trace.parent)
        return DocumentAnswer(record, deleted.document, [deletion], trace, published=published.messages)

    def _received(self, said: _LastResult, record: Record, document: Document, trace: Trace) -> ReceivedAnswer:
        body = {"document": document_to_json(document), "producer": said.producer, **said.carried}
        local = LocalAnswer(body, assemble_by(self._method, said.value), record)
        return _answer(document.id, document.revision, said.stage.name, local, trace, failed=False)

    def _trace(self, record: Record, published: _Published) -> Trace:
        """Of the last stage's message, or a new one."""
        last = parse_traceparent(published.record.headers) if published.messages else None
        return next_trace(record.headers, self._random) if last is None else last


@dataclass(frozen=True, slots=True)
class _LastResult:
    """What a stage said. ``carried``: what its message has of the stages before."""

    stage: Stage[Any, Any]
    value: Any
    producer: Mapping[str, Any]
    carried: Mapping[str, Any]


class _Published:
    """The stages' messages about a document: each is an answer to the one before. ``record``: the last of them, as the
    next stage would read it."""

    def __init__(self, record: Record, names: Mapping[Topic, str]) -> None:
        self.record = record
        self.messages: list[Outgoing] = []
        self._names = names

    def add(self, *messages: Outgoing) -> None:
        """One more."""
        for message in messages:
            self.messages.append(message)
            topic = Topic(message.topic)
            self.record = Record(
                topic, self._names[topic], self.record.partition, -1, -1, message.key, message.value, message.headers
            )


def _answer(
    document: str, revision: int, stage: str, local: LocalAnswer, trace: Trace, *, failed: bool
) -> ReceivedAnswer:
    record = local.record
    return ReceivedAnswer(
        document,
        revision,
        stage,
        failed,
        local,
        origin_of(record),
        trace.parent,
        (record.offset, record.timestamp_ms),
        record,
    )
