"""The join's rules, one by one. What happens around it, and in any order, is in test_partition_join."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import MessageError
from el4ner.participation import STAGES
from el4ner.serialize import dumps
from tests.support.answers import deletions, journey
from workers.config import load_stream_settings
from workers.join.rules import (
    Closed,
    Deletion,
    DocumentState,
    JoinInput,
    JoinRules,
    Open,
    Outcome,
    ReceivedAnswer,
    event_id_of,
)
from workers.join.stage_messages import join_rules, read_input
from workers.messages import json_schemas
from workers.messages.envelope import UNKNOWN, Origin, Record

JOIN = join_rules(load_stream_settings(environ={"EL4NER_WORKER__DEADLINE_SECONDS": "1"}))


def part_of(record: Record) -> JoinInput:
    part = read_input(record)
    assert part is not None
    return part


def parts(fails: str | None = None, **options: Any) -> dict[str, JoinInput]:
    """What the stages say of a document, by stage."""
    return {stage: part_of(record) for stage, record in journey(fails=fails, **options).items()}


def deletion(position: int) -> Deletion:
    part = part_of(deletions(position=position)["extract"])
    assert isinstance(part, Deletion)
    return part


class Driver:
    """One document's state, and what came out."""

    def __init__(self, join: JoinRules = JOIN) -> None:
        self.join = join
        self.state: DocumentState | None = None
        self.outcomes: list[Outcome] = []

    def apply(self, *some: JoinInput, now: int = 0) -> Driver:
        for part in some:
            self.state, outcome = self.join.apply(self.state, part, now=now)
            if outcome is not None:
                self.outcomes.append(outcome)
        return self

    def expire(self) -> Driver:
        assert isinstance(self.state, Open)
        self.outcomes.append(self.join.expire("d", self.state))
        return self

    @property
    def tagged(self) -> Mapping[str, Any]:
        """The one document that came out, which is valid."""
        (outcome,) = self.outcomes
        assert outcome.tagged is not None
        json_schemas.validate("tagged-documents", orjson.loads(dumps(outcome.tagged)))
        assert outcome.closed.status == outcome.tagged["status"]
        return outcome.tagged


def said(tagged: Mapping[str, Any]) -> tuple[str, str | None, str | None, int, list[str]]:
    """Status, the error's stage and code, how many entities, what is missing."""
    error = tagged["error"] or {"stage": None, "code": None}
    return tagged["status"], error["stage"], error["code"], len(tagged["entities"]), list(tagged["missing"])


# --- documents end ---

ENDS = {
    None: ("complete", None, None, 1, []),
    "extract": ("failed", "extract", "engine", 0, []),
    "classify": ("failed", "classify", "engine", 0, []),
    "validate": ("partial", "validate", "engine", 1, []),
}


@pytest.mark.parametrize("fails", ENDS)
def test_a_document_ends_as_its_stages_did(fails: str | None) -> None:
    tagged = Driver().apply(*parts(fails).values()).tagged
    assert said(tagged) == ENDS[fails]
    assert tagged["text"] == "Angela flew to Berlin"
    assert tagged["metadata"] == {"n": 1}
    answered = STAGES if fails is None else STAGES[: STAGES.index(fails)]
    assert list(tagged["manifests"]) == list(answered)


@given(data=st.data(), fails=st.sampled_from([None, *STAGES]))
def test_order_and_repetition_do_not_matter(data: st.DataObject, fails: str | None) -> None:
    told = list(parts(fails).values())
    repeated = data.draw(st.lists(st.sampled_from(told), max_size=6))
    mixed = data.draw(st.permutations([*told, *repeated]))
    assert Driver().apply(*mixed).tagged == Driver().apply(*told).tagged


@pytest.mark.parametrize("fails", [None, "extract", "classify"])
def test_the_last_answer_alone_completes_a_document(fails: str | None) -> None:
    told = parts(fails)
    *_, last = told.values()
    assert Driver().apply(last).tagged == Driver().apply(*told.values()).tagged


def test_the_entities_are_those_of_the_last_stage() -> None:
    (entity,) = Driver().apply(*parts().values()).tagged["entities"]
    assert (entity["text"], entity["type"], entity["verdict"]["holds"]) == ("Berlin", "place", True)
    (without,) = Driver().apply(*parts("validate").values()).tagged["entities"]
    assert without["verdict"] is None


def test_validations_failure_waits_for_the_types() -> None:
    told = parts("validate")
    driver = Driver().apply(told["validate"], told["extract"])
    assert driver.outcomes == []
    driver.apply(told["classify"])
    assert said(driver.tagged) == ENDS["validate"]


def test_validations_failure_without_the_types_is_a_failed_document_at_the_deadline() -> None:
    tagged = Driver().apply(parts("validate")["validate"]).expire().tagged
    assert said(tagged) == ("failed", "validate", "engine", 0, [])


