"""One hop says what the stages apart say: the same outcome of the same rules, and on request the same messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from el4ner.config import MethodSettings
from el4ner.errors import DocumentError
from el4ner.serialize import dumps
from tests.support.answers import ORIGIN, RESULTS, TIME, TOPICS, deletions, journey, random, raw
from workers.config import load_stream_settings
from workers.join.rules import JoinRules, Open, Outcome
from workers.join.stage_messages import join_rules, read_input
from workers.kafka.delivery import RefusedError
from workers.messages.envelope import Outgoing, Record
from workers.messages.headers import find, parse_traceparent
from workers.one_hop.journeys import DocumentAnswer, Journey, Teller
from workers.stages.isolation import Result
from workers.stages.stage import Deleted, Failure, Work
from workers.stages.table import EXTRACT, STAGE_TABLE
from workers.topics import Topic

RULES = join_rules(load_stream_settings(environ={}))
NAMES = {topic: f"p.{topic.value}" for topic in Topic}
VALUE = dumps({"id": "d", "text": "Angela flew to Berlin", "revision": 3, "metadata": {"n": 1}})
FAILURE = DocumentError("it broke", code="engine")
CASES = (None, *STAGE_TABLE)


def teller(*, publishes: bool = False, too_large: Topic | None = None) -> Teller:
    def refusal(message: Outgoing) -> RefusedError | None:
        large = message.topic is too_large and len(message.value or b"") > 200
        return RefusedError("too large", code="output-too-large") if large else None

    return Teller(MethodSettings(), NAMES, random, publishes=publishes, refusal=refusal)


def travelled(record: Record, fails: str | None) -> Journey:
    """What the stages make of a document, up to the one that fails."""
    work = EXTRACT.read(record, max_document_chars=1_000)
    assert isinstance(work, Work)
    results: list[Result[Any]] = []
    for stage in STAGE_TABLE:
        results.append(Result(FAILURE if stage == fails else RESULTS[stage](work.document)))
        if stage == fails:
            break
    return Journey(work, results)


def settled(rules: JoinRules, inputs: Any) -> Outcome:
    state = outcome = None
    for received in inputs:
        state, outcome = rules.apply(state, received, now=0)
    assert outcome is not None
    return outcome


def tell(fails: str | None, **options: Any) -> DocumentAnswer:
    return teller(**options).tell(travelled(raw(VALUE), fails), now_ms=TIME)


@pytest.mark.parametrize("fails", CASES)
def test_an_outcome_is_that_of_the_stages_apart(fails: str | None) -> None:
    answers = journey("d", 3, fails=fails).values()
    apart = settled(RULES, map(read_input, answers))
    answer = tell(fails)
    outcome = settled(RULES, answer.inputs)
    assert replace(outcome, trace=None) == replace(apart, trace=None)
    # What the consumer sees of it is written once the answer is: by the trace of the work on the document.
    assert outcome.trace == answer.trace.parent
    assert (answer.error is None) == (fails is None)


@pytest.mark.parametrize("fails", list(STAGE_TABLE))
def test_the_dead_letter_is_the_document_as_it_came_and_says_which_stage_gave_up(fails: str) -> None:
    record = raw(b'{"text": "Angela flew to Berlin",   "extra": null}', headers=(("own", b"\xff"),))
    (letter,) = teller().tell(travelled(record, fails), now_ms=TIME).letters
    message = letter.message
    assert (message.key, message.value, message.headers[: len(record.headers)]) == (
        record.key,
        record.value,
        record.headers,
    )
    assert find(message.headers, "el4ner-stage") == fails.encode()
    assert find(message.headers, "el4ner-topic") == record.source.encode()
    assert (letter.stage, letter.code) == (fails, "engine")


def test_a_document_that_cannot_be_read_fails_as_apart() -> None:
    record = raw(b"rubbish")
    failure = EXTRACT.read(record, max_document_chars=1_000)
    assert isinstance(failure, Failure)
    answer = teller().tell(failure, now_ms=TIME)
    outcome = settled(RULES, answer.inputs)
    assert outcome.tagged is not None
    assert (outcome.tagged["status"], outcome.tagged["error"]["code"]) == ("failed", "json")
    assert [letter.message.value for letter in answer.letters] == [b"rubbish"]


def test_a_deletion_deletes() -> None:
    deleted = EXTRACT.read(raw(None), max_document_chars=1_000)
    assert isinstance(deleted, Deleted)
    answer = teller().tell(deleted, now_ms=TIME)
    apart = settled(RULES, [read_input(deletions()["validate"])])
    assert replace(settled(RULES, answer.inputs), trace=None) == replace(apart, trace=None)


@pytest.mark.parametrize("fails", CASES)
def test_the_published_messages_are_those_of_the_stages_apart(fails: str | None) -> None:
    apart = journey("d", 3, fails=fails)
    answer = tell(fails, publishes=True)
    assert [message.topic for message in answer.published] == [TOPICS[stage] for stage in apart]
    for message, record in zip(answer.published, apart.values(), strict=True):
        assert (message.key, message.value, message.headers, message.partition) == (
            record.key,
            record.value,
            record.headers,
            record.partition,
        )
    assert answer.trace == parse_traceparent(answer.published[-1].headers)


def test_published_deletions_are_those_of_the_stages_apart() -> None:
    deleted = EXTRACT.read(raw(None), max_document_chars=1_000)
    assert isinstance(deleted, Deleted)
    answer = teller(publishes=True).tell(deleted, now_ms=TIME)
    for message, record in zip(answer.published, deletions().values(), strict=True):
        assert (message.topic, message.key, message.value, message.headers) == (
            record.topic,
            record.key,
            None,
            record.headers,
        )


def test_a_stages_message_that_is_too_large_fails_its_document_where_it_is_published() -> None:
    answer = tell(None, publishes=True, too_large=Topic.TYPED_ENTITIES)
    outcome = settled(RULES, answer.inputs)
    assert outcome.tagged is not None
    assert outcome.tagged["error"] == {"stage": "classify", "code": "output-too-large", "message": "too large"}
    assert [message.topic for message in answer.published][:1] == [Topic.SPAN_CANDIDATES]
    # Where nobody asks for the messages nothing is too large.
    assert settled(RULES, tell(None, too_large=Topic.TYPED_ENTITIES).inputs).closed.status == "complete"


def test_a_failure_is_published_as_large_as_its_topic_takes_it() -> None:
    long = raw(dumps({"id": "d", "text": "Angela flew to Berlin " * 20}))
    answer = teller(publishes=True, too_large=Topic.SPAN_CANDIDATES).tell(travelled(long, "extract"), now_ms=TIME)
    (message,) = answer.published
    body = orjson.loads(message.value or b"")
    assert (body["status"], body["document"]["text"]) == ("failed", None)
    assert len(message.value or b"") <= 200


def test_no_document_stays_open() -> None:
    for fails in CASES:
        state = None
        for received in tell(fails).inputs:
            state, _ = RULES.apply(state, received, now=0)
        assert not isinstance(state, Open)
        assert ORIGIN.position == getattr(state, "position", None)
