"""From messages of member-answers to a stage's message, without Kafka: what is read, told, refused and passed on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from el4ner.errors import DocumentError, EngineError, MessageError
from el4ner.loader import load_members, load_pipeline
from el4ner.pipeline import BasePipeline, Pipeline
from el4ner.serialize import dumps
from el4ner.stages.combine import Combiner
from el4ner.types import Document
from tests.support.answers import TIME, arrived, random, raw
from workers.config import StreamSettings, load_stream_settings
from workers.ensemble.combined_answers import WaitingAnswer, combined, read_member_answer, smaller
from workers.ensemble.combiner import CombineWorker
from workers.ensemble.member_join import MemberAnswer, MemberDeletion, MemberJoin, SettledAnswer
from workers.ensemble.members import part_of
from workers.join.agent import World
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import Ticket
from workers.messages import json_schemas
from workers.messages.envelope import Outgoing, Record, origin_of
from workers.messages.headers import find, parse_traceparent
from workers.stages.isolation import Result
from workers.stages.stage import STAGE, Deleted, Stage, StageAnswer, Work
from workers.stages.table import CLASSIFY, EXTRACT, VALIDATE
from workers.telemetry.metrics import Metrics
from workers.telemetry.recorder import Telemetry
from workers.telemetry.tracing import NoSpans
from workers.topics import Topic

MEMBERS = ("instant-a", "instant-b")
METHOD = {"proposals": ["chunks", "lexicon", "models"], "repeats": "exact"}
TEXT = "Angela Merkel flew to Berlin. It rained."
CALLS = {"extract": BasePipeline.extract, "classify": Pipeline.classify}


def settings_of(*members: str) -> StreamSettings:
    overrides = {
        "ensemble": {"preset": "instant"},
        "method": METHOD,
        "worker": {"members": list(members or MEMBERS)},
    }
    return load_stream_settings(environ={}, overrides=overrides)


class Processes:
    """One process for each member, one with all of them, and one that combines."""

    def __init__(self, folder: Path) -> None:
        self.parts = {member: load_members(settings_of(member), [member], cache_dir=folder) for member in MEMBERS}
        self.whole = load_pipeline(settings_of(), cache_dir=folder)
        self.combiner = Combiner.from_settings(settings_of(), cache_dir=folder)

    def whole_answer(self, stage: Stage[Any, Any], record: Record) -> Outgoing:
        return _answered(stage, record, lambda items: CALLS[stage.name](self.whole, items))  # type: ignore[operator]

    def member_answer(self, member: str, stage: Stage[Any, Any], record: Record, error: Any = None) -> Record:
        """What a member's process sends, as the combiner gets it."""
        pipeline = self.parts[member]
        part = part_of(stage, settings_of(member))
        call = pipeline.answer if stage is CLASSIFY else pipeline.extract
        return arrived(_answered(part, record, call, error), offset=MEMBERS.index(member))

    def combine(self, *records: Record, expire: bool = False) -> tuple[StageAnswer, list[StageAnswer]]:
        join: MemberJoin[WaitingAnswer] = MemberJoin(deadline_ms=1, remember_ms=1, max_documents=9, max_bytes=1 << 20)
        for record in records:
            found = read_member_answer(record)
            held = WaitingAnswer(record, Ticket(("t", 0), record.offset, 1))
            if isinstance(found, MemberDeletion):
                join.delete(found, held)
            else:
                join.answer(found, held, now=0)
        if expire:
            join.tick(now=1)
        (settled,) = join.take(9)
        return self.told(settled)

    def told(self, settled: SettledAnswer[WaitingAnswer]) -> tuple[StageAnswer, list[StageAnswer]]:
        answer, *letters = combined(settled, self.combiner, now_ms=TIME, random=random)
        return answer, letters


