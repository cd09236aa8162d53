"""The join of a partition with everything around it, but without Kafka: logs of answers with committed offsets, atomic
transactions of outcomes and changelog records, and crashes between any two steps.

Whatever happens, what comes in comes out, once; and nothing is acknowledged before what it led to is safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.errors import DocumentError, MessageError
from el4ner.participation import STAGES
from el4ner.serialize import dumps
from tests.support.answers import deletions, journey
from tests.support.examples import examples
from workers.config import load_stream_settings
from workers.join.changelog import (
    Recovered,
    Remembered,
    _take_in,
    closed_record,
    drop_record,
    forget_record,
    open_record,
)
from workers.join.partition_join import Group, PartitionJoin
from workers.join.rules import Deletion, JoinInput, ReceivedAnswer
from workers.join.stage_messages import join_rules, read_input
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.messages import json_schemas
from workers.messages.envelope import Origin, Record, error_json, peek

CHECKPOINT_MS = 10
DEADLINE_MS = 1_000
REMEMBER_MS = 1_000_000
TOO_LARGE = DocumentError("a message of 9 bytes is too large", code="output-too-large")
JOIN = join_rules(load_stream_settings(environ={"EL4NER_WORKER__DEADLINE_SECONDS": str(DEADLINE_MS / 1000)}))

Rank = tuple[int, int]
"""Of two messages about a document, which one counts: how many deletions were before it, then its revision."""

Logs = Mapping[str, Sequence[tuple[int, int]]]
"""By stage, what is on its topic: of which raw message, and which of its answers."""


@dataclass(frozen=True)
class Raw:
    """A message of the documents topic, and what becomes of it.

    ``fate``: ``fine``, or what happens at ``stage``: it ``fails``; it ``wavers``: killed and started again, it first
    fails and then does not, or the other way round; its answer, or everything from it on, is lost (``unseen``,
    ``lost``); or what it writes is ``rubbish``.
    """

    id: str
    position: int
    rank: Rank
    replays: int = 0
    fate: str = "fine"
    stage: str = "extract"

    @property
    def is_deletion(self) -> bool:
        return self.rank[1] < 0

    @property
    def text(self) -> str:
        return f"{self.id}{self.rank[0]}.{self.rank[1]} flew to Berlin"

    def answers(self) -> Mapping[str, Sequence[Record]]:
        """By stage, in order."""
        if self.is_deletion:
            return {stage: [record] for stage, record in deletions(self.id, position=self.position).items()}
        origin = Origin(self.position, replays=self.replays)

        def told(fails: str | None = None) -> Mapping[str, Record]:
            return journey(self.id, self.rank[1], text=self.text, origin=origin, fails=fails)

        if self.fate == "fails":
            return {stage: [record] for stage, record in told(self.stage).items()}
        answers = {stage: [record] for stage, record in told().items()}
        at = STAGES.index(self.stage)
        if self.fate == "wavers":
            answers[self.stage].insert(self.position % 2, told(self.stage)[self.stage])
        elif self.fate == "unseen":
            del answers[self.stage]
        elif self.fate == "lost":
            answers = {stage: answers[stage] for stage in STAGES[:at]}
        elif self.fate == "rubbish":
            value = dumps({"document": {"id": self.id, "revision": self.rank[1]}})
            answers["validate"] = [replace(answers["validate"][0], value=value)]
        return answers


@dataclass(frozen=True)
class Emitted:
    """An outcome that was committed."""

    id: str
    position: int
    status: str
    tagged: Mapping[str, Any] | None


class CrashError(Exception):
    """The process is gone."""


class World:
    """One partition: what is durable, and the process that owns it now."""

    def __init__(self, raws: Sequence[Raw], logs: Logs) -> None:
        self.raws = raws
        self.logs = {
            stage: [raws[position].answers()[stage][number] for position, number in log] for stage, log in logs.items()
        }
        self.committed = dict.fromkeys(STAGES, 0)
        self.changelog: dict[bytes, bytes] = {}
        self.tagged: list[Emitted] = []
        self.elapsed = 0
        self._starts = 0
        self.start()

    # --- the process ---

    def start(self) -> None:
        """Take the partition over, on another machine: what was not durable is gone."""
        self._starts += 1
        # A monotonic clock begins anywhere.
        self._offset = self._starts * 7_919
        self.positions = OffsetTracker(lambda: 0.0)
        self.positions.open(self._starts)
        self.next = dict(self.committed)
        self.joins: PartitionJoin[Ticket] = PartitionJoin(JOIN, remember_ms=REMEMBER_MS, checkpoint_ms=CHECKPOINT_MS)
        recovered = Recovered()
        for key, value in self.changelog.items():
            _take_in(recovered, key, value, "changelog")
        for number in sorted(recovered.done):
            done = recovered.done[number]
            self.joins.restore_closed(number, self.now + done.until - self.elapsed, done.documents)
        for document, state in recovered.open.items():
            self.joins.restore_open(document, replace(state, since=self.now - (self.elapsed - state.since)))

    @property
    def now(self) -> int:
        return self.elapsed + self._offset

    def deliver(self, stage: str) -> bool:
        """The next message of a stage's topic; False if there is none."""
        log, offset = self.logs[stage], self.next[stage]
        if offset >= len(log):
            return False
        self.next[stage] += 1
        self.positions.read((stage, 0), offset, self._starts)
        ticket = self.positions.take((stage, 0), offset, self._starts)
        assert ticket is not None
        free = self._apply(log[offset], ticket)
        if free is not None:
            self.positions.finish(free)
        return True

    def _apply(self, record: Record, ticket: Ticket) -> Ticket | None:
        part = part_of(record)
        try:
            return self.joins.apply(part, ticket, now=self.now)
        except MessageError as error:
            # As the aggregator does it: the last stage's unreadable answer is its failure.
            body = peek(record.value)
            value = dumps({**body, "stage": "validate", "status": "failed", "error": error_json(error)})
            failed = ReceivedAnswer(part.id, body["document"]["revision"], "validate", True, value, part.origin)
            return self.joins.apply(failed, ticket, now=self.now)

    def pass_time(self, milliseconds: int) -> None:
        self.elapsed += milliseconds
        self.joins.tick(now=self.now)

    def write(self, most: int, *, crash: str = "") -> None:
        """One transaction. The process may crash before it knows of it: ``before`` it is committed, or ``after``; or
        ``between`` the first of its parts, each written alone, and the second."""
        group = self.joins.take(most)
        if crash == "before":
            raise CrashError
        if crash in ("apart", "refused"):
            # A message of the group was refused: each part is written alone, or turns out to be what is refused.
            for part in self.joins.split(group):
                self._write_part(part, refused=crash == "refused")
            return
        if crash == "between":
            for part in self.joins.split(group)[:1]:
                self._write_part(part, refused=False)
            raise CrashError
        self._commit_transaction(group)
        if crash == "after":
            raise CrashError
        for ticket in self.joins.committed(group, now=self.now):
            self.positions.finish(ticket)

    def _write_part(self, part: Group[Ticket], *, refused: bool) -> None:
        if refused and part.saved:
            for ticket in self.joins.give_up(part, TOO_LARGE):
                self.positions.finish(ticket)
            return
        if refused and part.settled:
            for other in part.outcomes[0].refused(TOO_LARGE):
                self.joins.replace(part, other)
        self._commit_transaction(part)
        for ticket in self.joins.committed(part, now=self.now):
            self.positions.finish(ticket)

    def _commit_transaction(self, group: Group[Ticket]) -> None:
        records = [
            open_record(document, state, since=self.elapsed - (self.now - state.since))
            for document, state in group.saves
        ]
        records += [drop_record(document) for document in group.drops]
        if group.number >= 0:
            until = self.joins.until(now=self.now) - self._offset
            documents = tuple((one.id, one.closed) for one in group.outcomes)
            records.append(closed_record(Remembered(group.number, until, documents)))
        records += [forget_record(number) for number in group.forgets]
        for key, value in records:
            if value is None:
                self.changelog.pop(key, None)
            else:
                self.changelog[key] = value
        self.tagged += [Emitted(one.id, one.origin.position, one.closed.status, one.tagged) for one in group.outcomes]

    def acknowledged(self) -> dict[str, int]:
        """Per stage, the offset that would be committed now."""
        return {**self.committed, **{stage: offset for (stage, _), offset in self.positions.committable().items()}}

    def commit(self) -> None:
        self.committed = self.acknowledged()

    # --- what has to hold ---

    def rank(self, position: int) -> Rank:
        return self.raws[position].rank

    def check(self) -> None:
        """After every step: what is acknowledged survives a crash."""
        acknowledged = self.acknowledged()
        durable = self._durable()
        for stage, log in self.logs.items():
            for record in log[: acknowledged[stage]]:
                part = part_of(record)
                rank = self.rank(part.origin.position)
                safe = rank <= durable.get(part.id, (-1, -1)) or any(
                    self._outdoes(part_of(other), part)
                    for to_come in self.logs
                    for other in self.logs[to_come][acknowledged[to_come] :]
                )
                assert safe, f"{part} is acknowledged, and nothing came of it"
        assert (self.joins.open_bytes == 0) == (self.joins.open_documents == 0)
        assert self.joins.open_bytes >= 500 * self.joins.open_documents

    def _durable(self) -> dict[str, Rank]:
        """By document, the newest that is in an outcome or in a record."""
        recovered = Recovered()
        for key, value in self.changelog.items():
            _take_in(recovered, key, value, "changelog")
        found = [(one.id, self.rank(one.position)) for one in self.tagged]
        found += [(document, self.rank(state.origin.position)) for document, state in recovered.open.items()]
        newest: dict[str, Rank] = {}
        for document, rank in found:
            newest[document] = max(rank, newest.get(document, rank))
        return newest

    def _outdoes(self, other: JoinInput, part: JoinInput) -> bool:
        """Whether nothing is lost with ``part`` if ``other`` comes again."""
        if other.id != part.id:
            return False
        rank, of_other = self.rank(part.origin.position), self.rank(other.origin.position)
        if rank != of_other or isinstance(part, Deletion) or isinstance(other, Deletion):
            return of_other >= rank
        further = STAGES.index(other.stage) >= STAGES.index(part.stage)
        return further and (part.failed or not other.failed)


