"""Putting members' answers together, without Kafka: a log of answers with a committed offset, and crashes at any step.

Whatever the order, and whatever comes twice or never: what is told of a document is made of all its members' answers,
or says who is missing; nothing is acknowledged before what it led to is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from workers.ensemble.member_join import MemberAnswer, MemberDeletion, MemberJoin, SettledAnswer
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.messages.envelope import Origin

EXPECTED = ("a", "b", "c")
PROCESSES = (("b",), ("c", "a"))
DEADLINE_MS = 1_000
PLACE = ("member-answers", 0)

Message = MemberAnswer | MemberDeletion


def says(
    members: Sequence[str] = ("b",),
    *,
    revision: int = 0,
    question: str | None = "q",
    position: int = 7,
    replays: int = 0,
    size: int = 10,
    stage: str = "classify",
    document: str = "d",
    lineage: str | None = None,
) -> MemberAnswer:
    """``lineage`` None: of the question."""
    origin = Origin(position, replays=replays)
    asked = (question or "") if lineage is None else lineage
    return MemberAnswer(stage, document, revision, tuple(members), EXPECTED, question, origin, size, asked)


def deleted(position: int = 7) -> MemberDeletion:
    return MemberDeletion("classify", "d", Origin(position))


class Driver:
    """A join whose tickets are numbers: what is free, and what was told."""

    def __init__(self, **options: Any) -> None:
        limits = {"deadline_ms": DEADLINE_MS, "remember_ms": 10_000, "max_documents": 100, "max_bytes": 10_000}
        self.join: MemberJoin[int] = MemberJoin(**{**limits, **options})
        self.count = 0
        self.free: list[int] = []

    def take(self, *messages: Message, now: int = 0) -> Driver:
        for message in messages:
            if isinstance(message, MemberDeletion):
                self.free += self.join.delete(message, self.count)
            else:
                self.free += self.join.answer(message, self.count, now=now)
            self.count += 1
        return self

    def told(self, *, now: int = 0) -> list[SettledAnswer[int]]:
        group = self.join.take(1_000)
        for settled in group:
            self.free += self.join.delivered(settled, now=now)
        return group


def of_whom(settled: SettledAnswer[Any]) -> list[str]:
    return [name for members, _ in settled.parts for name in members]


# --- the rules ---


def test_an_answer_is_told_when_all_members_have_answered() -> None:
    driver = Driver().take(says(("c", "a")))
    assert driver.told() == []
    assert driver.join.open_by_stage() == {"classify": 1}
    (settled,) = driver.take(says(("b",))).told()
    assert settled.parts == ((("c", "a"), 0), (("b",), 1)), "in the ensemble's order"
    assert settled.missing == ()
    assert sorted(driver.free) == [0, 1]
    assert driver.join.open_by_stage() == {}


def test_tickets_are_kept_until_it_is_delivered() -> None:
    driver = Driver().take(says(("c", "a")), says(("b",)))
    driver.join.take(1)
    assert driver.free == []


def test_after_the_deadline_it_is_told_without_those_who_have_not() -> None:
    driver = Driver().take(says(("b",)), now=5)
    driver.join.tick(now=5 + DEADLINE_MS - 1)
    assert driver.told() == []
    driver.join.tick(now=5 + DEADLINE_MS)
    (settled,) = driver.told()
    assert settled.missing == ("a", "c")
    assert driver.free == [0]


def test_what_comes_late_or_twice_leads_to_nothing() -> None:
    driver = Driver().take(says(("b",)), says(("b",)))
    assert driver.free == [1]
    driver.join.tick(now=DEADLINE_MS)
    driver.take(says(("c", "a")))
    assert driver.free == [1, 2], "it is settled, if not yet told"
    (settled,) = driver.told()
    assert of_whom(settled) == ["b"]
    assert driver.take(says(("c", "a"))).told() == []


def test_it_is_forgotten_in_the_end() -> None:
    driver = Driver(remember_ms=50).take(says(("c", "a")), says(("b",)))
    driver.told(now=100)
    driver.join.tick(now=149)
    assert driver.join.remembered_documents == 1
    driver.join.tick(now=150)
    assert driver.join.remembered_documents == 0
    assert driver.take(says(("b",))).join.open_documents == 1


def test_a_member_that_failed_has_answered() -> None:
    (settled,) = Driver().take(says(("b",), question=None), says(("c", "a"))).told()
    assert of_whom(settled) == ["c", "a"]
    assert settled.failures == (0,)
    assert settled.missing == ("b",)


def test_when_all_members_failed_so_has_the_stage() -> None:
    (settled,) = Driver().take(says(("b",), question=None), says(("c", "a"), question=None)).told()
    assert settled.parts == ()
    assert settled.failures == (1, 0), "the first member's error is the first one"
    assert settled.missing == EXPECTED


def test_a_member_that_failed_and_then_did_not_has_an_answer() -> None:
    (settled,) = Driver().take(says(("b",), question=None), says(("b",)), says(("c", "a"))).told()
    assert settled.missing == ()
    assert len(settled.tickets) == 3


def test_when_all_have_answered_by_different_versions_of_a_pool_most_of_them_decide_at_once() -> None:
    """Nobody will answer again, so nobody waits; and what was said by one version is not mixed with the other's."""
    driver = Driver().take(
        says(("a",), question="q before", lineage="q"), says(("b",), question="q after", lineage="q")
    )
    assert driver.told() == []
    (settled,) = driver.take(says(("c",), question="q after", lineage="q")).told()
    assert settled.parts == ((("b",), 1), (("c",), 2))
    assert settled.missing == ("a",)
    assert sorted(driver.free) == [0, 1, 2], "all answers are acknowledged"