@pytest.mark.parametrize("stage", STAGES)
def test_a_result_that_came_before_the_failure_of_its_stage_counts(stage: str) -> None:
    fine = parts()
    driver = Driver().apply(fine[stage], parts(stage)[stage])
    driver.apply(*(fine[name] for name in STAGES if name != stage))
    assert said(driver.tagged) == ENDS[None]


def test_a_verdict_that_comes_after_validations_failure_counts() -> None:
    driver = Driver().apply(parts("validate")["validate"], parts()["validate"])
    assert said(driver.tagged) == ENDS[None]


# --- the deadline ---


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (["extract"], ("failed", "classify", "deadline", 0, ["classify", "validate"])),
        (["classify"], ("partial", "validate", "deadline", 1, ["validate"])),
        (["extract", "classify"], ("partial", "validate", "deadline", 1, ["validate"])),
    ],
)
def test_the_deadline_emits_what_there_is(answered: list[str], expected: Any) -> None:
    told = parts()
    driver = Driver().apply(*(told[stage] for stage in answered), now=40)
    assert isinstance(driver.state, Open)
    assert JOIN.due(driver.state) == 1_040
    assert said(driver.expire().tagged) == expected


def test_the_deadline_counts_from_the_first_answer() -> None:
    told = parts()
    driver = Driver().apply(told["extract"], now=5).apply(told["classify"], now=900)
    assert isinstance(driver.state, Open)
    assert JOIN.due(driver.state) == 1_005


def test_late_answers_change_nothing() -> None:
    told = parts()
    driver = Driver().apply(told["classify"]).expire()
    driver.state = driver.outcomes[0].closed
    driver.apply(*told.values())
    assert len(driver.outcomes) == 1


# --- what cannot be read ---


def broken(part: JoinInput) -> ReceivedAnswer:
    assert isinstance(part, ReceivedAnswer)
    return replace(part, value=b'{"stage": "' + part.stage.encode() + b'", "text": "Z\xfcrich"}')


def test_an_unreadable_verdict_is_refused_and_leaves_what_was_known() -> None:
    told = parts()
    driver = Driver().apply(told["classify"])
    before = driver.state
    with pytest.raises(MessageError):
        driver.apply(broken(told["validate"]))
    assert driver.state == before
    # Whoever drives the join then says that validation failed.
    assert said(driver.apply(parts("validate")["validate"]).tagged) == ENDS["validate"]


def test_unreadable_types_are_not_missed_where_there_is_a_verdict() -> None:
    told = parts()
    assert Driver().apply(broken(told["classify"]), told["validate"]).tagged == Driver().apply(*told.values()).tagged


def test_unreadable_answers_leave_a_failed_document() -> None:
    told = parts()
    for stage, missing in (("extract", list(STAGES)), ("classify", list(STAGES))):
        tagged = Driver().apply(broken(told[stage])).expire().tagged
        assert said(tagged) == ("failed", "extract", "deadline", 0, missing)
        assert tagged["text"] is None


def test_an_unreadable_failure_is_a_failure() -> None:
    failure = broken(parts("classify")["classify"])
    tagged = Driver().apply(parts()["extract"], failure).tagged
    assert said(tagged)[:2] == ("failed", "classify")
    assert tagged["text"] == "Angela flew to Berlin"


def legacy(part: JoinInput) -> ReceivedAnswer:
    """As el4ner 0.1 wrote it: no word of the stages before, none of where the document lies."""
    assert isinstance(part, ReceivedAnswer)
    body = {name: value for name, value in orjson.loads(part.value).items() if name not in ("manifests", "metadata")}
    return replace(part, value=dumps(body), origin=UNKNOWN)


def test_answers_of_an_older_version_complete_a_document() -> None:
    tagged = Driver().apply(*map(legacy, parts().values())).tagged
    assert said(tagged) == ENDS[None]
    assert list(tagged["manifests"]) == ["validate"]
    late = Driver().apply(legacy(parts()["classify"])).expire().tagged
    assert said(late)[:3] == ("partial", "extract", "deadline")


def test_answers_of_both_versions_are_joined() -> None:
    told = parts("validate")
    assert said(Driver().apply(legacy(told["validate"]), told["classify"]).tagged) == ENDS["validate"]
    assert said(Driver().apply(told["validate"], legacy(told["classify"])).tagged)[:4] == ENDS["validate"][:4]


# --- revisions ---


def test_a_higher_revision_starts_again_and_a_lower_one_is_ignored() -> None:
    old, new = parts(revision=1), parts(revision=2, origin=Origin(8), text="Angela flew to Oslo")
    driver = Driver().apply(old["extract"], old["classify"], new["extract"], old["validate"])
    assert driver.outcomes == []
    driver.apply(new["validate"], old["validate"])
    assert (driver.tagged["revision"], driver.tagged["text"]) == (2, "Angela flew to Oslo")


