"""Judging spans by a pool's evidence: who is asked about what, and whose votes a judgement names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from el4ner.evidence import Calibration, Evidence, SentenceQuestion
from el4ner.evidence.calibration import NEVER, Step
from el4ner.evidence.combination import Combination
from el4ner.evidence.evidence import Judgement
from el4ner.evidence.judges import Floats, Ints
from el4ner.evidence.span_memory import PoolSpans
from el4ner.types import Span, Usage

TYPES = ("person", "place")
TEXT = "Ada Bob Cem Rome"
ADA, BOB, CEM, ROME = (Span(TEXT.index(word), TEXT.index(word) + len(word), word) for word in TEXT.split(" "))
Beliefs = Mapping[str, tuple[float, float, float]]


class Believing:
    """Says of a surface what it believes (person, place, none), as one feature; keeps what it was asked."""

    features = ("belief",)
    fingerprint = "f"

    def __init__(self, name: str, beliefs: Beliefs, *, voter: str = "") -> None:
        self.name = name
        self.voter = voter or name
        self._beliefs = beliefs
        self.asked: list[SentenceQuestion] = []

    def answer(self, questions: Sequence[SentenceQuestion]) -> tuple[list[Floats], Usage]:
        self.asked += questions
        answers = [np.log(np.asarray([[self._beliefs[one.text]] for one in q.spans], np.float32)) for q in questions]
        return answers, Usage(10 * len(questions), 1, 0)

    def leave_one_out(self, spans: PoolSpans, rows: Ints, sentences: Sequence[int]) -> Floats:
        raise AssertionError("nothing is estimated here")


SURE_PERSON, SURE_PLACE, SURE_NONE = (0.96, 0.02, 0.02), (0.02, 0.96, 0.02), (0.02, 0.02, 0.96)
RATHER_PERSON, RATHER_PLACE = (0.5, 0.4, 0.1), (0.4, 0.5, 0.1)


def evidence(*sources: Believing, margin: float = 0.8, adaptive: bool = True, **more: float) -> Evidence:
    """Every source counts the same; a span is settled as soon as its margin is large enough."""
    steps = tuple(
        Step(
            source.name,
            Combination((1 / number,) * number, **more),
            None if number == len(sources) else margin,
            None,
        )
        for number, source in enumerate(sources, start=1)
    )
    return Evidence(sources[::-1], Calibration("key", steps, None, 0, 0), TYPES, adaptive=adaptive)


def types(judged: Sequence[Sequence[Judgement]]) -> list[list[str]]:
    return [[one.type for one in own] for own in judged]


def test_every_span_of_every_question_is_judged_in_order() -> None:
    one = Believing("a", {"Ada": SURE_PERSON, "Bob": SURE_NONE, "Cem": RATHER_PERSON, "Rome": SURE_PLACE})
    judged, usage = evidence(one).judge(
        [SentenceQuestion(TEXT, (ROME, ADA)), SentenceQuestion("", ()), SentenceQuestion(TEXT, (BOB, CEM, ADA), (3, 1))]
    )
    assert types(judged) == [["place", "person"], [], ["none", "person", "person"]]
    assert [round(found.confidence, 2) for found in judged[2]] == [0.96, 0.5, 0.96]
    assert judged[0][0].votes == {"a": "place"}
    assert usage == Usage(20, 1, 0), "nothing is asked about a sentence without spans"
    assert [question.demonstrations for question in one.asked] == [(), (3, 1)]
    assert [question.spans for question in one.asked] == [(ROME, ADA), (BOB, CEM, ADA)]


@pytest.mark.parametrize(
    "questions", [[], [SentenceQuestion(TEXT, ())], [SentenceQuestion("", ()), SentenceQuestion(TEXT, ())]]
)
def test_nobody_is_asked_about_nothing(questions: list[SentenceQuestion]) -> None:
    one = Believing("a", {})
    judged, usage = evidence(one).judge(questions)
    assert judged == [[] for _ in questions]
    assert usage == Usage()
    assert one.asked == []


def test_later_sources_are_asked_only_about_what_is_not_clear() -> None:
    first = Believing("a", {"Ada": SURE_PERSON, "Bob": RATHER_PERSON, "Cem": RATHER_PERSON, "Rome": SURE_PLACE})
    second = Believing("b", {"Bob": SURE_PLACE, "Cem": RATHER_PLACE})
    third = Believing("c", {"Cem": SURE_NONE})
    questions = [
        SentenceQuestion(TEXT, (ADA, BOB), (7,)),
        SentenceQuestion(TEXT, (ROME,)),
        SentenceQuestion(TEXT, (CEM, ADA), (9,)),
    ]
    judged, usage = evidence(first, second, third, margin=0.5).judge(questions)
    assert types(judged) == [["person", "place"], ["place"], ["none", "person"]]
    assert [question.spans for question in second.asked] == [(BOB,), (CEM,)]
    assert [question.demonstrations for question in second.asked] == [(7,), (9,)]
    assert [question.spans for question in third.asked] == [(CEM,)]
    assert usage == Usage(30 + 20 + 10, 3, 0)


def test_a_judgement_names_the_votes_of_those_that_were_asked() -> None:
    first = Believing("a", {"Ada": SURE_PERSON, "Bob": RATHER_PERSON})
    second = Believing("b", {"Bob": SURE_PLACE})
    (judged,), _ = evidence(first, second).judge([SentenceQuestion(TEXT, (ADA, BOB))])
    assert [dict(one.votes) for one in judged] == [{"a": "person"}, {"a": "person", "b": "place"}]


def test_a_members_vote_is_one_whatever_ways_it_was_asked_in() -> None:
    states = Believing("a", {"Bob": (0.6, 0.3, 0.1)})
    context = Believing("a in context", {"Bob": (0.05, 0.9, 0.05)}, voter="a")
    ((judged,),), _ = evidence(states, context).judge([SentenceQuestion(TEXT, (BOB,))])
    assert judged.votes == {"a": "place"}


def test_all_sources_are_asked_about_all_spans_where_nothing_is_settled_early() -> None:
    def sources() -> list[Believing]:
        return [Believing(name, {"Ada": SURE_PERSON, "Bob": RATHER_PLACE}) for name in "ab"]

    asks: list[Callable[[list[Believing]], Evidence]] = [
        lambda made: evidence(*made, adaptive=False),
        lambda made: evidence(*made, margin=NEVER),
    ]
    for ask in asks:
        made = sources()
        (judged,), _ = ask(made).judge([SentenceQuestion(TEXT, (ADA, BOB))])
        assert [one.asked[0].spans for one in made] == [(ADA, BOB)] * 2
        assert [set(one.votes) for one in judged] == [{"a", "b"}] * 2


def test_the_judgement_does_not_depend_on_the_batch() -> None:
    beliefs = {"Ada": SURE_PERSON, "Bob": RATHER_PERSON, "Cem": (0.3, 0.3, 0.4), "Rome": RATHER_PLACE}
    made = evidence(Believing("a", beliefs), Believing("b", beliefs))
    questions = [
        SentenceQuestion(TEXT, (ADA, CEM)),
        SentenceQuestion(TEXT, (BOB,)),
        SentenceQuestion(TEXT, (ROME, BOB, ADA)),
    ]
    assert made.judge(questions)[0] == [made.judge([question])[0][0] for question in questions]


def test_a_confidence_is_what_was_found_on_the_pool_and_that_of_none_is_its_probability() -> None:
    one = Believing("a", {"Ada": RATHER_PERSON, "Bob": (0.25, 0.25, 0.5)})
    (plain,), _ = evidence(one).judge([SentenceQuestion(TEXT, (ADA, BOB))])
    (shifted,), _ = evidence(one, slope=1.0, offset=2.0).judge([SentenceQuestion(TEXT, (ADA, BOB))])
    assert [round(found.confidence, 3) for found in plain] == [0.5, 0.5]
    assert [round(found.confidence, 3) for found in shifted] == [0.881, 0.5]


def test_a_threshold_reports_what_is_less_likely_than_none() -> None:
    one = Believing("a", {"Ada": (0.3, 0.2, 0.5)})
    ((plain,),), _ = evidence(one).judge([SentenceQuestion(TEXT, (ADA,))])
    ((eager,),), _ = evidence(one, threshold=-1.0).judge([SentenceQuestion(TEXT, (ADA,))])
    assert (plain.type, eager.type) == ("none", "person")
    assert eager.confidence == pytest.approx(0.3)


def test_the_fingerprint_follows_the_weights_and_whether_spans_are_settled_early() -> None:
    one = Believing("a", {})
    plain = evidence(one)
    assert plain.fingerprint == evidence(one).fingerprint
    others = {evidence(one, adaptive=False).fingerprint, evidence(one, threshold=-1.0).fingerprint}
    assert len(others - {plain.fingerprint}) == 2