@pytest.mark.parametrize("first", [("b",), ("c", "a")])
def test_of_as_many_members_those_decide_whose_version_came_last(first: tuple[str, ...]) -> None:
    rest = tuple(name for name in EXPECTED if name not in first)
    driver = Driver().take(
        says(first[:1], question="q before", lineage="q"), says(rest[:1], question="q after", lineage="q")
    )
    driver.join.tick(now=DEADLINE_MS)
    (settled,) = driver.told()
    assert of_whom(settled) == list(rest[:1])


def test_a_member_that_failed_is_not_waited_for_where_the_others_saw_different_versions() -> None:
    driver = Driver().take(
        says(("a",), question=None),
        says(("b",), question="q before", lineage="q"),
        says(("c",), question="q", lineage="q"),
    )
    (settled,) = driver.told()
    assert (of_whom(settled), settled.failures) == (["c"], (0,))


def test_answers_about_other_candidates_are_waited_for_as_ever() -> None:
    driver = Driver().take(says(("a",), question="q"), says(("b",), question="r"), says(("c",), question="q"))
    assert driver.told() == []
    assert of_whom(driver.take(says(("b",), question="q")).told()[0]) == ["a", "b", "c"]


def test_answers_to_different_questions_do_not_go_together() -> None:
    driver = Driver().take(says(("b",), question="old"), says(("c", "a"), question="new"))
    assert driver.told() == []
    driver.join.tick(now=DEADLINE_MS)
    (settled,) = driver.told()
    assert of_whom(settled) == ["c", "a"], "those who are more"
    assert sorted(driver.free) == [0, 1]
    (settled,) = (
        Driver()
        .take(says(("b",), question="old"), says(("c", "a"), question="new"), says(("b",), question="new"))
        .told()
    )
    assert settled.missing == ()


@pytest.mark.parametrize("later", [{"revision": 1}, {"replays": 1}])
def test_a_later_attempt_begins_again_and_an_earlier_one_is_dropped(later: dict[str, int]) -> None:
    driver = Driver().take(says(("b",)), says(("c", "a"), **later))
    assert driver.free == [0]
    driver.take(says(("c", "a")))
    assert driver.free == [0, 2]
    (settled,) = driver.take(says(("b",), **later)).told()
    assert settled.tickets == (1, 3)
    assert driver.take(says(("b",)), says(("c", "a"))).told() == []


def test_stages_and_documents_are_apart() -> None:
    driver = Driver().take(says(("b",), stage="extract"), says(("c", "a")), says(("b",), document="e"))
    assert driver.told() == []
    assert driver.join.open_by_stage() == {"extract": 1, "classify": 2}


def test_a_deletion_is_passed_on_once_and_ends_what_is_open() -> None:
    driver = Driver().take(says(("b",), position=7), deleted(8), deleted(8))
    assert driver.free == [0, 2]
    (settled,) = driver.told()
    assert settled.deleted
    assert settled.tickets == (1,)
    driver.take(says(("c", "a"), position=7))
    assert driver.join.open_documents == 0, "from before the deletion"


def test_after_a_deletion_the_same_revision_is_a_new_document() -> None:
    driver = Driver().take(says(("c", "a"), position=7), says(("b",), position=7), deleted(8))
    assert len(driver.told()) == 2
    # One process is ahead of the other.
    driver.take(says(("c", "a"), position=9), deleted(8), says(("b",), position=9))
    (settled,) = driver.told()
    assert settled.missing == ()


