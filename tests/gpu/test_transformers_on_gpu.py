"""The transformers engine on a real GPU: rows together as rows one by one, recorded steps, and no waiting in a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from el4ner.engines.base import GenerateRequest
from el4ner.engines.torch.transformers_engine import TransformersEngine
from el4ner.models.prepare import default_cache_dir
from tests.support.engine_conformance import SENTENCES, logprobs, prompt, score_request, state_request

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

LONGER = [sentence + " They met again." * (40 * index) for index, sentence in enumerate(SENTENCES)]
"""Prompts of some tens to some hundreds of tokens."""


@pytest.fixture
def load(need: Callable[[str], None], small: Path) -> Iterator[Callable[..., TransformersEngine]]:
    need("transformers")
    loaded: list[TransformersEngine] = []

    def loader(**named: Any) -> TransformersEngine:
        loaded.append(TransformersEngine.load("member", small, device="cuda", cache_dir=default_cache_dir(), **named))
        return loaded[-1]

    yield loader
    for engine in loaded:
        engine.close()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_rows_together_are_scored_as_one_by_one(load: Callable[..., TransformersEngine], dtype: str) -> None:
    asked = [score_request(sentence) for sentence in LONGER]
    tolerance = 1e-3 if dtype == "float32" else 0.05
    together, one_by_one = load(dtype=dtype), load(dtype=dtype, attend="rows")
    for result, expected in zip(together.score(asked), one_by_one.score(asked), strict=True):
        for left, right in zip(logprobs(result), logprobs(expected), strict=True):
            assert abs(left - right) <= tolerance * (1 + abs(right)), (left, right)


def test_states_of_rows_together_point_where_those_one_by_one_do(load: Callable[..., TransformersEngine]) -> None:
    asked = [state_request(sentence) for sentence in LONGER]
    left = np.concatenate([result.states for result in load().states(asked)])
    right = np.concatenate([result.states for result in load(attend="rows").states(asked)])
    cosines = (left * right).sum(-1) / (np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1))
    assert cosines.min() > 0.99


def test_decoding_steps_are_recorded_and_answer_as_those_that_are_not(load: Callable[..., TransformersEngine]) -> None:
    asked = [GenerateRequest(prompt(sentence, "Names:"), 24) for sentence in LONGER]
    engine = load(dtype="float32")
    results = engine.generate(asked)
    graphs = engine._model._graphs
    assert graphs is not None
    assert graphs._recorded, "no step was recorded"
    assert not graphs._off, "recorded steps differed from those that are not: see the log"
    expected = load(dtype="float32", attend="rows").generate(asked)
    assert sum(left.text == right.text for left, right in zip(results, expected, strict=True)) >= len(asked) - 1


def test_nothing_in_a_pass_waits_for_the_device(load: Callable[..., TransformersEngine]) -> None:
    import torch

    engine = load()
    asked = [score_request(sentence) for sentence in LONGER]
    engine.score(asked)  # kernels and workspaces are there
    engine.forget_prompts()
    body = engine._model._body

    def without_waiting(*given: Any, **named: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return body(*given, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    engine._model._body = without_waiting
    engine.score(asked)
    engine.states([state_request(sentence) for sentence in LONGER])
    engine.generate([GenerateRequest(prompt(SENTENCES[0], "Names:"), 3)])