def part_of(record: Record) -> JoinInput:
    part = read_input(record)
    assert part is not None
    return part


# --- what may happen ---


@st.composite
def inputs(draw: st.DrawFn) -> list[Raw]:
    raws: list[Raw] = []
    epochs = {"a": 0, "b": 0}
    for position in range(draw(st.integers(1, 6))):
        document = draw(st.sampled_from("ab"))
        kind = draw(st.sampled_from(["document", "document", "deletion", "replay"]))
        if kind == "deletion":
            epochs[document] += 1
            raws.append(Raw(document, position, (epochs[document], -1)))
            continue
        fate = draw(st.sampled_from(["fine", "fine", "fails", "wavers", "unseen", "lost", "rubbish"]))
        stage = "extract" if fate == "fine" else draw(st.sampled_from(STAGES))
        earlier = [one for one in raws if one.id == document and one.fate != "fine"]
        if kind == "replay" and earlier:
            again = earlier[-1].replays + 1
            raws.append(replace(earlier[-1], position=position, replays=again, fate=fate, stage=stage))
        else:
            revision = draw(st.integers(0, 2))
            raws.append(Raw(document, position, (epochs[document], revision), 0, fate, stage))
    # What is replayed after a deletion is a new document.
    counted = {"a": 0, "b": 0}
    for index, one in enumerate(raws):
        counted[one.id] += one.is_deletion
        raws[index] = replace(one, rank=(counted[one.id], one.rank[1]))
    return raws


