"""What an engine answers is checked where it comes in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from el4ner.engines import checks
from el4ner.engines.base import (
    LAYERS,
    CandidateScore,
    GenerateRequest,
    GenerateResult,
    Prompt,
    ScoreItem,
    ScoreRequest,
    ScoreResult,
    StateRequest,
    StateResult,
)
from el4ner.engines.instant import InstantEngine
from el4ner.errors import EngineError
from el4ner.types import Usage

PROMPT = Prompt("system", "user")
SCORE = ScoreRequest(PROMPT, (ScoreItem("- Ada:", (" person", " place")), ScoreItem("- Rome:", (" place",))))


class Talking(InstantEngine):
    """Answers as it is told."""

    def __init__(self, *, scores: Sequence[ScoreResult] = (), texts: Sequence[GenerateResult] = ()) -> None:
        super().__init__("talking")
        self._scores, self._texts = list(scores), list(texts)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        return self._scores

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        return self._texts


class Showing(Talking):
    """And shows states."""

    hidden_size = 3

    def __init__(self, states: Sequence[StateResult]) -> None:
        super().__init__()
        self._states = list(states)

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        return self._states


def scored(*values: Sequence[float]) -> ScoreResult:
    return ScoreResult(tuple(tuple(CandidateScore(one, 1) for one in own) for own in values), Usage())


def test_good_answers_pass_unchanged() -> None:
    good = [scored((-0.5, -1.0), (0.0,))]
    assert checks.score(Talking(scores=good), [SCORE]) == good
    texts = [GenerateResult("- Ada", True, Usage())]
    assert checks.generate(Talking(texts=texts), [GenerateRequest(PROMPT, 5)]) == texts
    states = [StateResult(np.zeros((1, LAYERS, 3), dtype=np.float32), Usage())]
    assert checks.states(Showing(states), [StateRequest(PROMPT, ("- Ada",))]) == states


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [scored((-0.5, -1.0), (0.0,))] * 2,
        [scored((-0.5, -1.0))],
        [scored((-0.5,), (0.0,))],
        [scored((float("nan"), -1.0), (0.0,))],
        [scored((float("-inf"), -1.0), (0.0,))],
        [scored((0.5, -1.0), (0.0,))],
    ],
    ids=["nothing", "too many", "an item short", "a candidate short", "nan", "infinite", "above 0"],
)
def test_scores_of_another_form_are_garbage(bad: list[ScoreResult]) -> None:
    with pytest.raises(EngineError, match="talking gave") as raised:
        checks.score(Talking(scores=bad), [SCORE])
    assert raised.value.code == "engine-garbage"


def test_texts_and_states_of_another_form_are_garbage() -> None:
    with pytest.raises(EngineError, match="0 results to 1 requests"):
        checks.generate(Talking(), [GenerateRequest(PROMPT, 5)])
    with pytest.raises(EngineError, match="bytes instead of text"):
        checks.generate(
            Talking(texts=[GenerateResult(b"- Ada", True, Usage())]),  # type: ignore[arg-type]
            [GenerateRequest(PROMPT, 5)],
        )
    for broken in (np.zeros((2, LAYERS, 3)), np.full((1, LAYERS, 3), np.nan)):
        with pytest.raises(EngineError, match="gave states"):
            checks.states(Showing([StateResult(broken, Usage())]), [StateRequest(PROMPT, ("- Ada",))])


def test_there_is_a_state_for_every_mark() -> None:
    request = StateRequest(PROMPT, ("- Ada", "- Bob"), ((3, 5), ()))
    good = StateResult(np.zeros((3, LAYERS, 3), dtype=np.float32), Usage())
    assert checks.states(Showing([good]), [request]) == [good]
    with pytest.raises(EngineError, match=r"gave states of the shape \(2, 2, 3\) instead of \(3, 2, 3\)"):
        checks.states(Showing([StateResult(np.zeros((2, LAYERS, 3), dtype=np.float32), Usage())]), [request])
