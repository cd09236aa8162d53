"""What the page holds of the topic entities: the latest message of each, found, sorted and bounded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from el4ner.canonical.names import canonical_name, entity_id
from workers.entities.entity_topic import KnownEntities
from workers.ui.held_entities import EntityWish, HeldEntities

DAY = "2026-11-27T08:00:00.000Z"


def value_of(kind: str, name: str, mentions: int, *joined: str, aliases: tuple[str, ...] = (), last: str = DAY) -> Any:
    """A message of ``entities``; ``joined``: names beside its own."""
    names = [canonical_name(name), *joined]
    return {
        "id": entity_id(kind, names[0]),
        "type": kind,
        "name": name,
        "merged_into": None,
        "aliases": [name, *aliases],
        "names": [{"id": entity_id(kind, each), "name": each} for each in names],
        "first_seen": DAY,
        "last_seen": last,
        "mentions": mentions,
        "window_seconds": 86_400,
        "windows": [{"start": "2026-11-27T00:00:00.000Z", "mentions": mentions, "documents": 1}],
    }


def merged_value(kind: str, name: str, into: str) -> Any:
    return {"id": entity_id(kind, name), "type": kind, "name": name, "merged_into": into, "merged_by": "decision"}


ADA = value_of("person", "Ada Lovelace", 3, aliases=("Lovelace",))
KING = value_of("person", "Ada King", 9, last="2026-11-28T08:00:00.000Z")
LONDON = value_of("location", "London", 5)


def held_of(*values: Any, most: int = 100) -> HeldEntities:
    held = HeldEntities(most)
    for value in values:
        held.take(value["id"].encode(), orjson.dumps(value))
    return held


def names(held: HeldEntities, **wish: Any) -> list[str]:
    return [value["name"] for value in held.listed(EntityWish(**wish)).values]


def test_entities_are_found_by_any_spelling_and_type_and_sorted() -> None:
    held = held_of(ADA, KING, LONDON)
    assert names(held) == ["Ada King", "London", "Ada Lovelace"]
    assert names(held, order="last-seen")[0] == "Ada King"
    assert names(held, like="LOVE") == ["Ada Lovelace"]
    assert names(held, like="a", type="person", but=KING["id"]) == ["Ada Lovelace"]
    assert names(held, start=1, most=1) == ["London"]
    assert held.listed(EntityWish(like="ada", most=1)).matched == 2
    assert held.types == ["person", "location"]


def test_of_each_entity_the_latest_message_counts() -> None:
    held = held_of(ADA, KING, LONDON, {**LONDON, "mentions": 99})
    assert names(held)[0] == "London"
    held.take(LONDON["id"].encode(), None)
    held.take(KING["id"].encode(), orjson.dumps(merged_value("person", "ada king", ADA["id"])))
    assert names(held) == ["Ada Lovelace"]
    assert (held.entities, held.types, len(held)) == (1, ["person"], 2)
    assert KnownEntities(held).entity(KING["id"][:6]) == ADA
    assert LONDON["id"] not in held


def test_no_more_are_held_than_may_be() -> None:
    held = held_of(ADA, KING, LONDON, ADA, value_of("person", "Bob", 1), most=3)
    assert set(names(held)) == {"Ada Lovelace", "London", "Bob"}  # Ada King has changed least lately
    assert (held.has_forgotten, len(held), held.entities) == (True, 3, 3)
    assert not held_of(ADA, KING, LONDON, most=3).has_forgotten


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"Ada", orjson.dumps(ADA)),
        (KING["id"].encode(), orjson.dumps(ADA)),
        (None, orjson.dumps(ADA)),
        (ADA["id"].encode(), b"{"),
        (ADA["id"].encode(), orjson.dumps({**ADA, "mentions": "many"})),
        (b"\xff", None),
    ],
)
def test_what_is_no_message_of_an_entity_is_counted_and_changes_nothing(key: bytes | None, value: bytes | None) -> None:
    held = held_of(ADA)
    held.take(key, value)
    assert (held.unreadable, names(held)) == (1, ["Ada Lovelace"])


@pytest.mark.parametrize("wrong", ["", "x", ADA["id"].upper(), f" {ADA['id']}", ADA["id"] + "00"])
def test_only_an_id_as_it_is_written_is_a_key(wrong: str) -> None:
    assert wrong not in held_of(ADA)
