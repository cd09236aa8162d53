"""Which of overlapping entities stay: those with the largest total, in which likely and long ones count more."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.text import overlaps
from el4ner.text.overlaps import resolve_overlaps, weight
from el4ner.types import Entity


def entity(start: int, end: int, confidence: float, kind: str = "person", *by: str) -> Entity:
    return Entity(start, end, "x" * (end - start), kind, confidence, by)


def named(text: str, *names: tuple[Any, ...]) -> list[Entity]:
    """Names in ``text``: surface, type, confidence, and who proposed it."""
    return [
        Entity(text.index(name), text.index(name) + len(name), name, kind, confidence, tuple(by))
        for name, kind, confidence, *by in names
    ]


def surfaces(entities: list[Entity], policy: str) -> list[str]:
    return [one.text for one in resolve_overlaps(entities, policy)]  # type: ignore[arg-type]


SYDNEY = named(
    "The Sydney Opera House opened in 1973.",
    ("Sydney", "location", 0.912), ("Sydney Opera House", "event", 0.658), ("1973", "date", 0.976),
)  # fmt: skip
ENGLAND = named(
    "The Bank of England raised rates.", ("England", "location", 0.953), ("Bank of England", "organization", 0.903)
)
LENZ = named(
    "The University of Lenz Press published it.",
    ("The University of Lenz Press", "organization", 0.714),
    ("University of Lenz Press", "organization", 0.854),
    ("Lenz Press", "organization", 0.738),
)
MUSEUM = named(
    "Bank of England Museum",
    ("Bank of England Museum", "organization", 0.593),
    ("Bank of England", "organization", 0.5, "chunks", "lexicon"),
    ("England", "location", 0.9, "lexicon"),
)


@pytest.mark.parametrize(
    ("entities", "flat", "nested"),
    [
        (SYDNEY, ["Sydney Opera House", "1973"], ["Sydney Opera House", "Sydney", "1973"]),
        (ENGLAND, ["Bank of England"], ["Bank of England", "England"]),
        (LENZ, ["University of Lenz Press"], ["University of Lenz Press"]),
        (MUSEUM, ["Bank of England Museum"], ["Bank of England Museum", "Bank of England", "England"]),
        # A title is no part of the name, however long the two are together.
        (
            named(
                "President Emmanuel Macron",
                ("President Emmanuel Macron", "person", 0.795),
                ("Emmanuel Macron", "person", 0.978),
            ),
            ["Emmanuel Macron"],
            ["Emmanuel Macron"],
        ),
        # What holds two names of other types is not one of them for that, where one of its own type is likelier.
        (
            named(
                "Deutsche Bank London",
                ("Deutsche Bank London", "organization", 0.689),
                ("Deutsche Bank", "organization", 0.95),
                ("London", "location", 0.967),
            ),
            ["Deutsche Bank", "London"],
            ["Deutsche Bank", "London"],
        ),
        (
            named(
                "Paris and London",
                ("Paris and London", "event", 0.2),
                ("Paris", "location", 0.99),
                ("London", "location", 0.99),
            ),
            ["Paris", "London"],
            ["Paris and London", "Paris", "London"],
        ),
    ],
)  # fmt: skip
def test_names_in_names(entities: list[Entity], flat: list[str], nested: list[str]) -> None:
    assert surfaces(entities, "flat") == flat
    assert surfaces(entities, "nested") == nested


def test_flat_keeps_the_likeliest_of_those_that_overlap() -> None:
    kept = resolve_overlaps([entity(0, 10, 0.5), entity(5, 12, 0.9), entity(20, 22, 0.1)], "flat")
    assert [(e.start, e.end) for e in kept] == [(5, 12), (20, 22)]


def test_of_equals_the_longest_stays() -> None:
    assert [e.end for e in resolve_overlaps([entity(0, 4, 0.5), entity(0, 10, 0.5), entity(2, 8, 0.5)])] == [10]


def test_nested_keeps_what_lies_inside_but_not_what_crosses() -> None:
    entities = [entity(0, 10, 0.9), entity(0, 4, 0.5, "place"), entity(8, 12, 0.4)]
    assert [(e.start, e.end) for e in resolve_overlaps(entities, "nested")] == [(0, 10), (0, 4)]


ENTITIES = st.lists(
    st.builds(
        lambda start, length, confidence, kind, by: entity(start, start + length, confidence, kind, *by),
        st.integers(0, 20),
        st.integers(1, 8),
        st.sampled_from([0.0, 0.2, 0.5, 0.7, 0.9, 1.0]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([(), ("lexicon",)]),
    ),
    max_size=12,
)
POLICIES = st.sampled_from(["flat", "nested"])


@given(ENTITIES, st.integers(0, 99), POLICIES)
def test_the_order_of_entities_does_not_matter(entities: list[Entity], seed: int, policy: Any) -> None:
    shuffled = Random(seed).sample(entities, len(entities))
    assert resolve_overlaps(entities, policy) == resolve_overlaps(shuffled, policy)


@given(ENTITIES)
def test_flat_results_never_overlap(entities: list[Entity]) -> None:
    kept = resolve_overlaps(entities, "flat")
    assert all(one.end <= other.start for one, other in itertools.pairwise(kept))


@given(ENTITIES)
def test_nested_results_never_cross_and_say_no_type_twice_of_one_name(entities: list[Entity]) -> None:
    for one, other in itertools.combinations(resolve_overlaps(entities, "nested"), 2):
        if one.end <= other.start or other.end <= one.start:
            continue
        assert (one.start, -one.end) < (other.start, -other.end)
        assert other.end <= one.end
        if one.type == other.type:
            assert other.end < one.end
            assert "lexicon" in other.proposed_by


@given(ENTITIES, POLICIES)
def test_whatever_goes_is_in_the_way_of_something_that_stays(entities: list[Entity], policy: Any) -> None:
    kept = resolve_overlaps(entities, policy)
    for one in entities:
        assert one in kept or any(one.start < other.end and other.start < one.end for other in kept)


def test_a_weight_is_squared_odds_times_length() -> None:
    assert weight(entity(0, 1, 0.5)) == 1
    assert weight(entity(0, 8, 0.75)) == pytest.approx(9 * 8)
    assert weight(entity(0, 8, 0.75), wrong=0.5) == pytest.approx(0.36 * 8)
    assert all(math.isfinite(weight(entity(0, 5, confidence))) for confidence in (0.0, 1.0))
    assert weight(entity(0, 5, 0.0)) > 0


def test_two_names_side_by_side_count_together() -> None:
    """One by one the long one would have won over each of them."""
    both = [entity(0, 10, 0.8), entity(11, 21, 0.8), entity(0, 21, 0.81)]
    assert [(e.start, e.end) for e in resolve_overlaps(both)] == [(0, 21)]
    likelier = [entity(0, 10, 0.85), entity(11, 21, 0.85), entity(0, 21, 0.81)]
    assert [(e.start, e.end) for e in resolve_overlaps(likelier)] == [(0, 10), (11, 21)]
    chain = [entity(0, 10, 0.8), entity(8, 20, 0.82), entity(18, 28, 0.8)]
    assert [(e.start, e.end) for e in resolve_overlaps(chain)] == [(0, 10), (18, 28)]


def test_between_equal_totals_the_longest_stay_then_the_leftmost_then_the_type_that_sorts_first() -> None:
    assert [e.end for e in resolve_overlaps([entity(0, 4, 0.5), entity(1, 2, 2 / 3)])] == [4]
    assert [e.start for e in resolve_overlaps([entity(2, 6, 0.5), entity(0, 4, 0.5)])] == [0]
    assert [e.type for e in resolve_overlaps([entity(0, 4, 0.5, "b"), entity(0, 4, 0.5, "a")])] == ["a"]


def units(one: Entity, wrong: float = 1.0) -> int:
    """Exact, so that sums can be compared."""
    return round(weight(one, wrong) * 1e12)


def overlap(one: Entity, other: Entity) -> bool:
    return one.start < other.end and other.start < one.end


def holds(outer: Entity, inner: Entity) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end and outer.end - outer.start > inner.end - inner.start


def go_together(one: Entity, other: Entity) -> bool:
    """By the nested policy."""
    if not overlap(one, other):
        return True
    outer, inner = (one, other) if holds(one, other) else (other, one)
    if not holds(outer, inner):
        return False
    return outer.type != inner.type or (inner.end != outer.end and "lexicon" in inner.proposed_by)


def families(entities: list[Entity], fits: Callable[[Entity, Entity], bool]) -> Iterator[tuple[Entity, ...]]:
    """All that go together, pair by pair."""
    for size in range(len(entities) + 1):
        for family in itertools.combinations(entities, size):
            if all(fits(one, other) for one, other in itertools.combinations(family, 2)):
                yield family


FEW = ENTITIES.map(lambda entities: entities[:8])


@given(FEW)
def test_flat_keeps_the_largest_total(entities: list[Entity]) -> None:
    def total(family: tuple[Entity, ...]) -> int:
        return sum(
            units(one, 1 - max((o.confidence for o in entities if holds(o, one) and o.type != one.type), default=0.0))
            for one in family
        )

    largest = max(total(family) for family in families(entities, lambda one, other: not overlap(one, other)))
    assert total(resolve_overlaps(entities, "flat")) == largest


@given(FEW)
def test_nested_keeps_the_largest_total(entities: list[Entity]) -> None:
    largest = max(sum(map(units, family)) for family in families(entities, go_together))
    assert sum(map(units, resolve_overlaps(entities, "nested"))) == largest


@given(ENTITIES, POLICIES, st.data())
def test_what_stays_would_stay_if_it_were_likelier(entities: list[Entity], policy: Any, data: st.DataObject) -> None:
    kept = resolve_overlaps(entities, policy)
    for one in kept:
        likelier = replace(one, confidence=data.draw(st.floats(one.confidence, 1.0)))
        others = list(entities)
        others.remove(one)
        assert likelier in resolve_overlaps([*others, likelier], policy)


@pytest.mark.parametrize("policy", ["flat", "nested"])
def test_thousands_that_all_overlap_are_not_all_compared(policy: Any, count_calls: Callable[..., list[int]]) -> None:
    compared, weighed = count_calls("_likeliest"), count_calls("weight")
    entities = [entity(at, 20_000 - at, 0.5, "ab"[at % 2]) for at in range(4_000)]
    kept = resolve_overlaps(entities, policy)
    assert [(each.start, each.end) for each in kept] == [(0, 20_000)]
    assert compared[0] <= 2 * 12 * len(entities)
    assert weighed[0] <= 64 * len(entities)


def test_many_names_in_names_are_searched_within_bounds(count_calls: Callable[..., list[int]]) -> None:
    """Types on every level: what may lie inside depends on which of them hold it."""
    weighed = count_calls("weight")
    kinds = "abcdefghijklm"
    entities = [
        entity(level, 400 - level - 7 * number, 0.5, kinds[(level * 5 + number) % 13], "lexicon")
        for level in range(40)
        for number in range(20)
    ]
    kept = resolve_overlaps(entities, "nested")
    assert kept == resolve_overlaps(entities[::-1], "nested")
    assert weighed[0] <= 64 * len(entities)


@pytest.fixture
def count_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """How often a function of the module is called from now on."""

    def counting(name: str) -> list[int]:
        calls = [0]
        inner = getattr(overlaps, name)

        def counted(*args: Any) -> Any:
            calls[0] += 1
            return inner(*args)

        monkeypatch.setattr(overlaps, name, counted)
        return calls

    return counting
