"""What processes mention of taught spans, put together: the corrections that one process with all members makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from el4ner.evidence.combination import Combination
from el4ner.evidence.corrections import ALIKE, CorrectionSource, shortfall
from el4ner.evidence.corrections_apart import FAR, MOST_NEAR, NearSpans, correction_together
from el4ner.evidence.judges import Floats, log_softmax
from el4ner.evidence.sources import SentenceQuestion
from el4ner.types import NearTaught, Span, Usage

LABELS = ("person", "place", "none")
SPANS = 3
QUESTION = SentenceQuestion("a b c", tuple(Span(2 * at, 2 * at + 1, "abc"[at]) for at in range(SPANS)))
FEATURES = 2
COMBINATION = Combination((0.5, 0.7, 0.4, 0.6), threshold=-0.5)


def unit(vectors: Floats) -> Floats:
    made: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return made


class Comparing:
    """A member with the vectors of one sentence's candidates, of one layer."""

    def __init__(self, name: str, vectors: Floats) -> None:
        self.name = name
        self._vectors = vectors[None]

    def vectors(self, questions: Sequence[SentenceQuestion]) -> tuple[Floats, Usage]:
        return self._vectors, Usage()


class Ensemble:
    """Two members, each with vectors of its own for ``taught`` spans, and for candidates that are more or less like the
    first ones of them."""

    def __init__(self, seed: int, taught: int, spread: float = 0.3) -> None:
        draw = np.random.default_rng(seed)
        self.keys: Mapping[str, Floats] = {
            name: unit(draw.standard_normal((taught, 24)).astype(np.float32))[None] for name in "ab"
        }
        self.members = {
            name: Comparing(name, unit(keys[0, :SPANS] + spread * draw.standard_normal((SPANS, 24))).astype(np.float32))
            for name, keys in self.keys.items()
        }
        self.said = {
            name: np.round(log_softmax(draw.standard_normal((taught, FEATURES, len(LABELS))).astype(np.float32)), 2)
            for name in "ab"
        }
        self.labels = draw.integers(0, len(LABELS), taught)

    def mentions(self, name: str) -> NearTaught:
        source = NearSpans(
            [self.members[name]],  # type: ignore[list-item]
            {name: self.keys[name]},
            [f"span {number}" for number in range(len(self.labels))],
            [LABELS[label] for label in self.labels],
            self.said[name],
        )
        (near,), _ = source.near([QUESTION])
        return near

    def together(self, *names: str) -> Floats:
        columns = [(at, feature) for at in range(len(names)) for feature in range(FEATURES)]
        combination = Combination(COMBINATION.weights[: len(columns)], threshold=COMBINATION.threshold)
        evidence = np.zeros((SPANS, len(columns), len(LABELS)), np.float32)
        return correction_together([self.mentions(name) for name in names], evidence, columns, combination, LABELS)

    def in_one_process(self) -> Floats:
        before = COMBINATION.log_probabilities(np.concatenate([self.said["a"], self.said["b"]], axis=1))
        missing = shortfall(before, COMBINATION.threshold, self.labels, len(LABELS))
        source = CorrectionSource([self.members["a"], self.members["b"]], self.keys, missing, "f")  # type: ignore[list-item]
        (answer,), _ = source.answer([QUESTION])
        return answer[:, 0]


@pytest.mark.parametrize("seed", range(8))
def test_what_all_mention_makes_the_corrections_of_one_process(seed: int) -> None:
    ensemble = Ensemble(seed, taught=40)
    expected = ensemble.in_one_process()
    assert expected.any()
    np.testing.assert_allclose(ensemble.together("a", "b"), expected, atol=0.05)


def test_the_order_of_the_processes_says_nothing() -> None:
    ensemble = Ensemble(3, taught=40)
    combination = Combination((0.4, 0.6, 0.5, 0.7), threshold=COMBINATION.threshold)
    evidence = np.zeros((SPANS, 4, len(LABELS)), np.float32)
    columns = [(0, 0), (0, 1), (1, 0), (1, 1)]
    swapped = correction_together(
        [ensemble.mentions("b"), ensemble.mentions("a")], evidence, columns, combination, LABELS
    )
    np.testing.assert_allclose(swapped, ensemble.together("a", "b"), atol=1e-5)


def test_a_taught_span_that_one_of_them_finds_far_counts_for_nothing() -> None:
    ensemble = Ensemble(0, taught=SPANS, spread=0.01)
    assert ensemble.together("a").any()
    ensemble.members["b"] = Comparing("b", -ensemble.keys["b"][0, :SPANS])
    assert not ensemble.mentions("b").spans
    assert not ensemble.together("a", "b").any()


def test_what_nobody_compares_counts_as_it_is_said_of_the_candidate() -> None:
    """Extraction was sure of the one candidate and not of the other: so much is added that each is what was taught."""
    cosines = np.full((2, 1), ALIKE, np.float32)
    near = NearTaught(("s",), ("none",), cosines, 2, np.zeros((1, 1, len(LABELS)), np.float32))
    evidence = np.zeros((2, 2, len(LABELS)), np.float32)
    evidence[:, 1, :-1] = [[-0.1], [-3.0]]
    evidence[:, 1, -1] = [-3.0, -0.1]
    combination = Combination((1.0, 1.0))
    added = correction_together([near], evidence, [(0, 0), None], combination, LABELS)
    assert added[0, -1] > added[1, -1]
    after = combination.log_probabilities(evidence) + added
    assert (after.argmax(axis=1) == len(LABELS) - 1).all()


def test_of_very_many_the_nearest_are_mentioned() -> None:
    ensemble = Ensemble(0, taught=3 * MOST_NEAR, spread=0.1)
    crowd = unit(ensemble.keys["a"][:, :1] + np.linspace(0, 0.3, 3 * MOST_NEAR, dtype=np.float32)[None, :, None])
    ensemble.keys = {"a": crowd.astype(np.float32), "b": ensemble.keys["b"]}
    ensemble.members["a"] = Comparing("a", np.repeat(crowd[0, :1], SPANS, axis=0))
    near = ensemble.mentions("a")
    assert near.spans == tuple(f"span {number}" for number in range(MOST_NEAR))
    assert (near.cosines[near.cosines > 0] >= FAR - 1e-4).all()


def test_a_type_that_is_none_of_the_pools_is_refused() -> None:
    near = NearTaught(("s",), ("soup",), np.ones((1, 1), np.float32), 1, np.zeros((1, 1, 3), np.float32))
    with pytest.raises(ValueError, match="soup"):
        correction_together([near], np.zeros((1, 1, 3), np.float32), [(0, 0)], Combination((1.0,)), LABELS)
