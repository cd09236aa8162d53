"""What goes wrong on a real GPU: a wrong mask, too little memory, a library that fails, members beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from el4ner.engines.base import Engine, GenerateRequest, ScoreRequest
from el4ner.errors import ConfigError, EngineOutOfMemoryError, ModelError
from tests.support.engine_conformance import SENTENCES, logprobs, prompt, score_request

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

TOLERANCE = 0.05


def assert_close(one: list[float], other: list[float]) -> None:
    for left, right in zip(one, other, strict=True):
        assert abs(left - right) <= TOLERANCE * (1 + abs(right)), (left, right)


def flat(engine: Engine, requests: list[ScoreRequest]) -> list[float]:
    return [score for result in engine.score(requests) for score in logprobs(result)]


def test_attention_without_a_causal_mask_is_refused_and_the_right_one_is_not(
    load: Callable[..., Engine], need: Callable[[str], None], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("exllamav2")
    from el4ner.engines.exllama import paged_attention
    from el4ner.engines.exllama.causal import NOT_CAUSAL

    right = paged_attention.attention_with_cache

    def wrong(*given: Any, **named: Any) -> Any:
        return right(*given, **{**named, "causal": False})

    with monkeypatch.context() as patched:
        patched.setattr(paged_attention, "attention_with_cache", wrong)
        with pytest.raises(ModelError, match=r"nats apart .* does not mask what comes later") as refused:
            load("exllamav2", small, attention="torch")
        assert refused.value.code == NOT_CAUSAL
    assert flat(load("exllamav2", small, attention="torch"), [score_request(SENTENCES[0])])


def test_a_cache_that_is_too_small_for_the_method_is_refused(
    load: Callable[..., Engine], need: Callable[[str], None], small: Path
) -> None:
    need("exllamav2")
    with pytest.raises((ConfigError, ModelError), match="cache_tokens"):
        load("exllamav2", small, cache_tokens=1024)


@pytest.fixture
def _all_memory_again(need: Callable[[str], None]) -> Iterator[None]:
    import torch

    need("transformers")
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("_all_memory_again")
@pytest.mark.parametrize("driver", ["exllamav2", "exllamav3"])
def test_out_of_memory_halves_the_batch_and_goes_on(load: Callable[..., Engine], small: Path, driver: str) -> None:
    import torch

    engine = load(driver, small, score_rows=64)
    surfaces = [f"{word} {number}" for word in ("Paris", "Macron", "the president of Spain") for number in range(24)]
    asked = [score_request(f"{sentence} {'They met again. ' * 20}", surfaces=surfaces) for sentence in SENTENCES]
    expected = flat(engine, asked)
    total = torch.cuda.get_device_properties(0).total_memory
    for megabytes in (512, 256, 128, 64, 48, 32, 24, 16, 12, 8):
        torch.cuda.empty_cache()
        engine.forget_prompts()  # type: ignore[attr-defined]
        room = torch.cuda.memory_reserved() + (megabytes << 20)
        torch.cuda.set_per_process_memory_fraction(room / total)
        before = torch.cuda.memory_stats()["num_ooms"]
        try:
            found = flat(engine, asked)
        except EngineOutOfMemoryError:
            break
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert_close(found, expected)
        if torch.cuda.memory_stats()["num_ooms"] > before:
            assert_close(flat(engine, asked), expected)
            return
    pytest.fail("no limit was found under which memory runs out and a smaller batch passes")


def test_a_library_that_fails_once_is_started_anew_and_no_answer_is_lost(
    load: Callable[..., Engine], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = load("exllamav2", small, max_batch_size=3)
    asked = [
        GenerateRequest(prompt(f"{sentence} {number}", "Names:"), 12) for number, sentence in enumerate(SENTENCES * 2)
    ]
    expected = engine.generate(asked)
    generator = engine._backend._generator
    write = generator.iterate_gen
    calls = []

    def failing(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("a kernel failed")
        return write(*given, **named)

    monkeypatch.setattr(generator, "iterate_gen", failing)
    found = engine.generate(asked)
    assert len(calls) == 4
    assert engine._backend._generator is not generator
    assert [result.text[:4] for result in found] == [result.text[:4] for result in expected]
    assert flat(engine, [score_request(SENTENCES[0])])


def test_members_beside_each_other_on_one_gpu_answer_as_each_alone(load: Callable[..., Engine], small: Path) -> None:
    asked = [score_request(sentence) for sentence in SENTENCES]
    first = load("exllamav2", small, name="first", cache_tokens=8192)
    alone = flat(first, asked)
    second = load("exllamav2", small, name="second", cache_tokens=8192)
    third = load("transformers", small, name="third")
    for engine in (second, first, third, second):
        assert_close(flat(engine, asked), alone)
    second.close()
    assert_close(flat(first, asked), alone)
    assert first.generate([GenerateRequest(prompt(SENTENCES[0]), 4)])


def test_members_of_an_ensemble_tag_a_sentence(load: Callable[..., Engine], small: Path, tmp_path: Path) -> None:
    """The whole method with two members on one GPU, in both modes."""
    from el4ner.config import Settings, load_settings
    from el4ner.loader import pipeline_from
    from el4ner.pools import load_pool
    from el4ner.types import Document

    engines = {name: load("exllamav2", small, name=name, cache_tokens=8192) for name in ("one", "other")}
    for method in ({"mode": "paper"}, {"mode": "scored", "evidence": ("in_context",), "weights": "even"}):
        overrides = {
            "ensemble": {"members": list(engines)},
            "models": {name: {"source": str(small)} for name in engines},
            "pools": {"default": "news", "paths": {"news": "shipped:news"}},
            "retrieval": {"kind": "random"},
            "method": method,
        }
        settings = load_settings(Settings, environ={}, overrides=overrides)
        pool = load_pool("shipped:news", name="news")
        pipeline = pipeline_from(settings, engines, {"news": pool}, None, cache_dir=tmp_path)
        documents = [Document(str(number), sentence, "news") for number, sentence in enumerate(SENTENCES[:2])]
        results = pipeline.validate(pipeline.classify(pipeline.extract(documents)))
        assert [result.document.id for result in results] == ["0", "1"]
        for result in results:
            for sentence in result.sentences:
                for typed, _ in sentence.validated:
                    span = typed.candidate.span
                    assert result.document.text[span.start : span.end] == span.text
