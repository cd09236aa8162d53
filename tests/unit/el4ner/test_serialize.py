"""Values → JSON → values: nothing changes on the way, and offsets that do not fit are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import MessageError
from el4ner.serialize import (
    answers_from_json,
    answers_to_json,
    candidates_from_json,
    candidates_to_json,
    canonical,
    dumps,
    entities_from_json,
    entities_to_json,
    entity_from_json,
    entity_to_json,
    fingerprint,
    manifest_from_json,
    manifest_to_json,
    tagged_from_json,
    tagged_to_json,
    types_from_json,
    types_to_json,
)
from el4ner.types import (
    DocumentAnswers,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Entity,
    Manifest,
    Mode,
    TaggedDocument,
    Verdict,
)
from tests.support import strategies


def through_json(data: Any) -> Any:
    return orjson.loads(dumps(data))


@given(strategies.document_candidates())
def test_candidates_survive(result: DocumentCandidates) -> None:
    assert candidates_from_json(through_json(candidates_to_json(result))) == result


@given(strategies.document_answers())
def test_answers_survive_and_their_numbers_bit_by_bit(result: DocumentAnswers) -> None:
    assert answers_from_json(through_json(answers_to_json(result))) == result


@given(strategies.document_types())
def test_types_survive(result: DocumentTypes) -> None:
    assert types_from_json(through_json(types_to_json(result))) == result


@given(strategies.document_entities())
def test_entities_survive(result: DocumentEntities) -> None:
    assert entities_from_json(through_json(entities_to_json(result))) == result


@given(strategies.tagged_documents())
def test_tagged_documents_survive(tagged: TaggedDocument) -> None:
    assert tagged_from_json(through_json(tagged_to_json(tagged))) == tagged


@given(strategies.entities("Zürich 😀"))
def test_entities_of_a_document_survive(entity: Entity) -> None:
    assert entity_from_json(through_json(entity_to_json(entity))) == entity


def test_a_manifest_names_evidence_only_where_there_was_some() -> None:
    """Producers and consumers that know nothing of evidence go on as they were."""
    manifest = Manifest(Mode.PAPER, {"a": "f"}, "v1", "news", "p", "none")
    older = {
        "mode": "paper",
        "members": {"a": "f"},
        "prompt_version": "v1",
        "pool": "news",
        "pool_fingerprint": "p",
        "retriever": "none",
    }
    assert manifest_to_json(manifest) == older
    assert manifest_from_json(older) == manifest
    assert manifest_to_json(replace(manifest, evidence="e")) == {**older, "evidence": "e"}


def test_an_entity_looks_as_the_command_line_prints_it() -> None:
    entity = Entity(0, 6, "Zürich", "location", 0.5, ("a",), {"a": "location"}, Verdict(True, 0.9, "b"))
    assert entity_to_json(entity) == {
        "start": 0,
        "end": 6,
        "text": "Zürich",
        "type": "location",
        "confidence": 0.5,
        "proposed_by": ["a"],
        "votes": {"a": "location"},
        "verdict": {"holds": True, "probability": 0.9, "verifier": "b"},
    }
    assert entity_to_json(Entity(0, 1, "Z", "t", 0.5))["verdict"] is None


@given(strategies.document_types().filter(lambda result: any(item.typed for item in result.sentences)), st.data())
def test_a_span_that_is_not_where_it_says_is_refused(result: DocumentTypes, data: st.DataObject) -> None:
    value = through_json(types_to_json(result))
    index = next(index for index, item in enumerate(result.sentences) if item.typed)
    span = value["sentences"][index]["typed"][0]
    wrong = data.draw(
        st.sampled_from(
            [{"text": span["text"] + "x"}, {"end": len(result.document.text) + 1}, {"start": span["end"] + 1}]
        )
    )
    span.update(wrong)
    with pytest.raises(MessageError, match=f"/sentences/{index}/typed/0"):
        types_from_json(value)


def test_a_sentence_outside_its_document_is_refused() -> None:
    value: Any = {
        "document": {"id": "a", "text": "short", "pool": None, "revision": 0},
        "sentences": [{"start": 0, "end": 6}],
    }
    with pytest.raises(MessageError, match="/sentences/0"):
        candidates_from_json(value)


def test_equal_data_has_equal_bytes_and_fingerprint() -> None:
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})
    assert fingerprint("d", {"b": 1, "a": 2}) == fingerprint("d", {"a": 2, "b": 1})
    assert fingerprint("d", 1) != fingerprint("d", 2)
    assert len(fingerprint("d")) == 32