def _answered(stage: Stage[Any, Any], record: Record, call: Any, error: Any = None) -> Outgoing:
    work = stage.read(record, max_document_chars=1_000)
    assert isinstance(work, Work)
    value = error or call([work.item])[0]
    return stage.answer(work, Result(value), now_ms=TIME, random=random).messages[-1]


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Processes:
    return Processes(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def document() -> Record:
    return raw(dumps({"id": "d", "text": TEXT, "revision": 3, "metadata": {"n": 1}}), offset=41)


@pytest.fixture(scope="module")
def candidates(processes: Processes, document: Record) -> Record:
    return arrived(processes.whole_answer(EXTRACT, document))


def value_of(message: Outgoing | Record) -> Any:
    return orjson.loads(message.value or b"")


def without_tokens(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in value.items() if name != "usage"}


# --- what is told ---


def test_all_members_answers_make_the_message_that_one_process_sends(
    processes: Processes, document: Record, candidates: Record
) -> None:
    for stage, record in ((EXTRACT, document), (CLASSIFY, candidates)):
        said = [processes.member_answer(member, stage, record) for member in MEMBERS]
        for one in said:
            json_schemas.validate("member-answers", value_of(one))
        whole = processes.whole_answer(stage, record)
        for order in (said, said[::-1]):
            answer, broken = processes.combine(*order)
            (message,) = answer.messages
            assert broken == []
            json_schemas.validate(stage.output.value, value_of(message))
            assert without_tokens(value_of(message)) == without_tokens(value_of(whole))
            assert (message.topic, message.key, message.partition) == (whole.topic, whole.key, whole.partition)
            ours, theirs = dict(message.headers), dict(whole.headers)
            assert ours == {**theirs, "ce_time": ours["ce_time"], "traceparent": ours["traceparent"]}
            trace, its = parse_traceparent(message.headers), parse_traceparent(whole.headers)
            assert trace is not None
            assert its is not None
            assert trace.trace_id == its.trace_id


def test_without_a_member_the_message_names_it_and_the_next_stage_reads_it(
    processes: Processes, candidates: Record
) -> None:
    answer, _ = processes.combine(processes.member_answer("instant-b", CLASSIFY, candidates), expire=True)
    (message,) = answer.messages
    value = value_of(message)
    json_schemas.validate("typed-entities", value)
    assert value["producer"]["missing_members"] == ["instant-a"]
    assert list(value["producer"]["members"]) == ["instant-b"]
    work = VALIDATE.read(arrived(message), max_document_chars=1_000)
    assert isinstance(work, Work)
    assert work.carried["manifests"]["classify"]["missing_members"] == ["instant-a"]
    assert work.carried["metadata"] == {"n": 1}


def test_a_member_that_failed_is_gone_on_without(processes: Processes, candidates: Record) -> None:
    failed = processes.member_answer("instant-a", CLASSIFY, candidates, DocumentError("poison", code="engine"))
    json_schemas.validate("member-answers", value_of(failed))
    answer, broken = processes.combine(failed, processes.member_answer("instant-b", CLASSIFY, candidates))
    assert value_of(answer.messages[0])["producer"]["missing_members"] == ["instant-a"]
    assert (answer.error, broken) == (None, [])


def test_when_all_members_failed_the_stage_fails_with_the_first_ones_error(
    processes: Processes, candidates: Record
) -> None:
    errors = {"instant-a": DocumentError("poison", code="engine"), "instant-b": DocumentError("x", code="document")}
    failed = [processes.member_answer(member, CLASSIFY, candidates, error) for member, error in errors.items()]
    answer, broken = processes.combine(*failed[::-1])
    (message,) = answer.messages
    value = value_of(message)
    json_schemas.validate("typed-entities", value)
    assert (message.topic, value["status"], value["error"]["code"]) == (Topic.TYPED_ENTITIES, "failed", "engine")
    assert value["manifests"].keys() == {"extract"}
    assert "members" not in value
    assert answer.error is not None
    assert answer.error.code == "engine"
    assert broken == [], "each member's process has sent its own dead letter"


def test_answers_that_contradict_themselves_are_dead_letters_and_missing(
    processes: Processes, candidates: Record
) -> None:
    wrong = value_of(processes.member_answer("instant-a", CLASSIFY, candidates))
    for item in wrong["sentences"]:
        item["said"] = []
    record = replace(processes.member_answer("instant-a", CLASSIFY, candidates), value=dumps(wrong))
    answer, (broken,) = processes.combine(record, processes.member_answer("instant-b", CLASSIFY, candidates))
    assert value_of(answer.messages[0])["producer"]["missing_members"] == ["instant-a"]
    (letter,) = broken.messages
    assert letter.topic is Topic.DEAD_LETTERS
    assert letter.value == record.value
    reasons = {name: text.decode() for name, text in letter.headers[len(record.headers) :]}
    json_schemas.validate("dead-letters", reasons)
    assert (reasons["el4ner-stage"], reasons["el4ner-topic"]) == ("classify", "p.member-answers")
    alone, letters = processes.combine(record, expire=True)
    assert value_of(alone.messages[0])["error"]["code"] == "message"
    assert [one.messages[0].topic for one in letters] == [Topic.DEAD_LETTERS]


def test_answers_that_cannot_be_combined_are_all_dead_letters(processes: Processes, candidates: Record) -> None:
    said = []
    for member in MEMBERS:
        record = processes.member_answer(member, CLASSIFY, candidates)
        value = value_of(record)
        value["producer"]["pool_fingerprint"] = "another"
        said.append(replace(record, value=dumps(value)))
    answer, broken = processes.combine(*said)
    letters = [message for one in (answer, *broken) for message in one.messages if message.topic is Topic.DEAD_LETTERS]
    assert [letter.value for letter in letters] == [record.value for record in said]
    failed = value_of(answer.messages[-1])
    json_schemas.validate("typed-entities", failed)
    assert failed["error"]["code"] == "pool-mismatch"


def before_and_after(processes: Processes, stage: Stage[Any, Any], asked: Record) -> list[Record]:
    """What members say of which one has heard of a correction, and the other has not."""
    said = [processes.member_answer(member, stage, asked) for member in MEMBERS]
    value = value_of(said[1])
    value["producer"].update(pool_base=value["producer"]["pool_fingerprint"], pool_fingerprint="taught")
    if stage is CLASSIFY:
        value["types"] = list(processes.whole.pools["news"].types)
        for sentence in value["sentences"]:
            sentence["demonstrations"] = [7]
    json_schemas.validate("member-answers", value)
    return [said[0], replace(said[1], value=dumps(value))]


@pytest.mark.parametrize("stage", [EXTRACT, CLASSIFY])
def test_members_that_answered_before_and_after_a_correction_are_not_mixed_and_nobody_waits(
    processes: Processes, document: Record, candidates: Record, stage: Stage[Any, Any]
) -> None:
    """Of as many the last to answer decide, also where those have not heard of the correction: their processes are
    slower, and the document comes out as one that came just before it."""
    said = before_and_after(processes, stage, document if stage is EXTRACT else candidates)
    for order, decides in ((said, 1), (said[::-1], 0)):
        answer, letters = processes.combine(*order)  # and without waiting for the deadline
        producer = value_of(answer.messages[0])["producer"]
        assert (answer.error, letters) == (None, [])
        assert producer["missing_members"] == [MEMBERS[1 - decides]]
        assert producer["pool_fingerprint"] == value_of(said[decides])["producer"]["pool_fingerprint"]
        json_schemas.validate(stage.output.value, value_of(answer.messages[0]))


@pytest.mark.parametrize("stage", [EXTRACT, CLASSIFY])
def test_a_deletion_is_passed_on_to_where_the_stage_writes(processes: Processes, stage: Stage[Any, Any]) -> None:
    deleted = stage.read(raw(None, offset=41), max_document_chars=1)
    assert isinstance(deleted, Deleted)
    (told,) = part_of(stage, settings_of("instant-a")).forward(deleted, now_ms=TIME, random=random).messages
    assert (told.topic, find(told.headers, STAGE)) == (Topic.MEMBER_ANSWERS, stage.name.encode())
    answer, _ = processes.combine(arrived(told))
    (message,) = answer.messages
    assert (message.topic, message.key, message.value) == (stage.output, b"d", None)
    assert origin_of(arrived(message)).position == 41


# --- what is read ---


def test_members_of_one_question_know_each_other(processes: Processes, document: Record, candidates: Record) -> None:
    def question(record: Record) -> str | None:
        read = read_member_answer(record)
        assert isinstance(read, MemberAnswer)
        return read.question

    for stage, record in ((EXTRACT, document), (CLASSIFY, candidates)):
        one, other = (question(processes.member_answer(member, stage, record)) for member in MEMBERS)
        assert one == other
    changed = value_of(candidates)
    changed["sentences"][0]["candidates"].pop()
    asked_else = replace(candidates, value=dumps(changed))
    assert question(processes.member_answer("instant-a", CLASSIFY, asked_else)) != question(
        processes.member_answer("instant-a", CLASSIFY, candidates)
    )


@pytest.mark.parametrize(
    ("value", "headers", "said"),
    [
        (b"{", (), "not JSON"),
        (b'{"stage": "classify"}', (), "not a member-answers message"),
        (None, (), "el4ner-stage"),
        (None, ((STAGE, b"validate"),), "'validate'"),
    ],
)
def test_what_is_no_members_answer_is_refused(value: bytes | None, headers: Sequence[Any], said: str) -> None:
    with pytest.raises(MessageError, match=said):
        read_member_answer(Record(Topic.MEMBER_ANSWERS, "p.member-answers", 0, 3, TIME, b"d", value, tuple(headers)))


def test_two_members_messages_about_one_document_have_ids_of_their_own(
    processes: Processes, candidates: Record
) -> None:
    error = DocumentError("poison", code=EngineError.code)
    ids = {
        find(processes.member_answer(member, CLASSIFY, candidates, failed).headers, "ce_id")
        for member in MEMBERS
        for failed in (None, error)
    }
    assert len(ids) == 4


def test_a_document_without_any_candidate_is_combined_too(processes: Processes) -> None:
    (found,) = processes.whole.extract([Document("d", " ")])
    assert not isinstance(found, DocumentError)
    whole = processes.whole.classify([found])[0]
    parts = [([member], processes.parts[member].answer([found])[0]) for member in MEMBERS]
    assert not isinstance(whole, DocumentError)
    assert processes.combiner.types(parts, MEMBERS) == whole  # type: ignore[arg-type]


# --- what is too large ---


def test_an_answer_that_is_too_large_fails_and_every_part_of_it_is_a_dead_letter(
    processes: Processes, candidates: Record
) -> None:
    said = [processes.member_answer(member, CLASSIFY, candidates) for member in MEMBERS]
    join: MemberJoin[WaitingAnswer] = MemberJoin(deadline_ms=1, remember_ms=1, max_documents=9, max_bytes=1 << 20)
    for record in said:
        found = read_member_answer(record)
        assert isinstance(found, MemberAnswer)
        join.answer(found, WaitingAnswer(record, Ticket(("t", 0), record.offset, 1)), now=0)
    (settled,) = join.take(9)
    refused = RefusedError("too large for topic 'p.typed-entities'", code="output-too-large")
    answer, *others = combined(settled, processes.combiner, now_ms=TIME, random=random, refusal=lambda _: refused)
    letters = [message for one in (answer, *others) for message in one.messages if message.topic is Topic.DEAD_LETTERS]
    assert sorted(letter.value or b"" for letter in letters) == sorted(record.value or b"" for record in said)
    failed = value_of(answer.messages[-1])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "output-too-large")
    # If even that is too large, it becomes smaller, and says the same.
    places = list(smaller(answer, DocumentError("another reason"), now_ms=TIME, random=random))
    assert [value_of(one.messages[-1])["document"]["text"] for one in places] == [TEXT, None, None]
    assert "metadata" not in value_of(places[-1].messages[-1])
    for one in places:
        assert value_of(one.messages[-1])["error"] == failed["error"]
        json_schemas.validate("typed-entities", value_of(one.messages[-1]))


