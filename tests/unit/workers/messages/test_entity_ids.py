"""Ids of entities in messages: of the names that mentions have in their document."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from el4ner.canonical.names import canonical_name, entity_id
from workers.messages.entity_ids import entity_ids, with_entity_ids

MERKEL = entity_id("person", "angela merkel")
PARTS = st.lists(
    st.sampled_from(["Angela", "MERKEL", "Merkel's", "Una", "Deutsche", "Bank", "AG"]), min_size=1, max_size=3
)
MENTIONS = st.lists(st.tuples(st.sampled_from(["person", "organization"]), PARTS.map(" ".join)), max_size=8)


def document(mentions: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"id": "d", "entities": [{"type": kind, "text": surface} for kind, surface in mentions]}


def test_a_short_form_has_the_id_of_its_long_one_and_types_are_kept_apart() -> None:
    mentions = [("person", "Angela Merkel"), ("person", "MERKEL's"), ("location", "Merkel")]
    assert entity_ids(document(mentions)) == [MERKEL, MERKEL, entity_id("location", "merkel")]
    assert entity_ids(document(mentions[1:2])) == [entity_id("person", "merkel")]


def test_nested_entities_have_ids_of_their_own() -> None:
    nested = [("organization", "Bank of England"), ("location", "England")]
    assert entity_ids(document(nested)) == [
        entity_id("organization", "bank of england"),
        entity_id("location", "england"),
    ]


@given(MENTIONS, st.randoms(use_true_random=False))
def test_ids_follow_from_types_and_texts_in_whatever_order(mentions: list[tuple[str, str]], order: Any) -> None:
    ids = entity_ids(document(mentions))
    shuffled = list(range(len(mentions)))
    order.shuffle(shuffled)
    assert entity_ids(document([mentions[place] for place in shuffled])) == [ids[place] for place in shuffled]
    names = [entity_id(kind, canonical_name(surface)) for kind, surface in mentions]
    assert set(ids) <= set(names), "each is the id of a name that the document has"


@given(MENTIONS)
def test_a_document_with_ids_has_all_that_it_had_and_the_one_before_is_as_it_was(
    mentions: list[tuple[str, str]],
) -> None:
    plain = document(mentions)
    before = deepcopy(plain)
    whole = with_entity_ids(plain, ids := entity_ids(plain))
    assert plain == before
    assert [each.pop("entity_id") for each in whole["entities"]] == ids
    assert whole == before