def test_a_deletion_that_comes_after_its_successor_leaves_it() -> None:
    driver = Driver().take(says(("b",), position=9), deleted(8), says(("c", "a"), position=9))
    first, second = driver.told()
    assert first.deleted
    assert second.missing == ()
    assert driver.take(deleted(8), says(("b",), position=9)).told() == []


def test_a_deletion_that_does_not_say_where_it_lies_deletes_what_there_is() -> None:
    driver = Driver().take(says(("b",)), deleted(-1), deleted(-1))
    assert [settled.deleted for settled in driver.told()] == [True]
    assert sorted(driver.free) == [0, 1, 2]


@pytest.mark.parametrize("options", [{"max_documents": 2}, {"max_bytes": 25}])
def test_when_there_is_no_room_the_oldest_goes_on_without_the_others(options: dict[str, int]) -> None:
    driver = Driver(**options).take(*(says(document=name) for name in "123"))
    (settled,) = driver.told()
    assert (settled.document, settled.missing) == ("1", ("a", "c"))
    assert driver.join.settled_early == 1
    assert driver.join.open_bytes == 20


def test_a_document_without_any_room_goes_on_at_once() -> None:
    (settled,) = Driver(max_bytes=5).take(says()).told()
    assert settled.missing == ("a", "c")


def test_after_a_rebalance_only_what_was_delivered_is_remembered() -> None:
    driver = Driver().take(says(("b",)), says(("c", "a")))
    driver.told()
    driver.take(says(("b",), document="open"), says(("b",), document="told"), says(("c", "a"), document="told"))
    driver.join.reset()
    assert (driver.join.open_documents, driver.join.settled_documents, driver.join.open_bytes) == (0, 0, 0)
    assert driver.take(says(("b",))).told() == []
    assert driver.take(says(("b",), document="told"), says(("c", "a"), document="told")).told() != []


# --- in any order, with anything lost, repeated or restarted ---


@dataclass(frozen=True)
class Raw:
    """A message of the documents topic; what each process makes of it: ``once``, ``twice``, ``never``, ``fails``, or
    ``wavers`` (it is asked twice, and not the same)."""

    document: str
    position: int
    life: int
    revision: int
    fates: tuple[str, ...]

    @property
    def is_deletion(self) -> bool:
        return self.revision < 0

    def answers(self, process: int) -> list[Message]:
        if self.is_deletion:
            return [MemberDeletion("classify", self.document, Origin(self.position))]
        fate = self.fates[process]
        one = says(
            PROCESSES[process],
            revision=self.revision,
            position=self.position,
            document=self.document,
            question=f"{self.document}{self.life}{self.revision}",
        )
        made = {
            "once": [one],
            "twice": [one, one],
            "never": [],
            "fails": [replace(one, question=None)],
            "wavers": [replace(one, question="other"), one],
        }
        return list(made[fate])


@dataclass(frozen=True)
class Told:
    """What was delivered."""

    settled: SettledAnswer[tuple[Message, Ticket]]

    @property
    def messages(self) -> list[Message]:
        return [message for message, _ in self.settled.tickets]


