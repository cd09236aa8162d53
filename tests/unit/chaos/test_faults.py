"""The chaos suite's engine: it fails where it is told to, and nowhere else."""

from __future__ import annotations

import math

import pytest

from el4ner.engines.base import GenerateRequest, Prompt, ScoreItem, ScoreRequest
from el4ner.errors import EngineError, EngineOutOfMemoryError
from tests.chaos.faults import FaultyEngine, word


def score(*texts: str, stages: tuple[str, ...] = ("classify",)) -> list[float]:
    """The log-probabilities of all candidates of every text."""
    requests = [ScoreRequest(Prompt("", text), (ScoreItem("?", ("yes", "no")),)) for text in texts]
    results = FaultyEngine("a", stages=stages).score(requests)
    return [candidate.logprob for result in results for item in result.scores for candidate in item]


def test_without_a_word_every_answer_is_right() -> None:
    assert all(value < 0 for value in score("Ada in York", "Otto in Lyon"))


@pytest.mark.parametrize(("kind", "error"), [("memory", EngineOutOfMemoryError), ("error", EngineError)])
def test_a_word_makes_the_engine_of_its_stage_fail(kind: str, error: type[EngineError]) -> None:
    text = f"Ada met {word(kind, 'classify')}"
    with pytest.raises(error):
        score("Otto in Lyon", text)
    with pytest.raises(error):
        score(text)
    assert len(score(text, stages=("validate",))) == 2


def test_a_crowd_is_too_much_and_one_is_not() -> None:
    text = f"Ada met {word('crowd', 'classify')}"
    with pytest.raises(EngineOutOfMemoryError):
        score(text, "Otto in Lyon")
    assert len(score(text)) == 2


def test_garbage_is_garbage_of_that_document_only() -> None:
    assert len(score("Otto in Lyon", word("count", "classify"))) == 2
    good, bad = score("Otto in Lyon", word("nan", "classify"))[:2], score(word("nan", "classify"))
    assert all(value < 0 for value in good)
    assert all(math.isnan(value) for value in bad)
    assert all(value > 0 for value in score(word("positive", "classify")))


def test_generated_text_may_hold_what_no_text_should() -> None:
    engine = FaultyEngine("a", stages=["extract"])
    (result,) = engine.generate([GenerateRequest(Prompt("", word("control", "extract")), 96)])
    assert "\x1b" in result.text
    assert "\ud800" in result.text


def test_there_is_no_other_word() -> None:
    with pytest.raises(ValueError, match="no fault"):
        word("hang", "aggregate")
    with pytest.raises(ValueError, match="no fault"):
        word("flood", "extract")
