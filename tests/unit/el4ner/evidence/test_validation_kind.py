"""Which kind of validation pays: the rule, the figures, and that no sentence is judged by its own labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.config import MethodSettings
from el4ner.evaluation.stats import Comparison
from el4ner.evaluation.validation import Kind, auc, choose, compared
from el4ner.evidence import Evidence, StateSource, even_calibration
from el4ner.evidence.span_memory import PoolSpans, SpanMemory
from el4ner.stages.verification import VerifiedPool, VerifiedSentence, leave_one_out_types
from el4ner.types import Manifest, Mode, Sentence, SentenceEntities, Span, SpanCandidate, TypedSpan, Usage, Verdict
from tests.support.examples import examples

TYPES = ["person", "place"]
SENTENCES, SPANS = 20, 3


def against_off(difference: float, p_value: float) -> Comparison:
    return Comparison(100, 0.5 + difference, 0.5, difference, (difference, difference), p_value)


@pytest.mark.parametrize(
    ("soft", "hard", "chosen"),
    [
        ((0.0, 1.0), (0.0, 1.0), "off"),
        ((-0.2, 0.001), (-0.1, 0.001), "off"),
        ((0.004, 0.001), (0.0, 1.0), "off"),
        ((0.005, 0.049), (0.0, 1.0), "soft"),
        ((0.1, 0.05), (0.0, 1.0), "off"),
        ((0.1, 0.2), (0.006, 0.01), "hard"),
        ((0.02, 0.01), (0.03, 0.01), "hard"),
        ((0.03, 0.01), (0.02, 0.01), "soft"),
        ((0.02, 0.01), (0.02, 0.01), "soft"),
    ],
)
def test_validation_has_to_be_clearly_better_than_none(
    soft: tuple[float, float], hard: tuple[float, float], chosen: Kind
) -> None:
    assert choose({"soft": against_off(*soft), "hard": against_off(*hard)}) == chosen


def test_auc_by_hand() -> None:
    # Of the pairs 0.9 > 0.4, 0.9 > 0.1, 0.4 = 0.4 (half) and 0.4 > 0.1.
    assert auc([0.9, 0.4], [0.4, 0.1]) == pytest.approx(3.5 / 4)
    assert auc([1.0], [0.0]) == 1.0
    assert auc([0.0], [1.0]) == 0.0
    assert auc([0.5, 0.5], [0.5]) == 0.5
    assert auc([], [0.5]) is None
    assert auc([0.5], []) is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_auc_is_the_share_of_pairs(right: list[int], wrong: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    assert auc(right, wrong) == pytest.approx(sum(pairs) / len(pairs))


def judged(start: int, text: str, label: str, confidence: float, yes: float) -> tuple[TypedSpan, Verdict]:
    candidate = SpanCandidate(Span(start, start + len(text), text), ())
    return TypedSpan(candidate, label, confidence), Verdict(yes >= 0.5, yes, "v")


def trial_of(*sentences: VerifiedSentence, **method: object) -> dict[str, float]:
    manifest = Manifest(Mode.SCORED, {}, "v1", "p", "", "none")
    settings = MethodSettings.model_validate(method)
    trial = compared(VerifiedPool(sentences, 3.0), settings, manifest, verifier="v")
    assert trial.seconds_per_sentence == 3.0 / len(sentences)
    return {"off": trial.off, "soft": trial.soft.f1, "hard": trial.hard.f1, "auc": trial.auc or 0.0}


def test_the_three_kinds_are_what_a_document_would_get() -> None:
    text = "New York Times sued York."
    sentence = VerifiedSentence(
        SentenceEntities(
            Sentence(0, len(text), text),
            (
                judged(0, "New York", "place", 0.8, 0.0),  # wrong, and far likelier than the next one, which is right
                judged(0, "New York Times", "person", 0.25, 1.0),
                judged(20, "York", "place", 0.9, 0.4),  # right, but the verifier says no
            ),
        ),
        ((0, 14, "person"), (20, 24, "place")),
    )
    found = trial_of(sentence)
    assert found["off"] == pytest.approx(0.5)
    assert found["soft"] == pytest.approx(1.0)
    assert found["hard"] == pytest.approx(2 / 3)
    assert found["auc"] == 1.0
    assert trial_of(sentence, overlaps="nested")["off"] == pytest.approx(0.8)
    # 0.9 is above it, but not once the verifier's doubt has scaled it to 0.63.
    assert trial_of(sentence, min_confidence=0.85)["off"] == pytest.approx(2 / 3)
    assert trial_of(sentence, min_confidence=0.85)["soft"] == 0.0


class NoEncoder:
    name = fingerprint = states_fingerprint = "none"

    def encode(self, texts: object, spans: object) -> tuple[list[np.ndarray], Usage]:
        raise AssertionError("the pool has been read")


def evidence_of(labels: np.ndarray, seed: int) -> tuple[Evidence, PoolSpans]:
    states = np.random.default_rng(seed).normal(size=(SENTENCES * SPANS, 2, 6)).astype(np.float32)
    spans = PoolSpans(
        tuple(f"sentence {number}" for number in range(SENTENCES)),
        (tuple(Span(at, at + 1, "x") for at in range(SPANS)),) * SENTENCES,
        labels.astype(np.int64),
        np.repeat(np.arange(SENTENCES), SPANS),
        np.ones(SENTENCES * SPANS, dtype=np.bool_),
    )
    source = StateSource(NoEncoder(), SpanMemory.of(states), spans, 3, ["neighbours", "prototypes"])
    return Evidence([source], even_calibration([source], spans), TYPES), spans


@settings(max_examples=examples(25), deadline=None)
@given(st.integers(0, 9), st.integers(0, SENTENCES - 1), st.permutations(range(SPANS)))
def test_a_sentence_is_never_typed_by_its_own_labels(seed: int, place: int, order: list[int]) -> None:
    """Whoever labels its spans the other way round gets the same types for it, with the same weights."""
    labels = np.random.default_rng(seed + 100).integers(0, 3, size=SENTENCES * SPANS)
    shuffled = labels.copy()
    own = slice(place * SPANS, (place + 1) * SPANS)
    shuffled[own] = labels[own][order]
    (before,), (after,) = (leave_one_out_types(*evidence_of(said, seed), [place], TYPES) for said in (labels, shuffled))
    assert [one.type for one in before] == [one.type for one in after]
    assert [one.confidence for one in before] == pytest.approx([one.confidence for one in after])


def test_types_are_of_the_sentences_that_were_asked_for_and_of_proposals_only() -> None:
    evidence, spans = evidence_of(np.zeros(SENTENCES * SPANS), 1)
    spans.proposed[7 * SPANS] = False
    everything = leave_one_out_types(evidence, spans, list(range(SENTENCES)), TYPES)
    assert leave_one_out_types(evidence, spans, [2, 7], TYPES) == [everything[2], everything[7]]
    assert [len(everything[2]), len(everything[7])] == [SPANS, SPANS - 1]
    assert leave_one_out_types(evidence, spans, [], TYPES) == []
