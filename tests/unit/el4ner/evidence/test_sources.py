"""What a source says of spans, and of the pool's own ones as if their sentence were not in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from el4ner.engines.base import LAYERS, States
from el4ner.evidence.judges import Floats
from el4ner.evidence.sources import BoundarySource, SentenceQuestion, StateSource
from el4ner.evidence.span_memory import PoolSpans, SpanMemory
from el4ner.types import Span, Usage
from tests.support.evidence_worlds import KINDS, NONE, in_context, made_spans, noisy


class TableEncoder:
    """Raw states by surface."""

    name = "a"
    fingerprint = states_fingerprint = "f"

    def __init__(self, spans: PoolSpans, states: States) -> None:
        surfaces = [span.text for own in spans.spans for span in own]
        self.table = dict(zip(surfaces, states, strict=True))

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[list[States], Usage]:
        empty = np.zeros((0, LAYERS, 16), np.float32)
        found = [np.stack([self.table[one.text] for one in own]) if own else empty for own in spans]
        return found, Usage(len(texts), 0, 0)


def source(spans: PoolSpans, states: States, *using: str) -> StateSource:
    memory = SpanMemory.of(states)
    return StateSource(TableEncoder(spans, states), memory, spans, KINDS, using or ("neighbours", "prototypes"))  # type: ignore[arg-type]


def states_of(spans: PoolSpans, strength: float, seed: int = 0) -> States:
    states = np.random.default_rng(seed).standard_normal((len(spans.labels), LAYERS, 16)).astype(np.float32)
    states[np.arange(len(states)), :, spans.labels] += strength
    return states


def together(said: Floats) -> Floats:
    """Log-probabilities of types and none ``[spans, features / 2, types + none]``, of both questions: which type, and
    whether any."""
    return said[:, ::2] + said[:, 1::2]


def accuracy(said: Floats, spans: PoolSpans) -> list[float]:
    """Of each kind of evidence and layer, by both questions."""
    return [float((feature.argmax(axis=1) == spans.labels).mean()) for feature in together(said).transpose(1, 0, 2)]


def every(spans: PoolSpans) -> tuple[np.ndarray, list[int]]:
    return np.arange(len(spans.labels)), list(range(len(spans.texts)))


def test_features_are_the_kinds_of_evidence_by_layer_and_question() -> None:
    spans = made_spans()
    by_prototypes = (
        "prototypes middle",
        "prototypes middle entity",
        "prototypes last",
        "prototypes last entity",
    )
    by_neighbours = tuple(feature.replace("prototypes", "neighbours") for feature in by_prototypes)
    assert source(spans, states_of(spans, 1.0)).features == by_neighbours + by_prototypes
    assert source(spans, states_of(spans, 1.0), "prototypes").features == by_prototypes


def test_one_question_says_nothing_about_none_and_the_other_nothing_about_types() -> None:
    spans = made_spans()
    said = source(spans, states_of(spans, 2.0)).leave_one_out(spans, *every(spans))
    which, whether = said[:, ::2], said[:, 1::2]
    assert (which[:, :, NONE] == 0).all()
    assert np.exp(which[:, :, :NONE]).sum(axis=2) == pytest.approx(np.ones(which.shape[:2]), abs=1e-4)
    assert (whether[:, :, :NONE] == whether[:, :, :1]).all()


def test_where_boundaries_are_told_elsewhere_a_piece_of_an_entity_is_no_example_of_none() -> None:
    """All names are of one kind, and all that is none is a piece of one that looks just like it."""
    texts = tuple(f"Anna{number} Bell{number}" for number in range(30))
    names = [(Span(0, len(text), text), Span(0, text.index(" "), text[: text.index(" ")])) for text in texts]
    in_text = tuple(tuple(sorted(both)) for both in names)
    labels = np.array(
        [0 if span == whole else NONE for (whole, _), own in zip(names, in_text, strict=True) for span in own]
    )
    spans = PoolSpans(texts, in_text, labels, np.repeat(np.arange(30), 2), np.ones(60, bool))
    states = np.random.default_rng(0).standard_normal((30, LAYERS, 16)).astype(np.float32).repeat(2, axis=0)
    memory = SpanMemory.of(states)
    entities = {}
    for by_boundaries in (False, True):
        made = StateSource(
            TableEncoder(spans, states), memory, spans, KINDS, ("neighbours",), by_boundaries=by_boundaries
        )
        entities[by_boundaries] = np.exp(made.leave_one_out(spans, *every(spans))[:, 1, 0])
    assert abs(entities[False].mean() - 0.5) < 0.1, "it cannot tell"
    assert entities[True].min() > 0.8, "it says nothing against what is no entity by its boundaries alone"


def test_answers_are_for_every_span_of_every_question_in_order() -> None:
    spans = made_spans()
    made = source(spans, states_of(spans, 4.0))
    questions = [
        SentenceQuestion(spans.texts[3], spans.spans[3][::-1]),
        SentenceQuestion("nothing", ()),
        SentenceQuestion(spans.texts[0], spans.spans[0][:1]),
    ]
    answers, usage = made.answer(questions)
    assert [answer.shape for answer in answers] == [(4, 8, KINDS), (0, 8, KINDS), (1, 8, KINDS)]
    assert np.exp(together(answers[0])).sum(axis=2) == pytest.approx(np.ones((4, 4)), abs=1e-4)
    assert answers[0].mean(axis=1).argmax(axis=1).tolist() == spans.labels[12:16][::-1].tolist()
    (alone,), _ = made.answer(questions[2:])
    assert alone == pytest.approx(answers[2], abs=1e-4)
    assert usage == Usage(3, 0, 0)


@pytest.mark.parametrize("questions", [[], [SentenceQuestion("x", ())]])
def test_nothing_asked_is_nothing_answered(questions: list[SentenceQuestion]) -> None:
    spans = made_spans()
    answers, _ = source(spans, states_of(spans, 1.0)).answer(questions)
    assert [len(answer) for answer in answers] == [0] * len(questions)


def test_what_states_tell_is_found_by_leaving_one_sentence_out() -> None:
    spans = made_spans()
    said = source(spans, states_of(spans, 6.0)).leave_one_out(spans, *every(spans))
    assert min(accuracy(said, spans)) > 0.9


def test_states_that_tell_nothing_are_found_out() -> None:
    """Asked about spans that it knows, a source looks well whatever its states are: leave-one-out does not."""
    spans = made_spans(sentences=150)
    made = source(spans, states_of(spans, 0.0))
    known, _ = made.answer([SentenceQuestion(text, own) for text, own in zip(spans.texts, spans.spans, strict=True)])
    assert min(accuracy(np.concatenate(known)[:, :4], spans)) > 0.9
    honest = accuracy(made.leave_one_out(spans, *every(spans)), spans)
    assert max(abs(found - 1 / KINDS) for found in honest) < 0.08, "no better than chance"


def test_spans_of_a_sentence_do_not_give_each_other_away() -> None:
    """Sentences that are lists of one thing: all four spans look alike and have the same label, by chance."""
    plain = made_spans(sentences=150)
    labels = np.repeat(np.random.default_rng(1).integers(0, KINDS, 150), 4)
    spans = PoolSpans(plain.texts, plain.spans, labels, plain.sentences, plain.proposed)
    states = np.repeat(states_of(spans, 0.0)[::4], 4, axis=0)
    honest = accuracy(source(spans, states).leave_one_out(spans, *every(spans)), spans)
    assert max(abs(found - 1 / KINDS) for found in honest) < 0.12
    # Copies of a sentence, too: the second half says what the first one says.
    copies = PoolSpans(plain.texts, plain.spans, np.tile(labels[:300], 2), plain.sentences % 75, plain.proposed)
    honest = accuracy(source(copies, np.tile(states[:300], (2, 1, 1))).leave_one_out(copies, *every(copies)), copies)
    assert max(abs(found - 1 / KINDS) for found in honest) < 0.15


def test_rows_are_those_that_are_asked_for() -> None:
    spans = made_spans()
    made = source(spans, states_of(spans, 1.0))
    whole = made.leave_one_out(spans, *every(spans))
    some = made.leave_one_out(spans, np.asarray([4, 5, 6, 7, 40, 41, 42, 43]), [1, 10])
    assert some == pytest.approx(whole[[4, 5, 6, 7, 40, 41, 42, 43]], abs=1e-5)


def test_a_pool_with_hardly_any_spans_can_be_asked() -> None:
    empty = PoolSpans((), (), *(np.zeros(0, np.int64),) * 2, np.zeros(0, bool))
    nobody = source(made_spans(), states_of(made_spans(), 1.0))
    memory = SpanMemory.of(np.zeros((0, LAYERS, 16), np.float32))
    made = StateSource(nobody._encoder, memory, empty, KINDS, ("neighbours", "prototypes"))
    (answer,), _ = made.answer([SentenceQuestion(made_spans().texts[0], made_spans().spans[0])])
    assert np.exp(together(answer)) == pytest.approx(np.full((4, 4, KINDS), 1 / KINDS))


def test_boundaries_say_of_each_span_what_its_candidate_brings_along() -> None:
    made = BoundarySource("f", np.array([0.9, np.nan]), KINDS)
    spans = made_spans().spans[0][:3]
    question = SentenceQuestion(made_spans().texts[0], spans, boundaries=(0.8, None, 0.01))
    without = SentenceQuestion("x", spans[:1])
    (said, nothing), usage = made.answer([question, without])
    assert np.exp(said[:, 0]) == pytest.approx(np.array([[0.8, 0.8, 0.2], [0.5, 0.5, 0.5], [0.01, 0.01, 0.99]]))
    assert np.exp(nothing[:, 0]) == pytest.approx(np.full((1, KINDS), 0.5)), "of whom nothing is known"
    assert usage == Usage()
    left_out = made.leave_one_out(made_spans(), np.array([1, 0]), [0])
    assert np.exp(left_out[:, 0]) == pytest.approx(np.array([[0.5, 0.5, 0.5], [0.9, 0.9, 0.1]]))


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_a_boundary_of_which_a_message_is_certain_is_weighed_like_others(certain: float) -> None:
    question = SentenceQuestion("Ada", (Span(0, 3, "Ada"),), boundaries=(certain,))
    (said,), _ = BoundarySource("f", np.zeros(0), KINDS).answer([question])
    assert np.isfinite(said).all()
    assert said.min() > -12


def test_a_member_in_context_is_asked_with_demonstrations_of_the_sentence() -> None:
    spans = made_spans(sentences=20)
    made, questions = in_context("b", spans, noisy(spans.labels, 3.0, 1))
    assert (made.name, made.voter, made.features) == ("b in context", "b", ("type names",))
    rows = np.concatenate([np.arange(4 * place, 4 * place + 4) for place in (2, 3, 19)])
    said = made.leave_one_out(spans, rows, [2, 3, 19])
    assert said.shape == (12, 1, KINDS)
    assert said[:, 0].argmax(axis=1).tolist() == noisy(spans.labels, 3.0, 1)[rows, 0].argmax(axis=1).tolist()
    assert [question.text for question in questions] == [spans.texts[place] for place in (2, 3, 19)]
    assert all(question.demonstrations == (len(question.text),) for question in questions)
    assert NONE in said[:, 0].argmax(axis=1)