@st.composite
def logs_of(draw: st.DrawFn, raws: Sequence[Raw]) -> Logs:
    """What is on the stages' topics: what belongs to one document in order, each topic with repetitions of its own."""
    logs = {}
    for stage in STAGES:
        log = [(raw.position, number) for raw in raws for number in range(len(raw.answers().get(stage, ())))]
        for _ in range(draw(st.integers(0, 2))):
            # The stage was killed before it had committed, and does the last ones again.
            end = draw(st.integers(0, len(log)))
            begin = draw(st.integers(0, end))
            log[end:end] = log[begin:end]
        for index in draw(st.lists(st.integers(0, 20), max_size=3)):
            if index + 1 < len(log) and raws[log[index][0]].id != raws[log[index + 1][0]].id:
                log[index], log[index + 1] = log[index + 1], log[index]
        logs[stage] = log
    return logs


@st.composite
def messages_in(draw: st.DrawFn) -> tuple[list[Raw], Logs]:
    raws = draw(inputs())
    return raws, draw(logs_of(raws))


STEPS = st.one_of(
    st.tuples(st.just("deliver"), st.sampled_from(STAGES)),
    st.tuples(st.just("deliver"), st.sampled_from(STAGES)),
    st.tuples(st.just("pass"), st.sampled_from([1, CHECKPOINT_MS, DEADLINE_MS])),
    st.tuples(
        st.just("write"), st.sampled_from(["", "", "", "before", "after", "apart", "between"]), st.integers(1, 3)
    ),
    st.tuples(st.just("commit")),
    st.tuples(st.just("crash")),
)


