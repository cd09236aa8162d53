"""The transformers engine with tiny random models: packing, windows, caches and cutting, without weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from el4ner.engines.base import LAYERS, GenerateRequest, Prompt, ScoreItem, ScoreRequest, StateRequest, States
from el4ner.engines.torch import model_loading, number_types, transformers_engine
from el4ner.engines.torch.int8_linear import Int8Linear, multiplies_int8
from el4ner.engines.torch.packed_model import agrees
from el4ner.engines.torch.transformers_engine import TransformersEngine
from el4ner.errors import EngineOutOfMemoryError, ModelError
from tests.support.engine_conformance import (
    CANDIDATES,
    SENTENCES,
    TAILS,
    EngineConformance,
    StateConformance,
    closes_for_good,
    prompt,
    state_request,
)
from tests.support.replays import Replays
from tests.support.tiny_models import tiny_gemma3, tiny_llama

MODELS: dict[str, Callable[[Path], Path]] = {"llama": tiny_llama, "gemma3": tiny_gemma3}
DEEP_MODELS: dict[str, Callable[[Path], Path]] = {name: partial(make, layers=6) for name, make in MODELS.items()}
needs_int8 = pytest.mark.skipif(not multiplies_int8(), reason="this processor or torch does not multiply int8")
QUESTIONS = (
    ScoreItem('\n"Paris" is a', CANDIDATES),
    ScoreItem('\n"Paris, Texas" is a', CANDIDATES),
    ScoreItem("", (" pin", " pinned", "")),
    ScoreItem("\nIs it so? ", ("yes", "no")),
)


@pytest.fixture(scope="module", params=sorted(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS[request.param](tmp_path_factory.mktemp("models") / request.param)


Load = Callable[..., TransformersEngine]


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"max_batch_tokens": 48},
    {"prefix_cache_bytes": 0},
    {"attend": "together"},
    {"attend": "together", "max_batch_tokens": 48},
    {"attend": "together", "prefix_cache_bytes": 0},
)


@pytest.fixture(scope="module")
def load(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    loaded: list[TransformersEngine] = []

    def loader(**settings: object) -> TransformersEngine:
        given = {"dtype": "float32", "cache_dir": tmp_path_factory.getbasetemp() / "cache", **settings}
        loaded.append(TransformersEngine.load("tiny", folder, **given))  # type: ignore[arg-type]
        return loaded[-1]

    yield loader
    for engine in loaded:
        engine.close()


@pytest.fixture(scope="module")
def tiny(load: Load) -> TransformersEngine:
    return load()


@pytest.fixture(scope="module")
def forgetful(load: Load) -> TransformersEngine:
    return load(prefix_cache_bytes=0)


@pytest.fixture(scope="module")
def frugal(load: Load) -> TransformersEngine:
    """Prompts in pieces, several trees behind one prompt, a cache that holds one or two prompts."""
    return load(max_batch_tokens=48, prefix_cache_bytes=160_000)


@pytest.fixture(scope="module")
def together(load: Load) -> TransformersEngine:
    return load(attend="together", recorder=Replays())


@pytest.fixture(scope="module")
def together_frugal(load: Load) -> TransformersEngine:
    return load(attend="together", recorder=Replays(), max_batch_tokens=48, prefix_cache_bytes=160_000)


@pytest.fixture(scope="module")
def int8(load: Load) -> TransformersEngine:
    return load(dtype="int8")


class TestTinyModels(EngineConformance, StateConformance):
    @pytest.fixture
    def engine(self, tiny: TransformersEngine) -> TransformersEngine:
        return tiny


class TestWithoutCache(EngineConformance, StateConformance):
    caches = False

    @pytest.fixture
    def engine(self, forgetful: TransformersEngine) -> TransformersEngine:
        return forgetful


class TestWithSmallPasses(EngineConformance, StateConformance):
    @pytest.fixture
    def engine(self, frugal: TransformersEngine) -> TransformersEngine:
        return frugal


class TestRowsTogether(EngineConformance, StateConformance):
    """As on a GPU: rows attend by the same calls, and decoding steps are recorded."""

    @pytest.fixture
    def engine(self, together: TransformersEngine) -> TransformersEngine:
        return together


class TestRowsTogetherInSmallPasses(EngineConformance, StateConformance):
    @pytest.fixture
    def engine(self, together_frugal: TransformersEngine) -> TransformersEngine:
        return together_frugal


@needs_int8
class TestInt8(EngineConformance, StateConformance):
    """A number that lies between two bytes may be rounded to either, where attention was summed in another order."""

    tolerance = 0.05
    state_tolerance = 0.02

    @pytest.fixture
    def engine(self, int8: TransformersEngine) -> TransformersEngine:
        return int8


def plain_scores(engine: TransformersEngine, folder: Path, request: ScoreRequest) -> list[list[float]]:
    """One sequence at a time through the model as transformers runs it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    renderer = engine._renderer
    found = []
    with torch.inference_mode():
        for item in request.items:
            row = []
            for candidate in item.candidates:
                before = [*renderer.prefix(request.prompt), *renderer.encode(item.tail)]
                tokens = renderer.encode(candidate)
                ids = torch.tensor([[*before, *tokens]])
                logits = model(ids, use_cache=False).logits[0, len(before) - 1 : ids.shape[1] - 1].log_softmax(-1)
                row.append(float(logits[torch.arange(len(tokens)), torch.tensor(tokens, dtype=torch.long)].sum()))
            found.append(row)
    return found


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("answer", ["", "Names: Paris"], ids=["no answer", "answer"])
def test_packed_scores_are_those_of_the_plain_model(
    load: Load, folder: Path, settings: dict[str, Any], answer: str
) -> None:
    engine = load(**settings)
    requests = [ScoreRequest(prompt(sentence, answer), QUESTIONS) for sentence in SENTENCES]
    expected = [plain_scores(engine, folder, request) for request in requests]
    for _ in range(2):  # the second time from the cache
        for result, rows in zip(engine.score(requests), expected, strict=True):
            for item, row in zip(result.scores, rows, strict=True):
                assert [score.logprob for score in item] == pytest.approx(row, abs=2e-3, rel=1e-4)


