"""The synthetic pools of bench/scaling.py."""

import sys

import pytest

from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

from synthetic import divided, synthetic

from el4ner.pools import load_pool


def test_a_synthetic_pool_is_valid_distinct_and_the_same_for_the_same_seed() -> None:
    shipped = load_pool("shipped:news", name="news")
    made = synthetic(shipped, 2_000)  # a pool checks its spans when it is made
    assert len({sentence.text for sentence in made.sentences}) == 2_000
    assert made.types == shipped.types
    assert made.fingerprint == synthetic(shipped, 2_000).fingerprint != synthetic(shipped, 2_000, seed=1).fingerprint


def test_more_sentences_than_there_are_combinations_are_refused() -> None:
    shipped = load_pool("shipped:news", name="news")
    few = type(shipped)("few", shipped.types, shipped.sentences[:1])
    with pytest.raises(ValueError, match="too few"):
        synthetic(few, 100)


def test_a_pool_is_divided_into_as_many_types_as_are_asked_for() -> None:
    shipped = load_pool("shipped:news", name="news")
    made = divided(shipped, 20)
    assert len(made.types) == 20
    types_of: dict[str, set[str]] = {}
    for sentence, own in zip(made.sentences, shipped.sentences, strict=True):
        assert sentence.text == own.text
        assert [(span, label.rpartition("-")[0]) for span, label in sentence.spans] == list(own.spans)
        for span, label in sentence.spans:
            types_of.setdefault(f"{label.rpartition('-')[0]} {span.text}", set()).add(label)
    assert all(len(types) == 1 for types in types_of.values())
    with pytest.raises(ValueError, match="already"):
        divided(shipped, 2)