def test_a_higher_revision_follows_one_that_is_out() -> None:
    driver = Driver().apply(*parts(revision=1).values(), *parts(revision=2, origin=Origin(8)).values())
    assert [outcome.closed.revision for outcome in driver.outcomes] == [1, 2]


@given(st.permutations([part for revision in range(3) for part in parts(revision=revision).values()]))
def test_the_highest_revision_comes_out_whatever_is_mixed_into_it(mixed: Iterable[JoinInput]) -> None:
    revisions = [outcome.closed.revision for outcome in Driver().apply(*mixed).outcomes]
    # One of a lower revision may never come out; it never comes out late.
    assert revisions == sorted(set(revisions))
    assert revisions[-1] == 2


# --- deletions ---


@pytest.mark.parametrize("first", [[], ["extract"], list(STAGES)])
def test_a_deletion_comes_out_once_and_nothing_older_after_it(first: list[str]) -> None:
    told = parts(origin=Origin(7))
    driver = Driver().apply(*(told[stage] for stage in first))
    driver.outcomes.clear()
    driver.apply(deletion(8), *told.values(), deletion(8), *told.values(), deletion(8))
    (outcome,) = driver.outcomes
    assert outcome.tagged is None
    assert outcome.closed == Closed(-1, 8, 0, "deleted", 8)


def test_what_is_written_after_a_deletion_is_a_new_document_of_any_revision() -> None:
    driver = Driver().apply(*parts(revision=5, origin=Origin(7)).values(), deletion(8))
    driver.apply(*parts(revision=0, origin=Origin(9)).values())
    assert [outcome.closed.status for outcome in driver.outcomes] == ["complete", "deleted", "complete"]


def test_answers_about_the_deleted_document_are_not_those_of_the_new_one() -> None:
    """The topics are read at different speeds: the new document is open when the old one's verdict comes."""
    old = parts(text="Angela flew to Rome", revision=1, origin=Origin(7))
    new = parts(text="Angela flew to Oslo", origin=Origin(9))
    driver = Driver().apply(old["extract"], deletion(8), new["extract"])
    driver.outcomes.clear()
    driver.apply(old["validate"], deletion(8), old["classify"], deletion(8), new["validate"])
    assert driver.tagged["text"] == "Angela flew to Oslo"
    driver.apply(old["validate"], deletion(8))
    assert len(driver.outcomes) == 1


def test_a_deletion_that_is_older_than_the_document_is_none() -> None:
    told = parts(origin=Origin(9))
    for some in (list(told.values())[:1], list(told.values())):
        driver = Driver().apply(*some)
        before = driver.state
        driver.apply(deletion(8))
        assert driver.state is before


def test_a_deletion_by_somebody_who_does_not_know_the_place_deletes_what_there_is_once() -> None:
    driver = Driver().apply(*parts().values())
    driver.outcomes.clear()
    driver.apply(Deletion("d"), Deletion("d"), *parts().values())
    (outcome,) = driver.outcomes
    assert outcome.tagged is None


def test_an_answer_without_a_place_may_be_of_a_new_document() -> None:
    driver = Driver().apply(deletion(8), legacy(parts()["extract"]), deletion(8), legacy(parts()["validate"]))
    assert [outcome.closed.status for outcome in driver.outcomes] == ["deleted", "complete"]


# --- replays ---


def test_a_replay_reopens_what_did_not_come_out_complete() -> None:
    driver = Driver().apply(*parts("classify").values())
    driver.apply(*parts(origin=Origin(7, replays=1)).values(), *parts(origin=Origin(7, replays=2)).values())
    assert [outcome.closed.status for outcome in driver.outcomes] == ["failed", "complete"]


def test_the_failure_that_was_replayed_is_not_the_replays() -> None:
    failed, again = parts("classify"), parts(origin=Origin(12, replays=1))
    driver = Driver().apply(*failed.values(), again["extract"], failed["classify"], again["validate"])
    assert [outcome.closed.status for outcome in driver.outcomes] == ["failed", "complete"]


def test_a_replay_that_fails_again_says_so() -> None:
    driver = Driver().apply(*parts("classify").values())
    driver.apply(*parts("classify", origin=Origin(7, replays=1)).values())
    assert [(outcome.closed.status, outcome.closed.replays) for outcome in driver.outcomes] == [
        ("failed", 0),
        ("failed", 1),
    ]


# --- ids ---


def test_equal_outcomes_have_equal_ids_and_different_ones_have_not() -> None:
    complete, partial = (Driver().apply(*parts(fails).values()).tagged for fails in (None, "validate"))
    assert event_id_of(complete) == event_id_of(Driver().apply(*parts().values()).tagged)
    assert event_id_of(complete) != event_id_of(partial)
    assert event_id_of(complete) != event_id_of(Driver().apply(*parts(revision=1).values()).tagged)
