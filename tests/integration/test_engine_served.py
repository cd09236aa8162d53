"""The engine for model servers against llama.cpp's own server with SmolLM2, on the processor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from el4ner.config import ModelSettings, ServerSettings, Settings, load_settings
from el4ner.engines.base import GenerateRequest, Interruptible, ScoreItem, ScoreRequest, ScoreResult, StateEngine
from el4ner.engines.registry import load_engine
from el4ner.engines.served.http_transport import Transport
from el4ner.engines.served.llama_cpp import LlamaCpp
from el4ner.engines.served.served_engine import ServedEngine
from el4ner.engines.torch.transformers_engine import TransformersEngine
from el4ner.errors import EngineAwayError, EngineError, ModelError
from el4ner.loader import load_pipeline
from el4ner.models.catalogue import CATALOGUE
from el4ner.models.prepare import default_cache_dir, prepare
from el4ner.tagger import Tagger
from el4ner.types import Document
from tests.support.engine_conformance import (
    SENTENCES,
    EngineConformance,
    closes_for_good,
    logprobs,
    prompt,
    score_request,
)
from tests.support.llama_server import LlamaServer, dequantised, llama_server

pytestmark = [pytest.mark.integration, pytest.mark.models]

SMOLLM2 = "packaged:smollm2-135m-instruct"
GEMMA3 = "packaged:gemma3-270m"
KEY = "a key of the tests"


@pytest.fixture(scope="module")
def gguf() -> Path:
    return CATALOGUE["smollm2-135m-instruct"].locate()[0]


@pytest.fixture(scope="module")
def server(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with llama_server(gguf, tmp_path_factory.mktemp("llama") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def exact_server(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """With the same weights in 32 bits: 540 MB, for as long as it runs."""
    folder = tmp_path_factory.mktemp("exact")
    whole = folder / "model.gguf"
    dequantised(gguf, whole)
    with llama_server(whole, folder / "log", exact=True) as running:
        yield running
    whole.unlink()


def settings(*urls: str, source: str = SMOLLM2, **server: Any) -> ModelSettings:
    return ModelSettings(
        source=source, engine="server", server=ServerSettings(urls=urls, **{"connections": 4, **server})
    )


Load = Callable[..., ServedEngine]


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    loaded: list[ServedEngine] = []

    def loader(*urls: str, **more: Any) -> ServedEngine:
        engine = load_engine("m", settings(*urls, **more), cache_dir=default_cache_dir())
        assert isinstance(engine, ServedEngine)
        loaded.append(engine)
        return engine

    yield loader
    for engine in loaded:
        engine.close()


@pytest.fixture(scope="module")
def smollm2(load: Load, server: LlamaServer) -> ServedEngine:
    return load(server.url)


@pytest.fixture(scope="module")
def exact(load: Load, exact_server: LlamaServer) -> ServedEngine:
    return load(exact_server.url)


@pytest.mark.slow  # that it says what torch says of the same weights is tested every time
class TestLlamaCpp(EngineConformance):
    """In 32 bits: what it said twice of the same thing was 0.00001 nats apart at the most."""

    @pytest.fixture
    def engine(self, exact: ServedEngine) -> ServedEngine:
        return exact


def test_says_what_it_is(exact: ServedEngine) -> None:
    assert exact.kind == "llama.cpp"
    assert exact.scores
    assert exact.constrains
    assert exact.context_length == 2047
    assert not isinstance(exact, StateEngine)
    assert isinstance(exact, Interruptible)


def apart(one: Sequence[ScoreResult], other: Sequence[ScoreResult]) -> float:
    """Nats between two answers to the same, at the most."""
    differences = [np.subtract(logprobs(x), logprobs(y)) for x, y in zip(one, other, strict=True)]
    return float(np.abs(np.concatenate(differences)).max())


def test_scores_and_answers_are_those_of_the_same_weights_in_torch(exact: ServedEngine, smollm2: ServedEngine) -> None:
    local = TransformersEngine.load("m", prepare(SMOLLM2, default_cache_dir()), dtype="float32")
    requests = [score_request(sentence, surfaces=("Paris", "Macron", "names")) for sentence in SENTENCES]
    ours = local.score(requests)
    assert apart(exact.score(requests), ours) < 2e-3  # 0.0006 when this was written, at log-probabilities of 2 to 21
    # With the weights in 4 bits llama.cpp rounds the activations to 8 bits: 0.07 nats for most, 0.5 at the most.
    assert apart(smollm2.score(requests), ours) < 1
    free = [GenerateRequest(prompt(sentence, "Names:"), 16) for sentence in SENTENCES]
    for theirs, own in zip(exact.generate(free), local.generate(free), strict=True):
        assert (theirs.text, theirs.finished) == (own.text, own.finished)
        assert theirs.usage.new_tokens == own.usage.new_tokens
    local.close()


def test_an_answer_may_fill_the_context_and_no_more(gguf: Path, load: Load, tmp_path: Path) -> None:
    with llama_server(gguf, tmp_path / "log", slots=2, context=512) as small:
        engine = load(small.url)
        room = engine.context_length
        asked = prompt("word " * (room - engine.count_tokens(prompt("")) - 6))
        left = room - engine.count_tokens(asked)
        assert 0 < left < 20
        (result,) = engine.generate([GenerateRequest(asked, left)])
        assert result.finished or result.usage.new_tokens == left
        (scored,) = engine.score([ScoreRequest(asked, (ScoreItem(" word" * (left - 1), (" word",)),))])
        assert scored.scores[0][0].logprob < 0
        for too_much in (left + 1, room):
            with pytest.raises(EngineError, match=f"tokens, the server reads {room}"):
                engine.generate([GenerateRequest(asked, too_much)])


def questions_of_four_prompts() -> list[ScoreRequest]:
    surfaces = ("Lisbon", "harbour", "Cais do Sodré", "ferry", "river")
    return [
        score_request(f"{number}: the ferry of Lisbon crosses the river under the bridge.", surfaces=surfaces)
        for number in range(4)
    ]


def test_questions_with_the_same_prompt_read_it_once(gguf: Path, load: Load, tmp_path: Path) -> None:
    """With one slot it shows: any other order of the questions would have a prompt read again."""
    sent: list[int] = []
    read = LlamaCpp.likelihoods

    def counting(self: LlamaCpp, answer: Any, wanted: Any) -> Any:
        sent.append(answer["timings"]["prompt_n"])
        return read(self, answer, wanted)

    with llama_server(gguf, tmp_path / "log", slots=1) as single, pytest.MonkeyPatch.context() as patch:
        engine = load(single.url, connections=16)
        engine.score([score_request(SENTENCES[0])])  # what all prompts begin with has been read
        patch.setattr(LlamaCpp, "likelihoods", counting)
        results = engine.score(questions_of_four_prompts())
    # Every question reads one token at the least, and what is new of its tail.
    needed = sum(result.usage.prompt_tokens - result.usage.cached_tokens for result in results) + len(sent)
    assert sum(sent) <= needed * 1.2


def test_questions_with_the_same_prompt_are_never_on_their_way_together(load: Load, server: LlamaServer) -> None:
    """A server puts them into several slots, of which each would read the prompt. (A slot that is put back a moment
    after its answer can have one read twice: that is the server's choice.)"""
    asked = questions_of_four_prompts()
    engine = load(server.url, connections=16)
    prompts = [engine._prefix(request.prompt) for request in asked]
    lock = threading.Lock()
    running: list[tuple[int, ...]] = []
    together: list[tuple[int, ...]] = []
    first, second = threading.Event(), threading.Event()
    send = Transport._send

    def watching(self: Transport, method: str, url: str, content: bytes | None) -> Any:
        tokens = tuple(orjson.loads(content or b"{}").get("prompt", ()))
        (prompt,) = [prompt for prompt in prompts if tokens[: len(prompt)] == prompt]
        with lock:
            together.extend([prompt] if prompt in running else [])
            running.append(prompt)
            (second if first.is_set() else first).set()
        try:
            assert second.wait(60), "questions with different prompts go one after another"
            return send(self, method, url, content)
        finally:
            with lock:
                running.remove(prompt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transport, "_send", watching)
        engine.score(asked)
    assert not together


def test_when_one_of_two_servers_dies_the_other_answers_everything(
    gguf: Path, load: Load, server: LlamaServer, tmp_path: Path
) -> None:
    requests = [GenerateRequest(prompt(f"{number}. {SENTENCES[0]}"), 16) for number in range(8)]
    with llama_server(gguf, tmp_path / "log") as second:
        engine = load(server.url, second.url)
        expected = [result.text for result in engine.generate(requests)]
        killer = threading.Timer(0.3, second.kill)
        killer.start()
        results = engine.generate(requests * 2)
        killer.join()
    assert [result.text for result in results] == expected * 2
    assert engine.generate(requests[:1])


def test_a_server_that_is_away_and_comes_back(gguf: Path, load: Load, tmp_path: Path) -> None:
    with llama_server(gguf, tmp_path / "log") as running:
        engine = load(running.url, tries=2, connect_seconds=1.0)
        assert engine.generate([GenerateRequest(prompt("a"), 2)])
    with pytest.raises(
        EngineAwayError, match=r"^m: no answer after 2 tries, the last from http://127.0.0.1:"
    ) as caught:
        engine.score([score_request(sentence) for sentence in SENTENCES])
    assert caught.value.transient
    with pytest.raises(EngineAwayError, match="does not answer"):
        load(running.url, connect_seconds=1.0)
    with llama_server(gguf, tmp_path / "log", port=running.port):
        assert engine.score([score_request("a")])


def test_a_server_that_comes_back_with_less_is_not_used(gguf: Path, load: Load, tmp_path: Path) -> None:
    with llama_server(gguf, tmp_path / "log") as running:
        engine = load(running.url, tries=2)
    with pytest.raises(EngineAwayError):
        engine.generate([GenerateRequest(prompt("a"), 2)])
    with (
        llama_server(gguf, tmp_path / "log", port=running.port, context=4096),
        pytest.raises(EngineAwayError, match="reads 1023 tokens now, it has to read 2047"),
    ):
        engine.generate([GenerateRequest(prompt("a"), 2)])


def test_servers_with_other_weights_are_refused(load: Load, server: LlamaServer, exact_server: LlamaServer) -> None:
    with pytest.raises(ModelError, match=r"the servers differ: .* with .*Q4_1.* is llama.cpp with model.gguf"):
        load(server.url, exact_server.url)


def test_a_server_that_is_not_there_yet_is_used_when_it_is(
    gguf: Path, load: Load, server: LlamaServer, tmp_path: Path
) -> None:
    with llama_server(gguf, tmp_path / "log") as late:
        pass
    engine = load(server.url, late.url)
    requests = [GenerateRequest(prompt(f"{number}. {SENTENCES[0]}"), 4) for number in range(6)]
    engine.generate(requests)
    with llama_server(gguf, tmp_path / "log", port=late.port):
        while not engine.healthy[1]:
            engine.generate(requests)


def test_a_key_is_demanded_and_never_shown(gguf: Path, load: Load, tmp_path: Path) -> None:
    with llama_server(gguf, tmp_path / "log", key=KEY) as guarded:
        assert load(guarded.url, api_key=KEY).generate([GenerateRequest(prompt("a"), 2)])
        for key in (None, "another key"):
            with pytest.raises(EngineError, match=r"401: set models.m.server.api_key") as caught:
                load(guarded.url, api_key=key)
            assert "another key" not in str(caught.value)
    assert KEY not in repr(settings("http://x", api_key=KEY))


def test_the_tokenizer_of_another_model_is_refused(load: Load, server: LlamaServer) -> None:
    with pytest.raises(ModelError, match=r"^models.m.source: http.* cuts text into other tokens than this tokenizer"):
        load(server.url, source=GEMMA3)


def test_a_server_of_another_kind_is_refused(load: Load, server: LlamaServer) -> None:
    with pytest.raises(ModelError, match=r"answers, but not as vllm with one model would$"):
        load(server.url, kind="vllm")


def test_interrupting_ends_a_call(load: Load, server: LlamaServer) -> None:
    engine = load(server.url)
    timer = threading.Timer(0.5, engine.interrupt)
    timer.start()
    with pytest.raises(EngineAwayError, match="interrupted"):
        engine.generate([GenerateRequest(prompt(f"{number} {SENTENCES[0]}"), 1000) for number in range(40)])
    timer.join()
    with pytest.raises(EngineAwayError, match="interrupted"):
        engine.score([score_request("a")])
    closes_for_good(engine)


@pytest.mark.parametrize("mode", ["scored", pytest.param("paper", marks=[pytest.mark.slow, pytest.mark.long])])
def test_the_whole_method_through_a_server(mode: str, server: LlamaServer) -> None:
    configured = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"members": ["m"]},
            "models": {"m": settings(server.url).model_dump(exclude_none=True)},
            "method": {
                "mode": mode,
                "constrain": True,
                "max_new_tokens": 24,
                "proposals": ["chunks", "models"],
                "evidence": ["in_context"],
                "weights": "even",
            },
            "retrieval": {"kind": "random", "k": 2},
            "pools": {"paths": {"news": "shipped:news"}},
        },
    )
    document = Document("d", "Angela Merkel met Emmanuel Macron in Paris on 3 May 2019. They spoke of Europe.")
    with Tagger(load_pipeline(configured)) as tagger:
        (tagged,) = tagger.tag([document])
    assert tagged.entities
    for entity in tagged.entities:
        assert document.text[entity.start : entity.end] == entity.text
        assert "m" in entity.votes