def plain_states(engine: TransformersEngine, folder: Path, request: StateRequest) -> States:
    """Each tail alone behind the prompt, through the model as transformers runs it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    middle = model.config.num_hidden_layers // 2 + 1
    found = []
    with torch.inference_mode():
        for tail in request.tails:
            tokens = [*engine._renderer.prefix(request.prompt), *engine._renderer.encode(tail)]
            output = model.model(torch.tensor([tokens]), use_cache=False, output_hidden_states=True)
            found.append(torch.stack([output.hidden_states[middle][0, -1], output.last_hidden_state[0, -1]]).numpy())
    return np.stack(found)


@pytest.fixture(scope="module", params=sorted(MODELS))
def deep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers: the middle is not the end."""
    return DEEP_MODELS[request.param](tmp_path_factory.mktemp("deep") / request.param)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_states_are_those_of_the_plain_model(
    deep: Path, tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]
) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    engine = TransformersEngine.load("deep", deep, dtype="float32", cache_dir=cache, **settings)  # type: ignore[arg-type]
    requests = [state_request(sentence) for sentence in SENTENCES]
    expected = [plain_states(engine, deep, request) for request in requests]
    assert all(states.shape == (len(TAILS), LAYERS, engine.hidden_size) for states in expected)
    assert all(np.linalg.norm(states[:, 0] - states[:, 1]) > 1 for states in expected), "two different layers"
    for _ in range(2):  # the second time from the cache
        for result, states in zip(engine.states(requests), expected, strict=True):
            apart = np.linalg.norm(result.states - states, axis=-1)
            assert (apart <= 1e-4 * np.linalg.norm(states, axis=-1)).all(), apart
    engine.close()


