"""The ExLlamaV2 backend over the library's own generator and pages, on the processor
(:mod:`tests.support.cpu_exllamav2`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from el4ner.config import ExllamaSettings
from el4ner.engines.base import GenerateRequest
from el4ner.engines.exllama.exllama_engine import ExllamaEngine
from el4ner.engines.exllama.paged_attention import Attention
from el4ner.engines.torch.transformers_engine import TransformersEngine
from tests.support import flash_kernel
from tests.support.cpu_exllamav2 import make_backend
from tests.support.engine_conformance import (
    SENTENCES,
    EngineConformance,
    StateConformance,
    logprobs,
    prompt,
    score_request,
    state_request,
)

Load = Callable[..., tuple[ExllamaEngine, Any]]


@pytest.fixture(scope="module")
def load(library: Any, folder: Path) -> Load:
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def loader(
        *, chunk_tokens: int = 512, attention: Attention = "torch", **settings: Any
    ) -> tuple[ExllamaEngine, Any]:
        backend, model = make_backend(
            library, folder, ExllamaSettings(**settings), chunk_tokens=chunk_tokens, attention=attention
        )
        return ExllamaEngine("tiny", backend, tokenizer, fingerprint="x", batch_seconds=120.0), model

    return loader


@pytest.fixture(scope="module")
def roomy(load: Load) -> ExllamaEngine:
    return load(cache_tokens=16_384)[0]


@pytest.fixture(scope="module")
def tight(load: Load) -> ExllamaEngine:
    """Eight pages for prompts, four for rows; two answers and three rows at a time."""
    return load(cache_tokens=3072, max_batch_size=2, score_rows=3, chunk_tokens=256)[0]


@pytest.fixture(scope="module")
def over_pages(load: Load) -> Iterator[ExllamaEngine]:
    with pytest.MonkeyPatch.context() as patch:
        flash_kernel.install(patch, dtypes=(torch.float16, torch.float32))
        yield load(cache_tokens=16_384, attention="varlen")[0]


@pytest.fixture(scope="module")
def over_gathered_keys(load: Load) -> Iterator[ExllamaEngine]:
    """As with torch before 2.12; and few pages."""
    with pytest.MonkeyPatch.context() as patch:
        flash_kernel.install(patch, pages=False, dtypes=(torch.float16, torch.float32))
        yield load(cache_tokens=3072, max_batch_size=2, score_rows=3, chunk_tokens=256, attention="varlen")[0]


class TestLibrary(EngineConformance, StateConformance):
    @pytest.fixture
    def engine(self, roomy: ExllamaEngine) -> ExllamaEngine:
        return roomy


class TestFewPages(EngineConformance, StateConformance):
    caches = False

    @pytest.fixture
    def engine(self, tight: ExllamaEngine) -> ExllamaEngine:
        return tight


class TestTorchsKernelOverPages(EngineConformance, StateConformance):
    @pytest.fixture
    def engine(self, over_pages: ExllamaEngine) -> ExllamaEngine:
        return over_pages


class TestTorchsKernelOverGatheredKeys(EngineConformance, StateConformance):
    caches = False

    @pytest.fixture
    def engine(self, over_gathered_keys: ExllamaEngine) -> ExllamaEngine:
        return over_gathered_keys


LONG = "The harbour office wrote down every name of the crew. " * 6
"""More than a page, so that rows share whole pages and copy one."""


def test_says_the_same_as_the_transformers_engine(load: Load, folder: Path, tmp_path: Path) -> None:
    engine, model = load(cache_tokens=16_384)
    other = TransformersEngine.load("tiny", folder, dtype="float32", cache_dir=tmp_path)
    sentences = [*SENTENCES, *(LONG + sentence for sentence in SENTENCES), LONG]
    requests = [score_request(sentence) for sentence in sentences]
    for one, two in zip(engine.score(requests), other.score(requests), strict=True):
        assert logprobs(one) == pytest.approx(logprobs(two), abs=1e-3)
    assert max(rows for rows, _ in model.passes) > len(requests), "rows of several prompts are read in one pass"
    written = [GenerateRequest(prompt(sentence, "Names:"), 12) for sentence in sentences]
    assert [result.text for result in engine.generate(written)] == [result.text for result in other.generate(written)]
    states = [state_request(sentence) for sentence in sentences]
    for left, right in zip(engine.states(states), other.states(states), strict=True):
        assert left.states == pytest.approx(right.states, abs=1e-3)
    other.close()


def test_prompts_that_begin_alike_share_their_pages(load: Load) -> None:
    engine, _ = load(cache_tokens=16_384)
    engine.score([score_request(LONG + "Ada.")])
    (result,) = engine.score([score_request(LONG + "Bob.")])
    assert result.usage.cached_tokens > 256
    (written,) = engine.generate([GenerateRequest(prompt(LONG + "Cem."), 4)])
    assert written.usage.cached_tokens > 256


def test_answers_are_written_together_and_scores_between_them_do_not_disturb(load: Load) -> None:
    engine, model = load(cache_tokens=8192, max_batch_size=4)
    asked = [GenerateRequest(prompt(sentence, "Names:"), 10) for sentence in (*SENTENCES, LONG)]
    expected = [result.text for result in engine.generate(asked)]
    engine.score([score_request(LONG)])
    model.passes.clear()
    assert [result.text for result in engine.generate(asked)] == expected
    assert max(rows for rows, width in model.passes if width == 1) == 4


def test_passes_the_causal_check(load: Load) -> None:
    engine, _ = load(cache_tokens=4096)
    engine.check()


def test_after_a_fault_the_generator_is_made_anew_and_the_call_goes_on(load: Load, monkeypatch: Any) -> None:
    engine, model = load(cache_tokens=8192)
    asked = [GenerateRequest(prompt(sentence, "Names:"), 10) for sentence in SENTENCES]
    expected = [result.text for result in engine.generate(asked)]
    scored = [logprobs(result) for result in engine.score([score_request(LONG)])]
    faults: list[BaseException] = []
    forward = model.forward_chunk

    def failing(*args: Any, **more: Any) -> Any:
        if len(model.passes) > 3 and faults:
            raise faults.pop()
        return forward(*args, **more)

    monkeypatch.setattr(model, "forward_chunk", failing)
    for fault in (RuntimeError("CUDA error: launch failed"), torch.OutOfMemoryError("CUDA out of memory")):
        engine.forget_prompts()
        model.passes.clear()
        faults.append(fault)
        assert [result.text for result in engine.generate(asked)] == expected
        assert not faults
        faults.append(fault)
        found = [logprobs(result) for result in engine.score([score_request(LONG)])]
        assert found[0] == pytest.approx(scored[0], abs=1e-4)
        assert not faults