def run(world: World, step: Sequence[Any]) -> None:
    match step:
        case ("deliver", stage):
            world.deliver(stage)
        case ("pass", milliseconds):
            world.pass_time(milliseconds)
        case ("write", crash, most):
            try:
                world.write(most, crash=crash)
            except CrashError:
                world.start()
        case ("commit",):
            world.commit()
        case ("crash",):
            world.start()


def finish(world: World) -> None:
    """Everything that is there is read, and what is settled is written."""
    for stage in STAGES:
        while world.deliver(stage):
            pass
    while world.joins.has_work:
        world.write(2)
    world.check()


def canonical(raw: Raw) -> Mapping[str, Any]:
    """The outcome of a document to which nothing happens."""
    record = journey(raw.id, raw.rank[1], text=raw.text, origin=Origin(raw.position))["validate"]
    _, outcome = JOIN.apply(None, part_of(record), now=0)
    assert outcome is not None
    assert outcome.tagged is not None
    return outcome.tagged


@settings(max_examples=examples(400), deadline=None)
@given(messages_in(), st.lists(STEPS, max_size=40))
def test_what_comes_in_comes_out_once_whatever_happens(
    messages: tuple[list[Raw], Logs], steps: Sequence[Sequence[Any]]
) -> None:
    world = World(*messages)
    for step in steps:
        run(world, step)
        world.check()
    finish(world)
    in_time = world.elapsed < DEADLINE_MS
    world.pass_time(DEADLINE_MS)
    finish(world)
    for document in "ab":
        _check_document(world, document, in_time=in_time)
    _check_the_end(world)


@settings(max_examples=examples(150), deadline=None)
@given(messages_in(), st.lists(STEPS | st.tuples(st.just("write"), st.just("refused"), st.integers(1, 3)), max_size=40))
def test_what_cannot_be_written_loses_nothing_else_and_holds_nothing_back(
    messages: tuple[list[Raw], Logs], steps: Sequence[Sequence[Any]]
) -> None:
    world = World(*messages)
    for step in steps:
        run(world, step)
        world.check()
    finish(world)
    world.pass_time(DEADLINE_MS)
    finish(world)
    assert world.positions.in_flight == 0
    assert world.joins.open_documents == 0
    for raw in world.raws:
        if any(raw.answers().values()):
            assert any(one.id == raw.id for one in world.tagged), "it came to nothing"
    for one in world.tagged:
        if one.tagged is not None:
            assert one.tagged["status"] == one.status
            json_schemas.validate("tagged-documents", one.tagged)


def _check_document(world: World, document: str, *, in_time: bool) -> None:
    seen = [raw for raw in world.raws if raw.id == document and any(raw.answers().values())]
    emitted = [one for one in world.tagged if one.id == document]
    ranks = [world.rank(one.position) for one in emitted]
    assert ranks == sorted(ranks), "nothing older comes out after something newer"
    for one, rank in zip(emitted, ranks, strict=True):
        same = [raw for raw in seen if raw.rank == rank]
        assert ranks.count(rank) <= 1 + sum(raw.replays > 0 for raw in same)
        if rank[1] < 0:
            assert one.tagged is None
        else:
            assert one.tagged is not None
            assert one.tagged["revision"] == rank[1]
            assert one.tagged["text"] in (None, same[0].text)
            assert one.tagged["status"] == one.status
            assert (one.tagged["error"] is None) == (one.status == "complete")
            assert one.tagged["entities"] or one.status == "failed"
    if not seen:
        assert emitted == []
        return
    newest = [raw for raw in seen if raw.rank == max(raw.rank for raw in seen)]
    assert ranks[-1] == newest[0].rank, "the newest comes out"
    if newest[0].is_deletion:
        return
    *before, last = newest
    again = last.replays and all(raw.fate in ("fine", "fails", "wavers") for raw in before)
    if in_time and last.fate == "fine" and (again or all(raw.fate == "fine" for raw in newest)):
        assert emitted[-1].tagged == canonical(last)


def _check_the_end(world: World) -> None:
    """All is acknowledged, and after a while nothing is left."""
    world.commit()
    assert world.committed == {stage: len(log) for stage, log in world.logs.items()}
    assert {key.partition(b":")[0] for key in world.changelog} <= {b"done"}
    assert world.joins.remembered_documents == len({one.id for one in world.tagged})
    world.pass_time(REMEMBER_MS)
    finish(world)
    assert world.changelog == {}
    assert world.joins.oldest_since() is None
    left = [name for name, value in vars(world.joins).items() if isinstance(value, Sized) and len(value)]
    assert left == []