async def test_an_answer_that_ends_process_after_process_is_given_up(
    processes: Processes, candidates: Record, tmp_path: Path
) -> None:
    said = [processes.member_answer(member, CLASSIFY, candidates) for member in MEMBERS]
    answer, _ = processes.combine(*said)
    settings = load_stream_settings(environ={}, overrides={"worker": {"data_dir": str(tmp_path), "max_crashes": 2}})

    async def bug(_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    def process() -> CombineWorker:
        app: Any = SimpleNamespace(
            stage="combine",
            settings=settings,
            deliver=bug,
            agent=lambda *_, **__: lambda function: function,
            raw_topic=lambda *_: None,
            task=lambda function: function,
        )
        telemetry = Telemetry(settings, Metrics(version="1"), NoSpans())
        clock: Any = lambda: TIME  # noqa: E731
        worker = CombineWorker(app, World(clock, clock, random), telemetry, processes.combiner)
        worker._journal.take_over()
        return worker

    for _ in range(2):
        worker = process()
        assert worker._unless_it_kills(answer) is answer
        with pytest.raises(RuntimeError):
            await worker._delivery.deliver([answer])
        # What it died of is told though it ends in order.
        await worker.release()
        journal = worker._journal
        file, journal._file = journal._file, None
        assert file is not None
        os.close(file)
    last = process()
    given_up = last._unless_it_kills(answer)
    assert given_up.error is not None
    assert given_up.error.code == "worker-crash"
    assert [message.topic for message in given_up.messages] == [Topic.DEAD_LETTERS, Topic.TYPED_ENTITIES]
    await last.release()
