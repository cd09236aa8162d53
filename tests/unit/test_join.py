"""The join: in whatever order parts come, and however often, the same document comes out, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.assemble import assemble
from el4ner.serialize import dumps, entities_from_json, types_from_json
from el4ner.types import TaggedDocument
from workers import schemas
from workers.join import AnswerPart, Deletion, DocumentPart, Join, Part, State, event_id_of, is_due

TEXT = "Angela flew to Berlin."
MANIFEST = {
    "mode": "scored",
    "members": {"a": "1"},
    "prompt_version": "v1",
    "pool": "news",
    "pool_fingerprint": "f",
    "retriever": "r",
}
USAGE = {"prompt_tokens": 1, "cached_tokens": 0, "new_tokens": 0}
SPAN = {"start": 15, "end": 21, "text": "Berlin", "proposed_by": ["a"]}
TYPED = {**SPAN, "type": "location", "confidence": 0.5, "votes": {"a": "location"}}


def assembled(stage: str, body: Mapping[str, Any]) -> TaggedDocument:
    result = entities_from_json(body) if stage == "validate" else types_from_json(body)
    return assemble(result)


JOIN = Join(assemble=assembled, deadline_ms=1_000, remember_ms=5_000)


def document(revision: int = 0, text: str | None = TEXT) -> DocumentPart:
    return DocumentPart("d", revision, text, None, {"n": 1})


def answer(stage: str, revision: int = 0) -> AnswerPart:
    sentences: dict[str, Any] = {
        "extract": {"demonstrations": [0], "candidates": [SPAN], "dropped": 0},
        "classify": {"demonstrations": [0], "typed": [TYPED]},
        "validate": {"validated": [{**TYPED, "verdict": {"holds": True, "probability": 0.9, "verifier": "a"}}]},
    }
    body = {
        "stage": stage,
        "status": "ok",
        "document": {"id": "d", "revision": revision, "text": TEXT, "pool": None},
        "producer": MANIFEST,
        "usage": USAGE,
        "sentences": [{"start": 0, "end": len(TEXT), **sentences[stage]}],
    }
    return AnswerPart("d", revision, stage, body)


def failure(stage: str, revision: int = 0, text: str | None = TEXT) -> AnswerPart:
    body = {
        "stage": stage,
        "status": "failed",
        "document": {"id": "d", "revision": revision, "text": text, "pool": None},
        "error": {"code": "engine", "message": "it broke"},
    }
    return AnswerPart("d", revision, stage, body)


class Driver:
    """What the aggregator does with a join, without Kafka: every state goes through JSON."""

    def __init__(self) -> None:
        self.raw: bytes | None = None
        self.emitted: list[dict[str, Any]] = []

    @property
    def state(self) -> State | None:
        return None if self.raw is None else orjson.loads(self.raw)

    def apply(self, part: Part, now: int = 0) -> None:
        before = self.state
        after = JOIN.apply(before, part, partition=3, now=now, trace="t")
        if after is not before:
            self._take(after, now)

    def tick(self, now: int) -> None:
        before = self.state
        if before is not None:
            after = JOIN.expire("d", before, now=now)
            if after is not before:
                self._take(after, now)

    def _take(self, after: State | None, now: int) -> None:
        self.raw = None if after is None else dumps(after)
        if after is not None:
            schemas.validate("joins", self.state)
            if after["phase"] == "emitting":
                self.emitted.append(after["tagged"])
                self.raw = dumps(JOIN.delivered(after, now=now))


PATHS = {
    "complete": [document(), answer("extract"), answer("classify"), answer("validate")],
    "extract failed": [document(), failure("extract")],
    "unreadable": [document(text=None), failure("extract", text=None)],
    "classify failed": [document(), answer("extract"), failure("classify")],
    "validate failed": [document(), answer("extract"), answer("classify"), failure("validate")],
}
EXPECTED = {
    "complete": ("complete", 1, None),
    "extract failed": ("failed", 0, "extract"),
    "unreadable": ("failed", 0, "extract"),
    "classify failed": ("failed", 0, "classify"),
    "validate failed": ("partial", 1, "validate"),
}


def in_order(path: str) -> dict[str, Any]:
    driver = Driver()
    for part in PATHS[path]:
        driver.apply(part)
    (tagged,) = driver.emitted
    return tagged


@pytest.mark.parametrize("path", PATHS)
def test_a_document_ends_with_the_status_of_its_path(path: str) -> None:
    tagged = in_order(path)
    schemas.validate("tagged-documents", tagged)
    status, entities, failed = EXPECTED[path]
    assert tagged["status"] == status
    assert len(tagged["entities"]) == entities
    assert (tagged["error"] or {}).get("stage") == failed
    assert tagged["missing"] == []
    assert tagged["metadata"] == {"n": 1}
    assert tagged["text"] == (None if path == "unreadable" else TEXT)


@given(data=st.data(), path=st.sampled_from(sorted(PATHS)))
def test_order_and_repetition_do_not_matter(data: st.DataObject, path: str) -> None:
    parts = PATHS[path]
    repeated = data.draw(st.lists(st.sampled_from(parts), max_size=8))
    driver = Driver()
    for part in data.draw(st.permutations([*parts, *repeated])):
        driver.apply(part)
    assert driver.emitted == [in_order(path)]


@given(data=st.data(), path=st.sampled_from(sorted(PATHS)))
def test_it_is_not_complete_before_every_part_is_there(data: st.DataObject, path: str) -> None:
    parts = PATHS[path]
    missing = data.draw(st.sampled_from(parts))
    driver = Driver()
    for part in data.draw(st.permutations([part for part in parts if part is not missing] * 2)):
        driver.apply(part)
    assert driver.emitted == []


@given(data=st.data())
def test_the_highest_revision_comes_out_whatever_is_mixed_into_it(data: st.DataObject) -> None:
    parts = [
        part
        for revision in range(3)
        for part in (document(revision), *(answer(stage, revision) for stage in ("extract", "classify", "validate")))
    ]
    driver = Driver()
    for part in data.draw(st.permutations(parts)):
        driver.apply(part)
    revisions = [tagged["revision"] for tagged in driver.emitted]
    # A part of a higher revision starts the join again, so a lower one may never come out; it never comes out late.
    assert revisions == sorted(set(revisions))
    assert revisions[-1] == 2


@given(
    data=st.data(),
    path=st.sampled_from(sorted(PATHS)),
    count=st.integers(min_value=1, max_value=3),
)
def test_the_deadline_emits_what_is_there_once_and_late_parts_change_nothing(
    data: st.DataObject, path: str, count: int
) -> None:
    parts = data.draw(st.permutations(PATHS[path]))
    early = parts[: min(count, len(parts) - 1)]
    driver = Driver()
    for part in early:
        driver.apply(part, now=10)
    driver.tick(1_009)
    assert driver.emitted == []
    driver.tick(1_010)
    (tagged,) = driver.emitted
    schemas.validate("tagged-documents", tagged)
    typed = any(
        isinstance(part, AnswerPart) and part.stage in ("classify", "validate") and part.body["status"] == "ok"
        for part in early
    )
    assert tagged["status"] == ("partial" if typed else "failed")
    assert tagged["missing"] or tagged["error"]
    for part in parts:
        driver.apply(part, now=1_020)
    driver.tick(1_030)
    assert len(driver.emitted) == 1


def test_a_missing_validation_leaves_the_typed_entities_without_verdicts() -> None:
    driver = Driver()
    for part in (document(), answer("extract"), answer("classify")):
        driver.apply(part, now=0)
    driver.tick(1_000)
    (tagged,) = driver.emitted
    assert tagged["status"] == "partial"
    assert tagged["missing"] == ["validate"]
    assert tagged["error"]["code"] == "deadline"
    assert [entity["verdict"] for entity in tagged["entities"]] == [None]
    assert sorted(tagged["manifests"]) == ["classify", "extract"]


def test_an_answer_is_better_than_the_failure_that_came_before_it() -> None:
    driver = Driver()
    for part in (failure("extract"), answer("extract"), answer("classify"), answer("validate"), document()):
        driver.apply(part)
    assert driver.emitted == [in_order("complete")]


def test_a_finished_document_is_remembered_and_then_forgotten() -> None:
    driver = Driver()
    for part in PATHS["complete"]:
        driver.apply(part, now=0)
    state = driver.state
    assert state is not None
    assert state["event_id"] == event_id_of(driver.emitted[0])
    assert len(dumps(state)) < 200
    driver.tick(4_999)
    assert driver.state == state
    driver.tick(5_000)
    assert driver.state is None


def test_a_deletion_drops_the_open_join_and_what_is_still_on_its_way() -> None:
    driver = Driver()
    for part in (document(), answer("extract"), Deletion("d"), answer("classify"), answer("validate")):
        driver.apply(part, now=0)
    assert driver.state is not None
    assert driver.state["phase"] == "deleted"
    driver.tick(2_000)
    assert driver.emitted == []
    for part in PATHS["complete"]:
        driver.apply(part, now=2_000)
    assert driver.emitted == [in_order("complete")]


def test_nothing_is_applied_over_an_outcome_that_is_not_delivered() -> None:
    state: State | None = None
    for part in PATHS["complete"]:
        state = JOIN.apply(state, part, partition=0, now=0)
    assert state is not None
    assert state["phase"] == "emitting"
    assert JOIN.apply(state, document(), partition=0, now=0) is state
    assert not is_due(state, 10**15)
    with pytest.raises(ValueError, match="still being emitted"):
        JOIN.apply(state, document(1), partition=0, now=0)