def test_no_layer_but_the_middle_one_is_kept(deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model of 7 billion parameters all layers' states of a pass of 16,384 tokens take 3.4 GB."""
    engine = TransformersEngine.load("deep", deep, dtype="float32", cache_dir=tmp_path)
    model = engine._model
    outputs = []
    body = model._body.forward

    def kept(**named: Any) -> Any:
        outputs.append(body(**named))
        return outputs[-1]

    monkeypatch.setattr(model._body, "forward", kept)
    engine.states([state_request(SENTENCES[0])])
    layers = model._layers
    for output in outputs:
        own = [index for index, states in enumerate(output.hidden_states[:-1]) if states is not None]
        assert own == [layers // 2]
    monkeypatch.setattr(model._body, "forward", lambda **named: body(**{**named, "output_hidden_states": True}))
    engine.forget_prompts()
    request = state_request(SENTENCES[1])
    (result,) = engine.states([request])  # by a transformers that knows no lists of layers
    np.testing.assert_allclose(result.states, plain_states(engine, deep, request), rtol=1e-3, atol=1e-3)
    engine.close()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_answers_are_those_of_plain_greedy_generation(load: Load, folder: Path, settings: dict[str, Any]) -> None:
    engine = load(**settings)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    requests = [
        GenerateRequest(prompt(sentence), count) for sentence, count in zip(SENTENCES, (40, 3, 17, 24), strict=True)
    ]
    for request, result in zip(requests, engine.generate(requests), strict=True):
        ids = list(engine._renderer.prefix(request.prompt))
        new: list[int] = []
        with torch.inference_mode():
            while len(new) < request.max_new_tokens and not set(new) & engine._end_tokens:
                new.append(int(model(torch.tensor([[*ids, *new]]), use_cache=False).logits[0, -1].argmax()))
        ended = bool(set(new) & engine._end_tokens)
        assert result.text == engine._renderer.decode(new[:-1] if ended else new)
        assert result.finished == ended
        assert result.usage.new_tokens == len(new)


SHARED = "An instruction that all sentences of a batch share, with demonstrations. " * 4


def sharing_requests() -> list[ScoreRequest]:
    return [ScoreRequest(Prompt(SHARED, sentence), QUESTIONS[:1]) for sentence in SENTENCES]


def test_what_prompts_of_a_batch_share_is_read_once(load: Load) -> None:
    engine = load(prefix_cache_bytes=0)
    requests = sharing_requests()
    before = engine.forward_tokens
    results = engine.score(requests)
    read = engine.forward_tokens - before
    usage = sum((result.usage for result in results[1:]), results[0].usage)
    assert read == usage.prompt_tokens - usage.cached_tokens
    assert usage.cached_tokens > 3 * len(SHARED) * 0.7
    alone = load(prefix_cache_bytes=0)
    for request, result in zip(requests, results, strict=True):
        (expected,) = alone.score([request])
        got = [score.logprob for score in result.scores[0]]
        assert got == pytest.approx([score.logprob for score in expected.scores[0]], abs=1e-3)


def test_what_prompts_share_takes_the_room_of_one_of_them(load: Load) -> None:
    """A cache that holds two such prompts, each by itself, holds a batch of them."""
    requests = sharing_requests()
    alone = load()
    alone.score(requests[:1])
    engine = load(prefix_cache_bytes=2 * alone._cache.nbytes)
    assert len(requests) > 2
    engine.score(requests)
    again = engine.score(requests)
    assert [result.usage.cached_tokens for result in again] == [
        len(engine._renderer.prefix(request.prompt)) - 1 for request in requests
    ]


def test_a_beginning_that_does_not_fit_the_cache_is_told_once(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    requests = sharing_requests()
    engine = load(prefix_cache_bytes=1000)
    for _ in range(2):
        engine.score(requests)
    (told,) = [record for record in caplog.records if record.message == "prefix-not-kept"]
    values = vars(told)
    assert (values["engine"], values["prefix_cache_mb"]) == (engine.name, 0)
    assert values["needs_mb"] * 2**20 >= values["tokens"] * engine._model.bytes_per_token > 1000
    caplog.clear()
    alone = load(prefix_cache_bytes=1000)
    for _ in range(2):
        alone.score(requests[:1])
    assert caplog.messages.count("prefix-not-kept") == 1, "a sentence at a time, too"
    caplog.clear()
    for size in (0, 1 << 24):
        load(prefix_cache_bytes=size).score(requests)
    assert "prefix-not-kept" not in caplog.messages, "without a cache that is what was asked for"


def test_usage_counts_what_the_model_read(load: Load) -> None:
    engine = load()
    requests = [ScoreRequest(prompt(sentence), QUESTIONS) for sentence in (*SENTENCES, SENTENCES[0])]
    for _ in range(2):
        before = engine.forward_tokens
        usages = [result.usage for result in engine.score(requests)]
        read = sum(usage.prompt_tokens - usage.cached_tokens for usage in usages)
        assert read == engine.forward_tokens - before


def test_usage_of_states_counts_what_the_model_read(load: Load) -> None:
    engine = load()
    requests = [state_request(sentence) for sentence in (*SENTENCES, SENTENCES[0])]
    for _ in range(2):
        before = engine.forward_tokens
        usages = [result.usage for result in engine.states(requests)]
        read = sum(usage.prompt_tokens - usage.cached_tokens for usage in usages)
        assert read == engine.forward_tokens - before


def test_time_in_the_model_is_counted(load: Load) -> None:
    engine = load()
    before = engine.model_seconds
    engine.generate([GenerateRequest(prompt(SENTENCES[0]), 3)])
    assert engine.model_seconds > before
    assert engine.raw_prefill(32, 2) > 0


def test_out_of_memory_is_its_own_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load()

    def no_memory(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999999 bytes")

    monkeypatch.setattr(engine._model, "new_group", no_memory)
    with pytest.raises(EngineOutOfMemoryError):
        engine.score([ScoreRequest(prompt(SENTENCES[0]), QUESTIONS)])


def test_close(load: Load) -> None:
    closes_for_good(load())


def test_the_fingerprint_follows_weights_number_type_and_template(folder: Path, load: Load, tmp_path: Path) -> None:
    import shutil

    plain = load().fingerprint
    assert load().fingerprint == plain
    assert load(dtype="bfloat16").fingerprint != plain
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    settings = {"dtype": "float32", "cache_dir": tmp_path}
    assert TransformersEngine.load("x", other, **settings).fingerprint == plain  # type: ignore[arg-type]
    (other / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}", encoding="utf-8"
    )
    assert TransformersEngine.load("x", other, **settings).fingerprint != plain  # type: ignore[arg-type]


def test_int8_where_it_does_not_go_is_an_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_types, "multiplies_int8", lambda: False)
    with pytest.raises(ModelError, match=r"no int8 on this processor with this torch: set models\.tiny\.dtype to auto"):
        load(dtype="int8")


@needs_int8
def test_int8_states_are_nearly_those_of_float32_and_show_that_they_are_others(load: Load) -> None:
    exact, rounded = load(), load(dtype="int8")
    assert rounded.fingerprint != exact.fingerprint
    assert rounded.states_fingerprint == exact.states_fingerprint
    requests = [state_request(sentence) for sentence in SENTENCES]
    for left, right in zip(exact.states(requests), rounded.states(requests), strict=True):
        apart = np.linalg.norm(left.states - right.states, axis=-1) / np.linalg.norm(left.states, axis=-1)
        assert 0 < np.median(apart) < 0.3, "random weights blow up what is rounded"


@needs_int8
def test_int8_is_the_same_whether_the_model_was_checked_now_or_before(folder: Path, tmp_path: Path) -> None:
    def load() -> TransformersEngine:
        return TransformersEngine.load("x", folder, dtype="int8", cache_dir=tmp_path)

    checked, known = load(), load()
    layers = list(known._model._body.layers.modules())
    assert any(type(layer) is Int8Linear for layer in layers)
    assert not any(type(layer) is torch.nn.Linear for layer in layers)
    assert checked.fingerprint == known.fingerprint
    request = state_request(SENTENCES[0])
    assert np.array_equal(checked.states([request])[0].states, known.states([request])[0].states)


def test_a_model_goes_to_the_device_that_is_named(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(device="cpu")._model.device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for wanted, place in (("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        assert model_loading.choose_device("tiny", wanted) == torch.device(place)
    with pytest.raises(
        ModelError, match=r"^tiny: device 'cuda:2' is not there: torch sees 2 \(cuda:0 to cuda:1\); set"
    ):
        load(device="cuda:2")


def test_a_gpu_that_is_not_there_is_a_model_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load(device="auto")._model.device == torch.device("cpu")
    for wanted in ("cuda", "cuda:1"):
        with pytest.raises(ModelError, match=rf"'{wanted}' is not there: torch sees none; set models\.tiny\.device"):
            load(device=wanted)
    for wanted in ("gpu", "meta"):
        with pytest.raises(ModelError, match="write auto, cpu, cuda or cuda:1"):
            load(device=wanted)


def test_a_constrained_answer_ends_without_asking_for_the_end(load: Load) -> None:
    engine = load()
    (result,) = engine.generate([GenerateRequest(Prompt("", "x", "-"), 5, spans_of="...")])
    assert (result.text, result.finished) == (" none", True)
    # " none" has five bytes: the end is no token more.
    (result,) = engine.generate([GenerateRequest(Prompt("", "x", "-"), result.usage.new_tokens, spans_of="...")])
    assert (result.text, result.finished) == (" none", True)


def test_a_model_that_packed_passes_do_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from el4ner.engines.torch.attention_plans import RowsPlan

    folder = tiny_llama(tmp_path / "model")
    original = RowsPlan.attend

    def blind(plan: object, layer: int, *args: object) -> torch.Tensor:
        return original(plan, layer, *args) * (0.5 if layer == 1 else 1)  # type: ignore[arg-type]

    monkeypatch.setattr(RowsPlan, "attend", blind)
    with pytest.raises(ModelError, match="differ"):
        TransformersEngine.load("x", folder, dtype="float32", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("attend", "free_gb", "tokens"),
    [
        ("rows", None, 4096),
        ("together", None, 16_384),
        ("together", 70, 16_384),
        ("together", 8, 7512),
        ("together", 0, 1024),
    ],
)
def test_a_pass_of_a_gpu_is_as_large_as_its_memory_allows(attend: str, free_gb: int | None, tokens: int) -> None:
    """Of a model with the shape of Qwen2.5-7B in bfloat16."""
    of_a_token = (16 * 3584 + 4 * 18_944) * 2
    free = None if free_gb is None else free_gb * 1_000_000_000
    assert transformers_engine._largest_pass(attend, of_a_token, free) == tokens  # type: ignore[arg-type]


def test_rounding_at_a_single_prompt_is_no_reason_to_refuse_a_model() -> None:
    """Measured with Gemma 3 270M in bfloat16 on a processor with AMX, and with masks that were made wrong."""
    rounding = [0.139, 0.117, 0.043, 0.045, 0.035, 0.06, 0.034, 0.031]
    one_branch_wrong = [0.139, 0.509, 0.043, 1.04, 0.035, 0.604, 0.034, 0.559]
    a_key_missed = [0.332, 0.291, 0.287, 0.259, 0.235, 0.289, 0.233, 0.352]
    assert agrees(rounding, torch.bfloat16)
    assert not agrees(one_branch_wrong, torch.bfloat16)
    assert not agrees(a_key_missed, torch.bfloat16)
    assert not agrees([*rounding[:-1], 0.6], torch.bfloat16), "not even at a single prompt"
    assert not agrees([*rounding[:-1], float("nan")], torch.bfloat16)
    assert agrees([1e-4] * 8, torch.float32)
    assert not agrees([*[1e-4] * 7, 2e-3], torch.float32), "float32 does not round so far"


def test_a_folder_that_cannot_be_loaded_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        TransformersEngine.load("x", tmp_path)
    folder = tiny_llama(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="cannot be loaded"):
        TransformersEngine.load("x", folder, cache_dir=tmp_path)


def test_a_folder_with_code_of_its_own_is_not_loaded(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model")
    config = json.loads((folder / "config.json").read_bytes())
    mapped = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": mapped}), encoding="utf-8")
    with pytest.raises(ModelError, match="never run"):
        TransformersEngine.load("x", folder, cache_dir=tmp_path)


def test_an_empty_prompt_of_a_model_without_template_is_not_empty(tmp_path: Path) -> None:
    engine = TransformersEngine.load("x", tiny_gemma3(tmp_path / "model"), dtype="float32", cache_dir=tmp_path)
    assert engine._renderer.prefix(Prompt("", ""))[0] == 1
    assert engine._renderer.prefix(Prompt("a", "b"))[1:] == engine._renderer.encode("a\n\nb\n")
    engine.close()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_states_of_the_middle_alone_are_those_that_are_read_with_the_last(
    deep: Path, tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]
) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    engine = TransformersEngine.load("deep", deep, dtype="float32", cache_dir=cache, **settings)  # type: ignore[arg-type]
    both = [state_request(sentence) for sentence in SENTENCES]
    expected = engine.states(both)
    engine.forget_prompts()
    # Some rows of a pass go on behind the middle, some leave their trees there.
    asked = [replace(request, middle_only=index % 2 == 0) for index, request in enumerate(both)]
    for _ in range(2):  # the second time from the cache, with prompts that were read to their end
        for request, found, right in zip(asked, engine.states(asked), expected, strict=True):
            layers = slice(0, 1) if request.middle_only else slice(None)
            apart = np.linalg.norm(found.states[:, layers] - right.states[:, layers], axis=-1)
            assert (apart <= 1e-5 * np.linalg.norm(right.states[:, layers], axis=-1)).all(), apart
            assert np.isfinite(found.states).all()


def test_what_is_read_to_the_middle_alone_goes_through_half_of_the_layers(deep: Path, tmp_path: Path) -> None:
    engine = TransformersEngine.load("deep", deep, dtype="float32", cache_dir=tmp_path)
    tokens: list[int] = []
    for layer in engine._model._body.layers:
        layer.mlp.register_forward_pre_hook(lambda _, args: tokens.append(args[0].shape[1]))
    request = replace(state_request(SENTENCES[0]), middle_only=True)
    engine.states([request])
    prompt_tokens = len(engine._renderer.prefix(request.prompt))
    assert tokens[3] > prompt_tokens
    assert tokens == [tokens[0]] * 4 + [prompt_tokens] * 2
