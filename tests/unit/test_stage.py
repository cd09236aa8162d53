"""A stage's logic, without Kafka: who gets an answer, who a dead letter, and what one poison document costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given

from el4ner.errors import DocumentError, EngineError, EngineOutOfMemoryError, MessageError
from el4ner.serialize import candidates_to_json, dumps, types_to_json
from el4ner.types import Document, DocumentCandidates, DocumentEntities, DocumentTypes, Manifest, Mode
from tests.unit import strategies
from workers import schemas
from workers.headers import find, parse_traceparent
from workers.messages import Outgoing, Record, decode, document_id
from workers.stage import CLASSIFY, EXTRACT, STAGES, VALIDATE, Answer, Failure, Result, Work, run_isolated
from workers.topics import Topic

MANIFEST = Manifest(Mode.SCORED, {"a": "1"}, "v1", "news", "f", "r")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW = 1_700_000_000_000


def random(count: int) -> bytes:
    return b"\x07" * count


def record(
    value: bytes | None, *, key: bytes | None = b"key", topic: Topic = Topic.DOCUMENTS, offset: int = 7
) -> Record:
    return Record(
        topic, f"p.{topic.value}", 2, offset, 123, key, value, (("own", b"1"), ("traceparent", TRACE.encode()))
    )


def read(value: Any, **options: Any) -> Any:
    return EXTRACT.read(record(dumps(value), **options), max_document_chars=100)


def only(messages: Sequence[Outgoing], topic: Topic) -> Outgoing:
    (message,) = [message for message in messages if message.topic is topic]
    return message


def give_up(failure: Any) -> Answer:
    assert isinstance(failure, Failure)
    return EXTRACT.give_up(failure, now_ms=NOW, random=random)


# --- whose document is it ---


@pytest.mark.parametrize(
    ("value", "key", "expected"),
    [
        ({"text": "t", "id": "own"}, b"key", "own"),
        ({"text": "t"}, b"key", "key"),
        ({"text": "t"}, "schlüssel".encode(), "schlüssel"),
        ({"text": "t"}, None, "p.documents-2-7"),
        ({"text": "t"}, b"", "p.documents-2-7"),
        ({"text": "t"}, b"\xff", "p.documents-2-7"),
        ({"text": "t"}, b"k" * 2_000, "p.documents-2-7"),
        ({"id": "own"}, b"key", "own"),
        ({"id": 5}, b"key", "key"),
        ([], b"key", "key"),
        (None, b"key", "key"),
    ],
)
def test_a_document_is_named_by_its_value_else_its_key_else_its_place(
    value: Any, key: bytes | None, expected: str
) -> None:
    assert document_id(record(b"", key=key), value) == expected


# --- reading ---


def test_a_document_becomes_work() -> None:
    work = read({"text": "Zürich", "pool": "logs", "revision": 3, "unknown": [1]})
    assert isinstance(work, Work)
    assert work.item == Document("key", "Zürich", "logs", 3)


def test_a_null_value_asks_for_nothing() -> None:
    for stage in STAGES.values():
        assert stage.read(record(None, topic=stage.input), max_document_chars=1) is None


@pytest.mark.parametrize(
    ("value", "code", "place"),
    [
        (b"not json", "json", "JSON"),
        (b'{"text": "\xff"}', "encoding", "byte 10"),
        (b"{}", "schema", "text"),
        (b'{"text": 5}', "schema", "/text"),
        (b'{"text": "a", "revision": -1}', "schema", "/revision"),
        (b"[]", "schema", "/"),
        (b"", "json", "JSON"),
        (dumps({"text": "a" * 101}), "document-too-long", "101"),
    ],
)
def test_a_broken_document_is_a_dead_letter_byte_for_byte_and_a_failed_answer(
    value: bytes, code: str, place: str
) -> None:
    broken = record(value)
    answer = give_up(EXTRACT.read(broken, max_document_chars=100))
    letter = only(answer.messages, Topic.DEAD_LETTERS)
    assert (letter.key, letter.value) == (broken.key, value)
    assert letter.headers[:2] == broken.headers
    reasons = {name: text.decode() for name, text in letter.headers if name.startswith("el4ner-")}
    schemas.validate("dead-letters", reasons)
    assert reasons["el4ner-error-code"] == code
    assert place in reasons["el4ner-error-message"]
    assert (reasons["el4ner-topic"], reasons["el4ner-partition"], reasons["el4ner-offset"]) == ("p.documents", "2", "7")
    assert (reasons["el4ner-timestamp"], reasons["el4ner-attempts"]) == ("123", "1")
    failed = only(answer.messages, Topic.SPAN_CANDIDATES)
    body = decode(failed.topic, failed.value or b"")
    assert body["status"] == "failed"
    assert body["document"]["id"] == "key"
    assert body["error"]["code"] == code
    assert failed.partition == 2


def test_the_reason_in_a_dead_letter_is_bounded() -> None:
    failure = Failure(record(b"x"), "key", 0, None, None, DocumentError("r" * 5_000))
    for message in give_up(failure).messages:
        assert sum(len(value) for _, value in message.headers) < 3_000


def test_an_earlier_failure_is_somebody_elses_answer() -> None:
    failure = give_up(read({}))
    value = only(failure.messages, Topic.SPAN_CANDIDATES).value
    assert CLASSIFY.read(record(value, topic=Topic.SPAN_CANDIDATES), max_document_chars=9) is None


@pytest.mark.parametrize(
    ("value", "key", "whose"),
    [
        (b"rubbish", b"key", "key"),
        (b'{"document": {"id": "own"}}', b"key", "own"),
        (b"rubbish", None, None),
    ],
)
def test_an_unreadable_answer_fails_the_document_if_it_is_known_whose(
    value: bytes, key: bytes | None, whose: str | None
) -> None:
    failure = CLASSIFY.read(record(value, key=key, topic=Topic.SPAN_CANDIDATES), max_document_chars=9)
    assert isinstance(failure, Failure)
    answer = CLASSIFY.give_up(failure, now_ms=NOW, random=random)
    topics = [message.topic for message in answer.messages]
    assert topics == [Topic.DEAD_LETTERS] + ([] if whose is None else [Topic.TYPED_ENTITIES])
    assert answer.document == whose


# --- answering ---


@given(strategies.document_candidates())
def test_what_extraction_says_classification_reads(result: DocumentCandidates) -> None:
    document = result.document
    work = Work(record(b"", offset=1), document, document)
    answer = EXTRACT.answer(work, Result(result), now_ms=NOW, random=random)
    (message,) = answer.messages
    schemas.validate("span-candidates", orjson.loads(message.value or b""))
    again = CLASSIFY.read(record(message.value, topic=Topic.SPAN_CANDIDATES), max_document_chars=100)
    assert isinstance(again, Work)
    assert again.item == result


@given(strategies.document_types())
def test_what_classification_says_validation_reads(result: DocumentTypes) -> None:
    work = Work(record(b""), result.document, DocumentCandidates(result.document, MANIFEST, ()))
    (message,) = CLASSIFY.answer(work, Result(result), now_ms=NOW, random=random).messages
    schemas.validate("typed-entities", orjson.loads(message.value or b""))
    again = VALIDATE.read(record(message.value, topic=Topic.TYPED_ENTITIES), max_document_chars=100)
    assert isinstance(again, Work)
    assert again.item == result


@given(strategies.document_entities())
def test_what_validation_says_is_valid(result: DocumentEntities) -> None:
    work = Work(record(b""), result.document, DocumentTypes(result.document, MANIFEST, ()))
    (message,) = VALIDATE.answer(work, Result(result), now_ms=NOW, random=random).messages
    schemas.validate("validation-verdicts", orjson.loads(message.value or b""))


def test_an_answer_goes_to_its_documents_partition_in_its_trace_with_a_repeatable_id() -> None:
    def message() -> Outgoing:
        work = read({"id": "größe", "text": "t"})
        result = DocumentCandidates(work.document, MANIFEST, ())
        return EXTRACT.answer(work, Result(result), now_ms=NOW, random=random).messages[0]

    first = message()
    assert first.partition == 2
    assert first.key == "größe".encode()
    assert find(first.headers, "ce_id") == find(message().headers, "ce_id")
    assert find(first.headers, "ce_type") == b"el4ner.span-candidates.v1"
    trace = parse_traceparent(first.headers)
    assert trace is not None
    assert trace.trace_id == TRACE.split("-")[1]
    assert trace.span_id != TRACE.split("-")[2]


# --- the engine's thread ---


class Fake:
    """A pipeline's stage that fails on batches with poison in them."""

    def __init__(self, poison: Mapping[str, Callable[[], Exception]]) -> None:
        self.poison = poison
        self.calls: list[list[str]] = []

    def __call__(self, items: Sequence[str]) -> list[str | DocumentError]:
        self.calls.append(list(items))
        for item in items:
            if item in self.poison:
                raise self.poison[item]()
        return [DocumentError("no") if item.startswith("bad") else item.upper() for item in items]


