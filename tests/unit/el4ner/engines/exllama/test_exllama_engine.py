"""The driver of the GPU engines over a tiny model on the processor: the conformance suite, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from el4ner.engines.base import GenerateRequest, Interruptible, ScoreItem, ScoreRequest
from el4ner.engines.exllama.exllama_engine import ExllamaEngine
from el4ner.engines.torch.transformers_engine import TransformersEngine
from el4ner.errors import EngineAwayError, EngineError, EngineOutOfMemoryError, ModelError
from tests.support.engine_conformance import (
    CANDIDATES,
    SENTENCES,
    TAILS,
    EngineConformance,
    StateConformance,
    closes_for_good,
    logprobs,
    prompt,
    score_request,
    state_request,
)
from tests.support.tiny_models import tiny_llama
from tests.support.torch_backend import TorchBackend


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama", layers=3)


Load = Callable[..., tuple[ExllamaEngine, TorchBackend]]


@pytest.fixture(scope="module")
def load(folder: Path) -> Load:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def loader(
        *, clock: Any = None, batch_seconds: float = 60.0, **settings: Any
    ) -> tuple[ExllamaEngine, TorchBackend]:
        backend = TorchBackend(model, **settings)
        more = {} if clock is None else {"clock": clock}
        engine = ExllamaEngine("tiny", backend, tokenizer, fingerprint="x", batch_seconds=batch_seconds, **more)
        return engine, backend

    return loader


@pytest.fixture(scope="module")
def plain(load: Load) -> ExllamaEngine:
    return load()[0]


@pytest.fixture(scope="module")
def narrow(load: Load) -> ExllamaEngine:
    """One answer and two rows at a time, and a cache that holds one or two prompts."""
    return load(max_jobs=1, max_rows=2, cache_tokens=1200)[0]


class TestDriver(EngineConformance, StateConformance):
    @pytest.fixture
    def engine(self, plain: ExllamaEngine) -> ExllamaEngine:
        return plain


class TestNarrowDriver(EngineConformance, StateConformance):
    @pytest.fixture
    def engine(self, narrow: ExllamaEngine) -> ExllamaEngine:
        return narrow


def test_says_the_same_as_the_transformers_engine(load: Load, folder: Path, tmp_path: Path) -> None:
    engine, _ = load()
    other = TransformersEngine.load("tiny", folder, dtype="float32", cache_dir=tmp_path)
    requests = [score_request(sentence) for sentence in SENTENCES]
    requests.append(ScoreRequest(prompt(SENTENCES[0], "The"), (ScoreItem("", CANDIDATES), ScoreItem(" x", ("", " y")))))
    for one, two in zip(engine.score(requests), other.score(requests), strict=True):
        assert logprobs(one) == pytest.approx(logprobs(two), abs=1e-3)
        assert [[score.tokens for score in item] for item in one.scores] == [
            [score.tokens for score in item] for item in two.scores
        ]
    written = [GenerateRequest(prompt(sentence, "Names:"), 12) for sentence in SENTENCES]
    assert [result.text for result in engine.generate(written)] == [result.text for result in other.generate(written)]
    states = [state_request(sentence) for sentence in SENTENCES]
    for left, right in zip(engine.states(states), other.states(states), strict=True):
        assert left.states == pytest.approx(right.states, abs=1e-3)
    other.close()


def test_all_answers_of_a_call_are_written_together_and_new_ones_begin_as_others_end(load: Load) -> None:
    engine, backend = load(max_jobs=3)
    counts = (2, 9, 3, 4, 2, 5)
    engine.generate([GenerateRequest(prompt(f"{number}"), count) for number, count in enumerate(counts)])
    assert max(backend.together) == 3
    assert backend.steps < sum(counts) / 2


def test_a_tail_longer_than_a_page_is_read_as_part_of_the_prompt(load: Load) -> None:
    engine, _ = load()
    tail = "\n- " + "the kernel module nvidia-drm on host web-17, " * 8
    asked = prompt(SENTENCES[0])
    (long,) = engine.score([ScoreRequest(asked, (ScoreItem(tail, CANDIDATES), ScoreItem("\n- x", CANDIDATES)))])
    (as_answer,) = engine.score([ScoreRequest(prompt(SENTENCES[0], tail), (ScoreItem("", CANDIDATES),))])
    assert logprobs(long)[: len(CANDIDATES)] == pytest.approx(logprobs(as_answer), abs=1e-3)
    one, two = engine.states([state_request(SENTENCES[0], (tail, "\n- x")), state_request(SENTENCES[0], (tail,))])
    assert one.states[:1] == pytest.approx(two.states, abs=1e-3)


def test_a_candidate_longer_than_a_page_is_an_error(load: Load) -> None:
    engine, _ = load()
    with pytest.raises(EngineError, match=r"a candidate takes \d+ tokens"):
        engine.score([ScoreRequest(prompt("a"), (ScoreItem(" is", ("0123456789" * 30, " x")),))])


class TestMemory:
    def test_when_it_runs_out_fewer_answers_are_written_at_a_time_and_none_is_lost(self, load: Load) -> None:
        engine, backend = load(max_jobs=8)
        asked = [GenerateRequest(prompt(sentence, "Names:"), 6) for sentence in SENTENCES]
        expected = [result.text for result in engine.generate(asked)]
        backend.together.clear()
        backend.faults = [torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError("again")]
        assert [result.text for result in engine.generate(asked)] == expected
        assert backend.restarts == 2
        assert max(backend.together) == 2

    def test_answers_that_were_finished_before_are_not_written_again(self, load: Load) -> None:
        engine, backend = load()
        short, long = GenerateRequest(prompt("a"), 1), GenerateRequest(prompt("b"), 8)
        (expected,) = engine.generate([long])
        step, backend.steps = backend.step, 0

        def failing() -> Any:
            if backend.steps == 4:
                backend.steps = 100
                raise torch.OutOfMemoryError("CUDA out of memory")
            return step()

        backend.step = failing  # type: ignore[method-assign]
        results = engine.generate([short, long])
        assert results[1].text == expected.text
        assert results[0].usage.new_tokens == 1
        assert backend.restarts == 1

    def test_when_it_runs_out_fewer_rows_are_read_at_a_time(self, load: Load) -> None:
        engine, backend = load(max_rows=16)
        requests = [score_request(sentence) for sentence in SENTENCES]
        expected = [logprobs(result) for result in engine.score(requests)]
        assert max(backend.widths) > 4
        backend.widths.clear()
        backend.faults = [torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError("again")]
        found = [logprobs(result) for result in engine.score(requests)]
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=1e-4)
        assert max(backend.widths) <= 4

    def test_without_memory_for_one_it_is_an_error_of_its_own_kind(self, load: Load) -> None:
        engine, backend = load(max_jobs=2, max_rows=2)
        backend.faults = [torch.OutOfMemoryError("CUDA out of memory")] * 2
        with pytest.raises(EngineOutOfMemoryError, match="one answer"):
            engine.generate([GenerateRequest(prompt("a"), 4)])
        backend.faults = [torch.OutOfMemoryError("CUDA out of memory")] * 2
        with pytest.raises(EngineOutOfMemoryError, match="one row"):
            engine.score([score_request("a")])
        assert engine.generate([GenerateRequest(prompt("a"), 4)])[0].usage.new_tokens


class TestFaults:
    def test_after_one_the_model_is_started_anew_and_the_queue_goes_on(self, load: Load) -> None:
        engine, backend = load()
        asked = [GenerateRequest(prompt(sentence, "Names:"), 6) for sentence in SENTENCES]
        expected = [result.text for result in engine.generate(asked)]
        backend.faults = [AssertionError("page table")]
        assert [result.text for result in engine.generate(asked)] == expected
        backend.faults = [RuntimeError("CUDA error: unspecified launch failure")]
        assert engine.score([score_request(SENTENCES[0])])
        assert backend.restarts == 2

    def test_after_two_the_call_fails_and_the_next_one_is_answered(self, load: Load) -> None:
        engine, backend = load()
        for call in (
            lambda: engine.generate([GenerateRequest(prompt("a"), 4)]),
            lambda: engine.score([score_request("a")]),
            lambda: engine.states([state_request("a")]),
        ):
            backend.faults = [RuntimeError("CUDA error"), RuntimeError("CUDA error again")]
            with pytest.raises(EngineError, match="tiny: the model failed: CUDA error again"):
                call()
            assert call()


class TestEnds:
    def test_a_call_ends_at_its_deadline_and_the_next_one_is_answered(self, load: Load) -> None:
        now = [0.0]
        engine, backend = load(clock=lambda: now[0], batch_seconds=5.0)
        step = backend.step

        def slow() -> Any:
            now[0] += 1.0
            return step()

        backend.step = slow  # type: ignore[method-assign]
        with pytest.raises(EngineError, match=r"within 5 seconds \(exllama.batch_seconds\)") as caught:
            engine.generate([GenerateRequest(prompt("a"), 200)])
        assert caught.value.code == "engine-deadline"
        assert not caught.value.transient
        assert engine.generate([GenerateRequest(prompt("a"), 3)])[0].usage.new_tokens
        assert engine.score([score_request("a")])

    def test_a_call_ends_when_the_engine_is_interrupted(self, load: Load) -> None:
        engine, backend = load()
        assert isinstance(engine, Interruptible)
        step = backend.step

        def interrupting() -> Any:
            if backend.steps == 3:
                thread = threading.Thread(target=engine.interrupt)
                thread.start()
                thread.join()
            return step()

        backend.step = interrupting  # type: ignore[method-assign]
        with pytest.raises(EngineAwayError, match="interrupted"):
            engine.generate([GenerateRequest(prompt("a"), 500)])
        assert backend.steps == 4
        with pytest.raises(EngineAwayError, match="interrupted"):
            engine.score([score_request("a")])

    def test_closing_gives_the_model_back_once(self, load: Load) -> None:
        engine, backend = load()
        closes_for_good(engine)
        assert backend.closed


class TestCausalCheck:
    def test_a_model_that_reads_as_it_should_passes_and_forgets_the_prompt(self, load: Load) -> None:
        engine, _ = load()
        engine.check()
        (result,) = engine.generate([GenerateRequest(prompt("a"), 1)])
        assert result.usage.cached_tokens == 0

    def test_a_model_that_sees_what_comes_later_is_refused_with_one_line(self, load: Load) -> None:
        engine, _ = load(causal=False)
        with pytest.raises(ModelError, match=r"^tiny: a prompt of 330 tokens that is read at once and in pieces is .*"):
            engine.check()


def test_every_tail_is_answered_also_when_pages_are_few(load: Load) -> None:
    engine, _ = load(max_rows=1)
    (result,) = engine.states([state_request(SENTENCES[0])])
    assert len(result.states) == len(TAILS)
