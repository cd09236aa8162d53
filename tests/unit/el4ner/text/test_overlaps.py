"""Which of overlapping entities stays: the likelier one, with something for length, and for a name as a whole."""

from __future__ import annotations

import itertools
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.text.overlaps import LENGTH_WEIGHT, OUTER_MARGIN, resolve_overlaps, score
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


@given(ENTITIES)
def test_what_goes_is_beaten(entities: list[Entity]) -> None:
    """By what has a larger score, or holds it; circles apart, in which somebody has to give way."""
    kept = resolve_overlaps(entities, "flat")
    for one in entities:
        rivals = [other for other in kept if one.start < other.end and other.start < one.end]
        best = max((score(other) for other in rivals), default=0.0)
        assert one in kept or best >= score(one) - OUTER_MARGIN


def test_a_score_is_log_odds_and_a_share_of_the_length() -> None:
    assert score(entity(0, 1, 0.5)) == 0
    assert score(entity(0, 8, 0.75)) == pytest.approx(math.log(3) + LENGTH_WEIGHT * math.log(8))
    assert all(math.isfinite(score(entity(0, 5, confidence))) for confidence in (0.0, 1.0))


@pytest.mark.parametrize("policy", ["flat", "nested"])
def test_thousands_that_all_overlap_are_not_all_compared(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from el4ner.text import overlaps

    compared = 0
    inner = overlaps._conflict

    def counted(*args: Any) -> bool:
        nonlocal compared
        compared += 1
        return inner(*args)

    monkeypatch.setattr(overlaps, "_conflict", counted)
    entities = [entity(at, 20_000 - at, 0.5, "ab"[at % 2]) for at in range(4_000)]
    kept = resolve_overlaps(entities, policy)
    assert (kept[0].start, kept[0].end) == (0, 20_000)
    assert compared <= 100 * len(entities)