class World:
    """One partition of member-answers: what is durable, and the process that owns it now."""

    def __init__(self, log: Sequence[Message]) -> None:
        self.log = log
        self.committed = 0
        self.told: list[Told] = []
        self.now = 0
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.positions = OffsetTracker(lambda: 0.0)
        self.positions.open(self.starts)
        self.next = self.committed
        self.join: MemberJoin[tuple[Message, Ticket]] = MemberJoin(
            deadline_ms=DEADLINE_MS, remember_ms=10**9, max_documents=10**9, max_bytes=10**9
        )

    def read(self) -> bool:
        if self.next == len(self.log):
            return False
        message = self.log[self.next]
        self.positions.read(PLACE, self.next, self.starts)
        ticket = self.positions.take(PLACE, self.next, self.starts)
        assert ticket is not None
        self.next += 1
        held = (message, ticket)
        if isinstance(message, MemberDeletion):
            free = self.join.delete(message, held)
        else:
            free = self.join.answer(message, held, now=self.now)
        for _, one in free:
            self.positions.finish(one)
        return True

    def write(self, *, dies: bool = False) -> None:
        """Deliver what is settled; a process that ``dies`` has delivered it, and that is all."""
        for settled in self.join.take(2):
            self.told.append(Told(settled))
            if dies:
                continue
            for _, ticket in self.join.delivered(settled, now=self.now):
                self.positions.finish(ticket)
        if dies:
            self.start()

    def commit(self) -> None:
        self.committed = self.positions.committable().get(PLACE, self.committed)

    def tick(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.join.tick(now=self.now)

    def finish(self) -> None:
        """Until nothing is left to do."""
        while self.read() or self.join.settled_documents:
            self.write()
        self.tick(DEADLINE_MS)
        while self.join.settled_documents:
            self.write()
        self.commit()


FATES = st.sampled_from(("once", "once", "once", "twice", "never", "fails", "wavers"))


@st.composite
def raw_topics(draw: st.DrawFn) -> list[Raw]:
    lives = {"d": 0, "e": 0}
    revisions = {"d": -1, "e": -1}
    raws = []
    for position in range(draw(st.integers(1, 6))):
        document = draw(st.sampled_from(("d", "e")))
        if draw(st.integers(0, 4)) == 0:
            raws.append(Raw(document, position, lives[document], -1, ()))
            lives[document] += 1
            revisions[document] = -1
        else:
            revisions[document] += 1
            fates = tuple(draw(FATES) for _ in PROCESSES)
            raws.append(Raw(document, position, lives[document], revisions[document], fates))
    return raws


@st.composite
def logs(draw: st.DrawFn, raws: Sequence[Raw]) -> list[Message]:
    """The answers of the processes, each in the order of the documents, and mixed in any way."""
    queues = [[message for raw in raws for message in raw.answers(process)] for process in range(len(PROCESSES))]
    log: list[Message] = []
    while any(queues):
        log.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    return log


STEPS = st.lists(
    st.sampled_from(("read", "read", "read", "write", "commit", "tick", "late", "die", "die while writing")),
    max_size=40,
)


def run(world: World, steps: Sequence[str]) -> World:
    for step in steps:
        match step:
            case "read":
                world.read()
            case "write":
                world.write()
            case "commit":
                world.commit()
            case "tick":
                world.tick(DEADLINE_MS // 5)
            case "late":
                world.tick(DEADLINE_MS)
            case "die":
                world.start()
            case "die while writing":
                world.write(dies=True)
    world.finish()
    return world


@settings(max_examples=examples(400), deadline=None)
@given(st.data())
def test_what_is_told_is_made_of_all_answers_or_says_who_is_missing(data: st.DataObject) -> None:
    raws = data.draw(raw_topics())
    log = data.draw(logs(raws))
    world = run(World(log), data.draw(STEPS))
    assert world.committed == len(log), "nothing waits for ever"
    by_position = {raw.position: raw for raw in raws}
    for told in world.told:
        settled = told.settled
        if settled.deleted:
            continue
        parts = [message for _, (message, _) in settled.parts]
        of = {message.origin.position for message in told.messages}
        assert len(of) == 1, "of one document, in one of its lives"
        raw = by_position[of.pop()]
        assert len({message.question for message in parts if isinstance(message, MemberAnswer)}) <= 1
        answered = [name for members, _ in settled.parts for name in members]
        assert len(answered) == len(set(answered))
        assert settled.missing == tuple(name for name in EXPECTED if name not in answered)
        for (members, _), message in zip(settled.parts, parts, strict=True):
            assert isinstance(message, MemberAnswer)
            assert (message.members, message.document, message.revision) == (members, raw.document, raw.revision)
        assert parts or settled.failures


@settings(max_examples=examples(400), deadline=None)
@given(st.data())
def test_nothing_is_lost(data: st.DataObject) -> None:
    """Of each document the last thing that happened to it is told: an answer about its last revision, or that it is
    deleted. What was told of an earlier one may have been overtaken."""
    raws = data.draw(raw_topics())
    log = data.draw(logs(raws))
    world = run(World(log), data.draw(STEPS))
    told = {(one.settled.deleted, message.origin.position) for one in world.told for message in one.messages}
    for document in {raw.document for raw in raws}:
        own = [raw for raw in raws if raw.document == document and (raw.is_deletion or set(raw.fates) != {"never"})]
        if own:
            assert (own[-1].is_deletion, own[-1].position) in told


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_without_loss_or_delay_every_order_gives_one_and_the_same(data: st.DataObject) -> None:
    asked = {raw.document: raw for raw in data.draw(raw_topics()) if not raw.is_deletion}
    raws = [replace(raw, fates=("twice", "once")) for raw in asked.values()]
    steps = st.lists(st.sampled_from(("read", "write", "commit")), max_size=30)
    world = run(World(data.draw(logs(raws))), data.draw(steps))
    told = sorted((one.settled.document, of_whom(one.settled)) for one in world.told)
    assert told == sorted((raw.document, ["c", "a", "b"]) for raw in raws)