def test_a_healthy_batch_is_one_call() -> None:
    fake = Fake({})
    results = run_isolated(fake, ["a", "bad", "c"])
    assert [result.value for result in results if not isinstance(result.value, DocumentError)] == ["A", "C"]
    assert isinstance(results[1].value, DocumentError)
    assert fake.calls == [["a", "bad", "c"]]
    assert run_isolated(fake, []) == []


@pytest.mark.parametrize("error", [EngineError, EngineOutOfMemoryError])
def test_a_poison_document_costs_only_itself(error: type[EngineError]) -> None:
    fake = Fake({"b": lambda: error("boom")})
    results = run_isolated(fake, ["a", "b", "c"])
    assert [result.value for result in (results[0], results[2])] == ["A", "C"]
    poisoned = results[1]
    assert isinstance(poisoned.value, DocumentError)
    assert poisoned.value.code == error.code
    assert poisoned.attempts == 2
    assert fake.calls == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    document = Document("d", "t")
    answer = EXTRACT.answer(Work(record(b"{}"), document, document), poisoned, now_ms=NOW, random=random)
    letter = only(answer.messages, Topic.DEAD_LETTERS)
    assert find(letter.headers, "el4ner-attempts") == b"2"
    assert find(letter.headers, "el4ner-error-code") == error.code.encode()


def test_a_bug_is_not_caught() -> None:
    fake = Fake({"b": lambda: KeyError("bug")})
    with pytest.raises(KeyError):
        run_isolated(fake, ["a", "b"])
    with pytest.raises(RuntimeError, match="answered 0 results to 1"):
        run_isolated(lambda items: [], ["a"])


def test_errors_name_the_json_path() -> None:
    value = {
        "stage": "extract",
        "status": "ok",
        **candidates_to_json(DocumentCandidates(Document("d", "t"), MANIFEST, ())),
    }
    value["producer"]["members"] = {"a": 5}
    with pytest.raises(MessageError, match="/producer/members/a"):
        decode(Topic.SPAN_CANDIDATES, dumps(value))
    typed = {"stage": "classify", "status": "ok", **types_to_json(DocumentTypes(Document("d", "t"), MANIFEST, ()))}
    del typed["usage"]
    with pytest.raises(MessageError, match="usage"):
        decode(Topic.TYPED_ENTITIES, dumps(typed))