def test_a_record_of_a_newer_revision_outlives_the_outcome_of_the_one_before() -> None:
    """The older outcome waits in a queue while the newer revision is written down, and its time runs out."""
    raws = [
        Raw("a", 0, (0, 0), fate="fails", stage="classify"),
        Raw("b", 1, (0, 0)),
        Raw("a", 2, (0, 1), fate="lost", stage="classify"),
    ]
    world = World(raws, {"extract": [(0, 0), (1, 0), (2, 0)], "classify": [(0, 0)], "validate": [(1, 0)]})
    world.deliver("extract")
    world.pass_time(CHECKPOINT_MS)
    world.write(1)
    world.deliver("validate")
    world.deliver("classify")
    world.deliver("extract")
    world.deliver("extract")
    world.pass_time(CHECKPOINT_MS)
    world.write(1)
    world.pass_time(DEADLINE_MS)
    world.write(1)
    world.commit()
    world.check()
    world.start()
    finish(world)
    world.pass_time(DEADLINE_MS)
    finish(world)
    assert [(one.id, world.rank(one.position)) for one in world.tagged] == [("b", (0, 0)), ("a", (0, 0)), ("a", (0, 1))]


def test_a_record_outlives_the_older_outcome_also_where_each_is_written_alone() -> None:
    """Both outcomes are in one group that is taken apart, and the process dies between them."""
    raws = [
        Raw("a", 0, (0, 0), fate="fails", stage="classify"),
        Raw("b", 1, (0, 0)),
        Raw("a", 2, (0, 1), fate="lost", stage="classify"),
    ]
    world = World(raws, {"extract": [(0, 0), (1, 0), (2, 0)], "classify": [(0, 0)], "validate": [(1, 0)]})
    for stage in ("extract", "validate", "classify", "extract", "extract"):
        world.deliver(stage)
    world.pass_time(CHECKPOINT_MS)
    world.write(1)
    world.commit()
    world.pass_time(DEADLINE_MS)
    with pytest.raises(CrashError):
        world.write(2, crash="between")
    world.check()
    world.start()
    finish(world)
    world.pass_time(DEADLINE_MS)
    finish(world)
    assert [(one.id, world.rank(one.position)) for one in world.tagged] == [("b", (0, 0)), ("a", (0, 0)), ("a", (0, 1))]


def test_an_outcome_that_is_written_alone_takes_its_record_along_though_a_newer_one_follows() -> None:
    """Otherwise the older document would be open again after a crash, and come out twice."""
    raws = [Raw("a", 0, (0, 0), fate="fails", stage="classify"), Raw("a", 1, (0, 1), fate="lost", stage="classify")]
    world = World(raws, {"extract": [(0, 0), (1, 0)], "classify": [(0, 0)], "validate": []})
    world.deliver("extract")
    world.pass_time(CHECKPOINT_MS)
    world.write(1)
    world.deliver("classify")
    world.deliver("extract")
    world.pass_time(CHECKPOINT_MS)
    with pytest.raises(CrashError):
        world.write(2, crash="between")
    world.check()
    world.start()
    world.deliver("classify")
    finish(world)
    world.pass_time(DEADLINE_MS)
    finish(world)
    assert [(one.id, world.rank(one.position)) for one in world.tagged] == [("a", (0, 0)), ("a", (0, 1))]


# --- one by one ---


class Joins(PartitionJoin[str]):
    """A join whose tickets are words."""

    def __init__(self) -> None:
        super().__init__(JOIN, remember_ms=REMEMBER_MS, checkpoint_ms=CHECKPOINT_MS)

    def tell(self, document: str, stage: str, ticket: str, *, now: int = 0, **options: Any) -> str | None:
        return self.apply(part_of(journey(document, **options)[stage]), ticket, now=now)

    def write(self, *, now: int = 0) -> tuple[Group[str], list[str]]:
        group = self.take(1_000)
        return group, self.committed(group, now=now)


def test_a_document_that_is_answered_quickly_leaves_nothing_but_its_outcome() -> None:
    joins = Joins()
    for stage in STAGES:
        assert joins.tell("a", stage, stage) is None
    joins.tick(now=CHECKPOINT_MS)
    group, free = joins.write()
    assert [one.id for one in group.outcomes] == ["a"]
    assert (group.saves, group.drops, group.forgets) == ([], [], [])
    assert sorted(free) == sorted(STAGES)


