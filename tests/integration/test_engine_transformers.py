"""The packaged models behind the transformers engine. The plain model, one sequence at a time, is the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from el4ner.engines.base import GenerateRequest, Prompt, ScoreItem, ScoreRequest
from el4ner.engines.torch.transformers_engine import TransformersEngine
from el4ner.models.prepare import default_cache_dir, prepare
from tests.support.engine_conformance import CANDIDATES, SENTENCES, EngineConformance, StateConformance, prompt

pytestmark = pytest.mark.models

LONG = "The quick brown fox of Berlin jumps over the lazy dog of Lyon. " * 45


def folder(name: str) -> Path:
    return prepare(f"packaged:{name}", default_cache_dir(os.environ))


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "gemma3-270m"])
def exact(request: pytest.FixtureRequest) -> Iterator[TransformersEngine]:
    engine = TransformersEngine.load(request.param, folder(request.param), dtype="float32", threads=1)
    yield engine
    engine.close()


# Gemma 3 promises in 16 bits what it promises in 32 every time, and SmolLM2 in 16.
@pytest.fixture(scope="module", params=["smollm2-135m-instruct", pytest.param("gemma3-270m", marks=pytest.mark.long)])
def rounded(request: pytest.FixtureRequest) -> Iterator[TransformersEngine]:
    engine = TransformersEngine.load(request.param, folder(request.param), dtype="bfloat16", threads=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(exact: TransformersEngine) -> Any:
    """The model as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(folder(exact.name), dtype=torch.float32).eval()


class TestInFloat32(EngineConformance, StateConformance):
    @pytest.fixture
    def engine(self, exact: TransformersEngine) -> TransformersEngine:
        return exact


@pytest.mark.slow  # the same promises as in 32 bits, up to more rounding
class TestInBfloat16(EngineConformance, StateConformance):
    tolerance = 0.05
    # Rounding came to 0.024 at the most among the 80 places of marked tails, on a busy machine once to more than 0.03;
    # other tails to 0.048 at the least.
    state_tolerance = 0.04

    @pytest.fixture
    def engine(self, rounded: TransformersEngine) -> TransformersEngine:
        return rounded


@pytest.mark.parametrize("sentence", [SENTENCES[0], LONG], ids=["short", "longer than the sliding window"])
def test_scores_are_those_of_the_plain_model(exact: TransformersEngine, plain: Any, sentence: str) -> None:
    asked = prompt(sentence, "Names:")
    items = tuple(ScoreItem(f'\n"{surface}" is a', CANDIDATES) for surface in ("Berlin", "the lazy dog"))
    (result,) = exact.score([ScoreRequest(asked, items)])
    renderer = exact._renderer
    worst = 0.0
    with torch.inference_mode():
        for item, scores in zip(items, result.scores, strict=True):
            for candidate, score in list(zip(item.candidates, scores, strict=True))[::4]:
                before = [*renderer.prefix(asked), *renderer.encode(item.tail)]
                tokens = renderer.encode(candidate)
                read = torch.tensor([[*before, *tokens]])
                logits = plain(read, use_cache=False, logits_to_keep=len(tokens) + 1).logits[0, :-1]
                expected = logits.log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)].sum().item()
                worst = max(worst, abs(expected - score.logprob))
    assert worst < 2e-3


def test_answers_are_those_of_plain_greedy_generation(exact: TransformersEngine, plain: Any) -> None:
    asked = prompt(SENTENCES[0], "Names:")
    (result,) = exact.generate([GenerateRequest(asked, 24)])
    ids = torch.tensor([exact._renderer.prefix(asked)])
    with torch.inference_mode():
        made = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    assert exact._renderer.decode(made[0, ids.shape[1] :].tolist()) == result.text


def test_the_models_know_where_paris_is(exact: TransformersEngine) -> None:
    asked = Prompt("", "Germany's capital is Berlin. Italy's capital is Rome.", "France's capital is")
    (result,) = exact.score([ScoreRequest(asked, (ScoreItem("", (" Paris", " Berlin", " purple")),))])
    best = max(result.scores[0], key=lambda score: score.logprob)
    assert best == result.scores[0][0]


def test_gemma_reads_words_and_begins_once() -> None:
    engine = TransformersEngine.load("gemma", folder("gemma3-270m"))
    tokens = engine._renderer.prefix(Prompt("", "The capital of France is"))
    assert tokens == (2, 818, 5279, 529, 7001, 563, 107)
    assert engine._renderer.encode("a\n\n\nb  c<eos>")[:4] == (236746, 109, 236763, 138)
    engine.close()


def test_smollm2_keeps_its_template_and_reads_digits_one_by_one() -> None:
    engine = TransformersEngine.load("smollm2", folder("smollm2-135m-instruct"))
    tokens = engine._renderer.prefix(Prompt("Be brief.", "1984?", "It is"))
    backend = engine._renderer._backend
    assert backend.decode(list(tokens), skip_special_tokens=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1984?<|im_end|>\n<|im_start|>assistant\nIt is"
    )
    assert len(engine._renderer.encode("1984")) == 4
    engine.close()
