"""What the commands make of what ``entities`` has."""

from __future__ import annotations

from typing import Any

import pytest

from el4ner.canonical.decisions import EntityDecision, EntityDecisions
from el4ner.canonical.names import entity_id
from workers.entities.entity_topic import EntitiesError, KnownEntities, decided_at

ADA, KING, LONDON = (
    entity_id("person", "ada lovelace"),
    entity_id("person", "ada king"),
    entity_id("location", "london"),
)


def entity(kind: str, name: str, mentions: int, *joined: str, aliases: tuple[str, ...] = ()) -> dict[str, Any]:
    names = [{"id": entity_id(kind, each), "name": each} for each in (name.casefold(), *joined)]
    return {
        "id": names[0]["id"],
        "type": kind,
        "name": name,
        "merged_into": None,
        "aliases": [name, *aliases],
        "names": names,
        "mentions": mentions,
    }


def merged(name: str, into: str) -> dict[str, Any]:
    return {
        "id": entity_id("person", name),
        "type": "person",
        "name": name,
        "merged_into": into,
        "merged_by": "decision",
    }


KNOWN = KnownEntities(
    {
        value["id"]: value
        for value in (
            entity("person", "Ada Lovelace", 3, "ada king", aliases=("Lovelace",)),
            merged("ada king", ADA),
            entity("person", "Charles Babbage", 5),
            entity("location", "London", 4),
        )
    }
)


def test_entities_are_listed_by_how_often_they_are_mentioned_and_found_by_the_beginning_of_an_id() -> None:
    assert [value["name"] for value in KNOWN.all()] == ["Charles Babbage", "London", "Ada Lovelace"]
    assert KNOWN.find(KING[:6])["name"] == "ada king"
    assert KNOWN.entity(KING)["name"] == "Ada Lovelace"
    with pytest.raises(EntitiesError, match="there is no entity of that id; el4ner entities list"):
        KNOWN.find(ADA[:3])


def test_a_merge_is_of_whole_entities_of_one_type() -> None:
    babbage = entity_id("person", "charles babbage")
    assert KNOWN.merge(babbage, KING) == ("person", "ada lovelace", "charles babbage")
    with pytest.raises(EntitiesError, match="'London' is of the type location and 'Ada Lovelace' of the type person"):
        KNOWN.merge(ADA, LONDON)
    with pytest.raises(EntitiesError, match="are one entity already: Ada Lovelace"):
        KNOWN.merge(KING, ADA)


def test_a_decision_is_later_than_those_before_it_though_their_clock_was_fast() -> None:
    merged_ahead = EntityDecision("1", 5_000, "merge", "person", "ada king", "ada lovelace")
    other = EntityDecision("2", 9_000, "split", "person", "lovelace")
    at_ms = decided_at([merged_ahead, other], "person", "ada king", now_ms=1_000)
    decisions = EntityDecisions()
    for each in (merged_ahead, EntityDecision("0", at_ms, "split", "person", "ada king")):
        decisions.add(each)
    in_force = decisions.about(KING)
    assert in_force is not None
    assert in_force.action == "split"
    assert decided_at([merged_ahead], "person", "ada king", now_ms=6_000) == 6_000


def test_a_split_is_of_a_name_that_was_joined() -> None:
    assert KNOWN.split(ADA, "ADA King's") == KNOWN.split(ADA, KING) == ("person", "ada king")
    assert KNOWN.split(ADA, KING[:4]) == ("person", "ada king")
    with pytest.raises(EntitiesError, match="each document says that itself"):
        KNOWN.split(ADA, "lovelace")
    with pytest.raises(
        EntitiesError, match="'Byron' is no name that was joined in 'Ada Lovelace'; joined are: 'ada king'"
    ):
        KNOWN.split(ADA, "Byron")


def test_a_name_that_was_merged_and_that_no_document_has_any_more_can_be_split() -> None:
    decisions = [
        EntityDecision("1", 1, "merge", "person", "the countess", "ada king"),
        EntityDecision("2", 2, "merge", "person", "ada byron", "ada lovelace"),
        EntityDecision("3", 3, "split", "person", "ada byron"),
        EntityDecision("4", 4, "merge", "person", "one", "another"),
        EntityDecision("5", 5, "merge", "person", "another", "one"),
    ]
    countess = entity_id("person", "the countess")
    for alias in ("The Countess", countess, countess[:5]):
        assert KNOWN.split(ADA, alias, decisions) == ("person", "the countess")
    for alias in ("Ada Byron", "one"):
        with pytest.raises(EntitiesError, match="joined are: 'ada king', 'the countess'"):
            KNOWN.split(ADA, alias, decisions)
