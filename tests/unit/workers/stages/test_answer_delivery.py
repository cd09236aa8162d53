"""Answers that cannot be delivered: each fails its own document, and the others are delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import InvalidTimestampError, MessageSizeTooLargeError, NotLeaderForPartitionError
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import TopicPartition

from el4ner.serialize import dumps
from tests.support.answers import RESULTS, TIME, deletions, journey, random, raw
from workers.config import load_stream_settings
from workers.kafka.delivery import RefusedError, may_be_of_a_message
from workers.kafka.size_limits import SizeLimits, expected_bytes, shortage
from workers.kafka.transport import number_anew_after_refusals
from workers.messages.envelope import Outgoing
from workers.stages.answer_delivery import deliver_answers, fitting
from workers.stages.isolation import Result
from workers.stages.stage import StageAnswer, Work
from workers.stages.table import EXTRACT
from workers.topics import Topic, plan

TOO_LARGE = RefusedError("too large for topic 'p', whose max.message.bytes is 9", code="output-too-large")


def answer(name: str, *, text: str = "Angela flew to Berlin") -> StageAnswer:
    work = EXTRACT.read(raw(dumps({"id": name, "text": text, "metadata": {"n": 1}})), max_document_chars=10**6)
    assert isinstance(work, Work)
    return EXTRACT.answer(work, Result(RESULTS["extract"](work.document)), now_ms=TIME, random=random)


def smaller(given: StageAnswer, refused: RefusedError) -> Iterator[StageAnswer]:
    return EXTRACT.smaller(given.record, refused.of_the_document, now_ms=TIME, random=random)


class Broker:
    """Takes what it does not refuse, call by call."""

    def __init__(self, refuses: Callable[[Outgoing], bool]) -> None:
        self.refuses = refuses
        self.taken: list[Outgoing] = []
        self.calls = 0

    async def deliver(self, messages: Sequence[Outgoing]) -> None:
        self.calls += 1
        if any(map(self.refuses, messages)):
            raise TOO_LARGE
        self.taken += messages


def too_large(name: str, most: int = 0) -> Callable[[Outgoing], bool]:
    """Refuses what is said of that document on the stage's topic, if it is larger."""
    return lambda message: (
        message.topic is Topic.SPAN_CANDIDATES and message.key == name.encode() and len(message.value or b"") > most
    )


async def delivered(broker: Broker, *answers: StageAnswer) -> tuple[list[StageAnswer], list[str]]:
    told: list[str] = []
    done = await deliver_answers(answers, broker.deliver, smaller, refused=lambda error: told.append(error.code))
    return done, told


async def test_what_nobody_refuses_is_delivered_together() -> None:
    broker = Broker(lambda _: False)
    answers = [answer(name) for name in "abc"]
    assert await delivered(broker, *answers) == (answers, [])
    assert broker.calls == 1


async def test_one_refused_answer_fails_its_document_and_the_others_are_delivered() -> None:
    broker = Broker(too_large("b", most=500))
    whole = [answer("a"), answer("b", text="Angela flew to Berlin. " * 40), answer("c")]
    done, told = await delivered(broker, *whole)
    assert told == ["output-too-large"]
    assert [one.error and one.error.code for one in done] == [None, "output-too-large", None]
    assert (done[0], done[2]) == (whole[0], whole[2])
    (letter,) = [message for message in broker.taken if message.topic is Topic.DEAD_LETTERS]
    assert letter.value == whole[1].record.value
    (failed,) = [message for message in broker.taken if message.key == b"b" and message is not letter]
    assert b'"status":"failed"' in (failed.value or b"")
    assert b'"text":null' in (failed.value or b"")
    assert b'"metadata"' in (failed.value or b"")


async def test_where_not_even_the_dead_letter_is_taken_it_is_raised() -> None:
    with pytest.raises(RefusedError):
        await delivered(Broker(lambda message: message.key == b"b"), answer("a"), answer("b"))


def test_an_answer_that_is_too_large_is_known_before_it_is_sent() -> None:
    answers = [answer("a"), answer("b", text="Angela flew to Berlin. " * 40)]

    def refusal(message: Outgoing) -> RefusedError | None:
        return TOO_LARGE if too_large("b", most=500)(message) else None

    kept, given_up = fitting(answers, refusal, smaller)
    assert kept is answers[0]
    assert given_up.error is not None
    assert given_up.error.code == "output-too-large"
    assert [message.topic for message in given_up.messages] == [Topic.DEAD_LETTERS, Topic.SPAN_CANDIDATES]


