"""What is written down for other processes is read as it was, and anything else is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.pools.pool import Pool, PoolSentence
from el4ner.repeats import (
    AgreedFormat,
    AgreedTypes,
    AnswersCarry,
    AnswersFormat,
    ExtractedAnchors,
    ExtractedFormat,
    SharedAnswers,
    StageMemory,
    VerdictsFormat,
)
from el4ner.repeats.carry import NOBODY, KeptAnswers, PlaceVotes
from el4ner.text.templates import Anchor, template_of
from el4ner.types import (
    NearTaught,
    Sentence,
    SentenceAnswers,
    SentenceCandidates,
    Span,
    SpanCandidate,
    TypedSpan,
    Usage,
    Verdict,
)
from tests.support.answer_stores import DictStore

POOL = Pool("p", {"person": "", "place": ""}, (PoolSentence("Ada left.", ()), PoolSentence("Bob stayed.", ())))
LABELS = ["person", "place", "none"]
FORMATS: list[Any] = [ExtractedFormat(POOL), AgreedFormat(POOL), AnswersFormat(POOL), VerdictsFormat("b")]
NUMBERS: list[Any] = [[1, 1, 3], "AAAAAAAAAAAAAAAA"]
COSINES: list[Any] = [[1, 1], "AAAAAA=="]
REFUSALS = (ValueError, TypeError, KeyError, IndexError, AttributeError)

PROBABILITIES = st.floats(0, 1)
VOTES = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(LABELS))
PLACES = st.builds(
    lambda first, skip, further, trim: Anchor(first, skip, first + further, trim),
    *[st.integers(0, 9)] * 4,
)
CANDIDATES = st.tuples(
    PLACES,
    st.lists(st.sampled_from(["a", "chunks"]), min_size=1, unique=True).map(tuple),
    st.none() | PROBABILITIES,
)
EXTRACTED = st.builds(
    lambda shown, candidates, dropped: ExtractedAnchors(
        tuple(shown),
        *(tuple(column) for column in zip(*candidates, strict=True)) if candidates else ((), (), ()),
        dropped,
    ),
    st.permutations([0, 1]),
    st.lists(CANDIDATES, max_size=4, unique_by=lambda candidate: candidate[0]).map(
        lambda candidates: sorted(
            candidates, key=lambda each: (each[0].first, each[0].skip, each[0].last, -each[0].trim)
        )
    ),
    st.integers(0, 5),
)


@st.composite
def agreed(draw: st.DrawFn) -> AgreedTypes:
    lines = draw(st.integers(1, 6))
    places = []
    for _ in range(draw(st.integers(0, 3))):
        labels = draw(st.lists(st.sampled_from(LABELS), min_size=1, unique=True))
        sums = {label: draw(st.floats(0, lines)) for label in labels}
        choices = {label: TypedSpan(NOBODY, label, draw(PROBABILITIES), draw(VOTES)) for label in labels}
        places.append(PlaceVotes(sums, choices))
    return AgreedTypes.of(lines, tuple(places))


def through_bytes(form: Any, kept: Any) -> Any:
    return form.from_json(orjson.loads(orjson.dumps(form.to_json(kept))))


@given(EXTRACTED)
def test_candidates(kept: ExtractedAnchors) -> None:
    assert through_bytes(ExtractedFormat(POOL), kept) == kept


@given(agreed())
def test_types(kept: AgreedTypes) -> None:
    assert through_bytes(AgreedFormat(POOL), kept) == kept


@given(st.lists(st.tuples(st.booleans(), PROBABILITIES), max_size=4))
def test_verdicts(said: list[tuple[bool, float]]) -> None:
    kept = tuple(Verdict(holds, probability, "b") for holds, probability in said)
    assert through_bytes(VerdictsFormat("b"), kept) == kept


@given(st.lists(VOTES, max_size=3), st.none() | st.tuples(st.integers(1, 3), st.integers(1, 2)), st.integers(0, 99))
def test_members_answers_bit_by_bit(votes: list[dict[str, str]], shape: tuple[int, int] | None, seed: int) -> None:
    said = None
    if shape is not None:
        said = np.random.default_rng(seed).standard_normal((*shape, len(LABELS))).astype(np.float32)
        said[0, 0, 0] = -np.inf
    again = through_bytes(AnswersFormat(POOL), KeptAnswers(tuple(votes), said))
    assert again.votes == tuple(votes)
    assert (again.said is None) == (said is None)
    if said is not None:
        assert again.said.tobytes() == said.tobytes()
        assert again.said.shape == said.shape


def test_what_members_mention_of_taught_spans_bit_by_bit() -> None:
    draw = np.random.default_rng(1)
    numbers = [draw.standard_normal(shape).astype(np.float32) for shape in ((2, 1, 3), (2, 2), (2, 4, 3))]
    near = NearTaught(("s", "t"), ("person", "none"), numbers[1], 4, numbers[2])
    again = through_bytes(AnswersFormat(POOL), KeptAnswers((), numbers[0], near))
    assert again.near.compared == near.compared
    assert AnswersFormat(POOL).from_json([[], NUMBERS, [["s"], ["person"], 2, COSINES, NUMBERS]]).near is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**53) | st.floats() | st.text(max_size=4) | st.sampled_from(LABELS),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.sampled_from(FORMATS), JSON)
def test_whatever_is_read_is_understood_or_refused(form: Any, data: Any) -> None:
    with contextlib.suppress(*REFUSALS):
        form.from_json(data)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (FORMATS[0], [[2], [], [], [], 0]),  # there are two sentences
        (FORMATS[0], [[0], [[0, 0, 0, 0], [0, 0, 0, 0]], [["a"], ["a"]], [None, None], 0]),  # twice
        (FORMATS[0], [[0], [[1, 0, 1, 0], [0, 0, 0, 0]], [["a"], ["a"]], [None, None], 0]),  # not in order
        (FORMATS[0], [[0], [[0, 0, 0, 0]], [[]], [None], 0]),  # by nobody
        (FORMATS[0], [[0], [[0, 0, 0, 0]], [["a"]], [1.5], 0]),
        (FORMATS[1], [1, [[["ship", 0.5, 0.5, {}]]]]),  # no such type
        (FORMATS[1], [1, [[["person", 0.5, 0.5, {"a": "ship"}]]]]),
        (FORMATS[1], [1, [[["person", 2.0, 0.5, {}]]]]),  # more than one line's
        (FORMATS[1], [0, []]),
        (FORMATS[1], [1, [[]]]),  # nothing was said of the place
        (FORMATS[2], [[], [[1, 1, 4], "AAAAAAAAAAAAAAAAAAAAAA=="], None]),  # four types
        (FORMATS[2], [[], [[1, 1, 3], "AAAA"], None]),  # too few bytes
        (FORMATS[2], [[], [[1, 1, 3], "AADAfwAAwH8AAMB/"], None]),  # not a number
        *(
            (
                FORMATS[2],
                [
                    [],
                    NUMBERS,
                    [[["s"], ["person"], 2, COSINES, NUMBERS][at] if at != wrong else bad for at in range(5)],
                ],
            )
            for wrong, bad in enumerate([["s", "t"], ["ship"], -1, NUMBERS, COSINES])
        ),
        (FORMATS[3], [[1, 0.5]]),
        (FORMATS[3], [[True, -0.5]]),
    ],
)
def test_what_cannot_be_an_answer_is_refused(form: Any, data: Any) -> None:
    with pytest.raises(REFUSALS):
        form.from_json(data)


def test_members_of_one_set_know_each_others_answers() -> None:
    store = DictStore()

    def ask(items: list[SentenceCandidates]) -> tuple[list[SentenceAnswers], Usage]:
        asked.extend(items)
        said = np.full((1, 2, len(LABELS)), -0.25, np.float32)
        return [
            SentenceAnswers(item.sentence, (0,), item.candidates, ({"a": "person"},), said) for item in items
        ], Usage()

    item = SentenceCandidates(Sentence(0, 9, "Ada left."), (0,), (SpanCandidate(Span(0, 3, "Ada"), ("chunks",), 0.5),))
    answers = []
    for _ in range(2):
        asked: list[SentenceCandidates] = []
        carry = AnswersCarry()
        shared = SharedAnswers(store, "classify", lambda: "decided", carry, AnswersFormat(POOL))
        answers += StageMemory(carry, 10, None, shared).answer([item], ask).answers
    assert asked == []
    assert answers[0] == answers[1]


def test_members_answers_about_another_number_of_candidates_fit_no_sentence() -> None:
    item = SentenceCandidates(Sentence(0, 9, "Ada left."), (), (SpanCandidate(Span(0, 3, "Ada"), ("chunks",), 0.5),))
    view = template_of("Ada left.")
    numbers, cosines = (np.zeros(shape, np.float32) for shape in ((1, 1, 3), (2, 1)))
    for kept in (
        KeptAnswers(({}, {}), None),
        KeptAnswers((), np.zeros((2, 1, len(LABELS)), np.float32)),
        KeptAnswers((), numbers, NearTaught(("s",), ("none",), cosines, 1, numbers)),
    ):
        with pytest.raises(ValueError, match="for each candidate"):
            AnswersCarry().recall(item, kept, view)