def test_a_document_that_stays_open_is_written_down_and_then_its_answers_are_free() -> None:
    joins = Joins()
    joins.tell("a", "extract", "1")
    joins.tick(now=CHECKPOINT_MS - 1)
    assert not joins.has_work
    joins.tick(now=CHECKPOINT_MS)
    group, free = joins.write()
    assert [document for document, _ in group.saves] == ["a"]
    assert (group.number, free) == (-1, ["1"])
    # It is not written again unless there is something new, and its record goes with its outcome.
    joins.tick(now=CHECKPOINT_MS * 5)
    assert not joins.has_work
    joins.tell("a", "classify", "2", now=CHECKPOINT_MS * 5)
    joins.tell("a", "validate", "3", now=CHECKPOINT_MS * 5)
    group, free = joins.write()
    assert (group.drops, sorted(free)) == (["a"], ["2", "3"])


def test_a_late_answer_is_free_when_the_outcome_is_committed() -> None:
    joins = Joins()
    joins.tell("a", "validate", "1")
    assert joins.tell("a", "extract", "2") is None
    group = joins.take(10)
    assert joins.tell("a", "classify", "3") is None
    assert sorted(joins.committed(group, now=0)) == ["1", "2", "3"]
    assert joins.tell("a", "classify", "4") == "4"


def test_a_document_that_is_settled_while_it_cannot_be_written_down_frees_all_its_answers() -> None:
    joins = Joins()
    joins.tell("a", "classify", "1")
    joins.tick(now=CHECKPOINT_MS)
    (saving,) = joins.split(joins.take(10))
    joins.tell("a", "validate", "2")
    assert joins.give_up(saving, TOO_LARGE) == []
    group, free = joins.write()
    assert [one.closed.status for one in group.outcomes] == ["complete"]
    assert sorted(free) == ["1", "2"]


def test_outcomes_that_are_written_alone_are_remembered_each_after_a_crash() -> None:
    raws = [Raw("a", 0, (0, 0)), Raw("b", 1, (0, 0))]
    world = World(raws, {"extract": [], "classify": [], "validate": [(0, 0), (1, 0)]})
    world.deliver("validate")
    world.deliver("validate")
    world.write(2, crash="apart")
    world.start()
    finish(world)
    assert [one.id for one in world.tagged] == ["a", "b"]


def test_outcomes_are_forgotten_when_they_were_remembered_for_long_enough() -> None:
    joins = Joins()
    joins.tell("a", "validate", "1")
    group, _ = joins.write(now=5)
    joins.tick(now=REMEMBER_MS + 4)
    assert joins.remembered_documents == 1
    joins.tick(now=REMEMBER_MS + 5)
    assert joins.remembered_documents == 0
    forgetting, _ = joins.write()
    assert forgetting.forgets == [group.number]
    joins.tell("a", "validate", "2")
    again, _ = joins.write()
    assert [one.id for one in again.outcomes] == ["a"]
    assert again.number > group.number


def test_what_open_documents_take_is_counted() -> None:
    joins = Joins()
    sizes = {stage: len(record.value or b"") for stage, record in journey("a").items()}
    joins.tell("a", "extract", "1")
    assert joins.open_bytes == 500 + sizes["extract"]
    joins.tell("a", "classify", "2")
    assert joins.open_bytes == 500 + sizes["classify"]
    higher = len(journey("a", revision=1)["extract"].value or b"")
    joins.tell("a", "extract", "3", revision=1)
    assert joins.open_bytes == 500 + higher
    joins.tell("a", "validate", "4", revision=1)
    assert joins.open_bytes == 0


def test_when_the_oldest_open_document_was_begun_is_known() -> None:
    joins = Joins()
    for number, document in enumerate("abc"):
        joins.tell(document, "extract", document, now=number)
    assert joins.oldest_since() == 0
    joins.tell("a", "validate", "d", now=9)
    assert joins.oldest_since() == 1
    joins.tell("b", "validate", "e", now=9)
    joins.tell("c", "validate", "f", now=9)
    assert joins.oldest_since() is None


def test_settled_documents_take_no_memory_until_their_deadline() -> None:
    joins = Joins()
    for number in range(1_500):
        joins.tell(f"d-{number % 7}", "extract", "1", revision=number)
        joins.tell(f"d-{number % 7}", "validate", "2", revision=number)
        joins.write()
    assert joins.open_documents == 0
    assert len(joins._deadlines) <= 1_000