def test_each_answer_in_the_place_of_a_refused_one_is_smaller_than_the_one_before() -> None:
    sizes = [len(one.messages[-1].value or b"") for one in smaller(answer("b", text="x " * 400), TOO_LARGE)]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    deleted = StageAnswer(raw(None), "d", ())
    assert list(smaller(deleted, TOO_LARGE)) == []


def test_who_carries_on_what_came_before_says_so_in_the_failure_too() -> None:
    from workers.stages.table import CLASSIFY

    record = journey()["extract"]
    first, _, last = CLASSIFY.smaller(record, TOO_LARGE.of_the_document, now_ms=TIME, random=random)
    assert b'"manifests"' in (first.messages[-1].value or b"")
    assert b'"manifests"' not in (last.messages[-1].value or b"")
    assert list(CLASSIFY.smaller(deletions()["extract"], TOO_LARGE.of_the_document, now_ms=TIME, random=random)) == []


# --- whose fault it is ---


def test_only_what_may_be_a_messages_fault_is_blamed_on_it() -> None:
    from aiokafka.errors import TopicAuthorizationFailedError, UnknownError

    from workers.kafka.delivery import DeliveryError

    for error in (TOO_LARGE, ValueError("a bug"), MemoryError(), UnknownError()):
        assert may_be_of_a_message(error)
    for error in (DeliveryError("gone"), TopicAuthorizationFailedError("t"), NotLeaderForPartitionError()):
        assert not may_be_of_a_message(error)


# --- the producer's numbers ---


class Cluster:
    """One broker leads everything."""

    def leader_for_partition(self, _: Any) -> int:
        return 0


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize(
    ("error", "expected"), [(MessageSizeTooLargeError(), 0), (InvalidTimestampError(), 0), (OSError("lost"), 3)]
)
async def test_the_numbers_of_a_batch_that_was_refused_are_given_to_the_next_one(
    error: Exception, expected: int, retries: int
) -> None:
    numbers = TransactionManager(None, 60_000)
    numbers.set_pid_and_epoch(7, 0)
    accumulator = MessageAccumulator(Cluster(), 1_000, 0, 30.0, txn_manager=numbers)
    number_anew_after_refusals(SimpleNamespace(_message_accumulator=accumulator, _txn_manager=numbers))
    tp = TopicPartition("t", 0)

    async def batch() -> Any:
        builder: BatchBuilder = accumulator.create_builder()
        for _ in range(3):
            builder.append(timestamp=None, key=None, value=b"v")
        future = await accumulator.add_batch(builder, tp, 1.0)
        ((drained,),) = [nodes.values() for nodes in accumulator.drain_by_nodes(ignore_nodes=set())[0].values()]
        return drained, future

    first, future = await batch()
    for _ in range(retries):  # a request that was lost is sent again, with the numbers that it has
        accumulator.reenqueue(first)
        accumulator.drain_by_nodes(ignore_nodes=set())
    first.failure(error)
    with pytest.raises(type(error)):
        await future
    assert numbers.sequence_number(tp) == expected


# --- limits at the start ---


def limits_of(settings: Any) -> SizeLimits:
    sizes = {planned.name: int(planned.configs.get("max.message.bytes", 1_048_588)) for planned in plan(settings.kafka)}
    return SizeLimits(sizes, frozenset({"span-candidates", "typed-entities", "validation-verdicts"}), "dead-letters")


def test_the_limits_that_are_shipped_fit_together() -> None:
    settings = load_stream_settings(environ={})
    assert shortage(settings, limits_of(settings)) is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"method": {"max_document_chars": 2_000_000, "max_spans": 300_000}},
            ("max_spans = 300000", "max_document_chars = 2000000", "lower the limits"),
        ),
        ({"method": {"max_spans": 60_000}}, ("max_spans = 60000", "raise kafka.max_message_bytes to ")),
        ({"kafka": {"max_message_bytes": 1_000_000}}, ("takes messages of 1,", "raise kafka.max_message_bytes to ")),
    ],
)
def test_limits_that_do_not_fit_the_topics_are_named(overrides: dict[str, Any], words: tuple[str, ...]) -> None:
    settings = load_stream_settings(environ={}, overrides=overrides)
    said = shortage(settings, limits_of(settings))
    assert said is not None
    for word in words:
        assert word in said


def test_what_is_advised_is_enough() -> None:
    settings = load_stream_settings(environ={}, overrides={"method": {"max_spans": 60_000}})
    said = shortage(settings, limits_of(settings)) or ""
    advised = int(said.split("max_message_bytes to ")[1].split(",")[0])
    raised = load_stream_settings(
        environ={}, overrides={"method": {"max_spans": 60_000}, "kafka": {"max_message_bytes": advised}}
    )
    assert shortage(raised, limits_of(raised)) is None
    assert expected_bytes(raised) == expected_bytes(settings)
