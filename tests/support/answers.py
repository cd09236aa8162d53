"""Messages of the stages as the stages themselves make them, with results that need no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from el4ner.errors import DocumentError
from el4ner.serialize import dumps
from el4ner.types import (
    Document,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Manifest,
    Mode,
    Sentence,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    Span,
    SpanCandidate,
    TypedSpan,
    Usage,
    Verdict,
)
from workers.messages.envelope import Origin, Outgoing, Record
from workers.messages.headers import Headers
from workers.stages.isolation import Result
from workers.stages.stage import Deleted, Work
from workers.stages.table import STAGE_TABLE
from workers.topics import Topic

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TIME = 1_700_000_000_000
ORIGIN = Origin(7)
TOPICS = {"extract": Topic.SPAN_CANDIDATES, "classify": Topic.TYPED_ENTITIES, "validate": Topic.VALIDATION_VERDICTS}


def random(count: int) -> bytes:
    return b"\x07" * count


def manifest(stage: str) -> Manifest:
    return Manifest(Mode.SCORED, {stage: "1"}, "v1", "news", "f", "r")


def _typed(document: Document) -> TypedSpan:
    """The last word is a place."""
    start = document.text.rfind(" ") + 1
    span = Span(start, len(document.text), document.text[start:])
    return TypedSpan(SpanCandidate(span, ("a",)), "place", 0.5, {"a": "place"})


def _sentence(document: Document) -> Sentence:
    return Sentence(0, len(document.text), document.text)


def _candidates(document: Document) -> DocumentCandidates:
    sentence = SentenceCandidates(_sentence(document), (0,), (_typed(document).candidate,))
    return DocumentCandidates(document, manifest("extract"), (sentence,), Usage(1))


def _types(document: Document) -> DocumentTypes:
    return DocumentTypes(
        document, manifest("classify"), (SentenceTypes(_sentence(document), (0,), (_typed(document),)),), Usage(1)
    )


def _entities(document: Document) -> DocumentEntities:
    judged = (_typed(document), Verdict(True, 0.9, "a"))
    return DocumentEntities(
        document, manifest("validate"), (SentenceEntities(_sentence(document), (judged,)),), Usage(1)
    )


RESULTS: Mapping[str, Callable[[Document], Any]] = {"extract": _candidates, "classify": _types, "validate": _entities}


def raw(value: bytes | None, *, key: bytes | None = b"d", offset: int = 7, headers: Headers = ()) -> Record:
    """A message of the ``documents`` topic, as its producer sent it."""
    return Record(
        Topic.DOCUMENTS, "p.documents", 2, offset, TIME, key, value, (("traceparent", TRACE.encode()), *headers)
    )


def arrived(message: Outgoing, offset: int = 0) -> Record:
    """A message that was sent, as its consumer gets it."""
    assert isinstance(message.topic, Topic)
    assert message.partition is not None
    return Record(
        message.topic,
        f"p.{message.topic.value}",
        message.partition,
        offset,
        TIME,
        message.key,
        message.value,
        message.headers,
    )


@lru_cache(maxsize=4096)
def journey(
    document: str = "d",
    revision: int = 0,
    *,
    text: str = "Angela flew to Berlin",
    origin: Origin = ORIGIN,
    fails: str | None = None,
) -> Mapping[str, Record]:
    """What each stage answers about a document, by stage; it ends with the stage that ``fails``."""
    value = dumps({"id": document, "text": text, "revision": revision, "metadata": {"n": 1}})
    record = raw(value, offset=origin.position, headers=origin.headers)
    answers = {}
    for stage in STAGE_TABLE.values():
        work = stage.read(record, max_document_chars=1_000)
        assert isinstance(work, Work)
        failure = DocumentError("it broke", code="engine")
        result: Result[Any] = Result(failure if stage.name == fails else RESULTS[stage.name](work.document))
        record = answers[stage.name] = arrived(stage.answer(work, result, now_ms=TIME, random=random).messages[-1])
        if stage.name == fails:
            break
    return answers


def deletions(document: str = "d", *, position: int = 7) -> Mapping[str, Record]:
    """What each stage makes of a null value, by stage."""
    record = raw(None, key=document.encode(), offset=position)
    answers = {}
    for stage in STAGE_TABLE.values():
        deleted = stage.read(record, max_document_chars=1_000)
        assert isinstance(deleted, Deleted)
        record = answers[stage.name] = arrived(stage.forward(deleted, now_ms=TIME, random=random).messages[0])
    return answers
