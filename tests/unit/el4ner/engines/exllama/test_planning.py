"""Memory of models on GPUs: bounds that hold, plans that fit, and refusals that say what would help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from el4ner.config import ExllamaSettings, ModelSettings, Settings, load_settings
from el4ner.engines.exllama import planning
from el4ner.engines.exllama.pages import scratch_pages
from el4ner.engines.exllama.planning import (
    CONTEXT_BYTES,
    Footprint,
    Gpu,
    Member,
    Plan,
    cache_bytes,
    check_cache,
    check_fits,
    gpus_of,
    least_cache_tokens,
    member,
    plan,
    quantized_weight_bytes,
    scratch_bytes,
)
from el4ner.engines.model_facts import facts_of
from el4ner.errors import ConfigError, ModelError
from el4ner.models.known import KNOWN
from el4ner.models.shapes import ModelShape, shape_of

GB = 1_000_000_000
SHAPES = [model.shape for model in KNOWN.values()]
shapes = st.builds(
    ModelShape,
    hidden_size=st.sampled_from([512, 2048, 5120]),
    intermediate_size=st.sampled_from([1024, 8192, 18_944]),
    layers=st.integers(1, 64),
    heads=st.sampled_from([8, 32, 40]),
    kv_heads=st.sampled_from([1, 2, 8]),
    head_dim=st.sampled_from([64, 96, 128, 256]),
    vocab_size=st.integers(1_000, 262_144),
    context=st.sampled_from([512, 4096, 131_072]),
)
gigabytes = st.floats(0.1, 30).map(lambda size: int(size * GB))
members = st.builds(
    Member,
    name=st.uuids().map(str),
    device=st.sampled_from(["auto", "auto", "auto", "cuda", "cuda:1"]),
    footprint=st.builds(Footprint, gigabytes, gigabytes, st.just(GB // 2)),
    reserve_bytes=st.sampled_from([0, GB // 2]),
    cache_tokens=st.just(32_768),
    token_bytes=st.just(50_000.0),
    least_tokens=st.just(8192),
)
gpu_lists = st.lists(st.floats(4, 96), min_size=2, max_size=4).map(gpus_of)


def settings(**exllama: Any) -> ModelSettings:
    return ModelSettings(source="x", engine="exllamav2", exllama=ExllamaSettings(**exllama))


def one_member(name: str, gigabyte: float, device: str = "auto") -> Member:
    return Member(name, device, Footprint(int(gigabyte * GB), 0, 0), 0, 32_768, 0.0, 8192)


def planned(items: list[Member], gpus: list[Gpu]) -> Plan | None:
    try:
        return plan(items, gpus)
    except ConfigError:
        return None


def test_known_shapes_have_the_parameters_that_their_cards_give() -> None:
    billions = {name: model.shape.parameters / 1e9 for name, model in KNOWN.items()}
    assert billions == {
        "zai-org/GLM-4-9B-0414": pytest.approx(9.40, abs=0.01),
        "microsoft/phi-4": pytest.approx(14.66, abs=0.01),
        "Qwen/Qwen2.5-14B-Instruct": pytest.approx(14.77, abs=0.01),
        "Qwen/Qwen2.5-7B-Instruct": pytest.approx(7.62, abs=0.01),
        "Qwen/Qwen2.5-1.5B-Instruct": pytest.approx(1.54, abs=0.01),
        "Qwen/Qwen3-4B-Instruct-2507": pytest.approx(4.02, abs=0.01),
        "HuggingFaceTB/SmolLM2-1.7B-Instruct": pytest.approx(1.71, abs=0.01),
    }


def test_a_cache_in_16_bits_is_keys_and_values_of_every_layer() -> None:
    shape = KNOWN["Qwen/Qwen2.5-7B-Instruct"].shape
    assert cache_bytes(shape, 1024, 16) == 28 * 2 * 4 * 128 * 2 * 1024


@given(shape=shapes, pages=st.integers(4, 400), bits=st.sampled_from([4, 6, 8]))
def test_a_larger_cache_and_more_bits_never_take_less(shape: ModelShape, pages: int, bits: int) -> None:
    tokens = pages * 256
    assert cache_bytes(shape, tokens, bits) <= cache_bytes(shape, tokens + 256, bits)
    assert cache_bytes(shape, tokens, bits) <= cache_bytes(shape, tokens, bits + 2)
    small, large = settings(cache_tokens=max(1024, tokens)), settings(cache_tokens=max(1024, tokens) + 256)
    assert scratch_bytes(shape, small) <= scratch_bytes(shape, large)


@given(shape=shapes, bits=st.floats(2, 7.9), head_bits=st.sampled_from([3, 4, 6]))
def test_more_bits_never_make_smaller_weights(shape: ModelShape, bits: float, head_bits: int) -> None:
    size = quantized_weight_bytes(shape, bits, head_bits)
    assert 0 < size <= quantized_weight_bytes(shape, bits + 0.1, head_bits + 2)
    assert size < 2 * (shape.decoder_parameters + shape.embedding_parameters + shape.norm_parameters)


@given(items=st.lists(members, max_size=5), gpus=gpu_lists)
def test_a_plan_keeps_every_budget_and_is_always_the_same(items: list[Member], gpus: list[Gpu]) -> None:
    made = planned(items, gpus)
    if made is None:
        with pytest.raises(ConfigError, match=r"\A[^\n]*\Z"):
            plan(items, gpus)
        return
    assert plan(items, gpus) == made
    assert sorted(one.name for used in made.gpus for one in used.members) == sorted(one.name for one in items)
    for used in made.gpus:
        needed = sum(one.footprint.total for one in used.members)
        reserve = max((one.reserve_bytes for one in used.members), default=0)
        assert not used.members or needed + reserve + CONTEXT_BYTES <= used.gpu.free_bytes
    for one in items:
        if one.device != "auto":
            assert made.index_of(one.name) == int(one.device.partition(":")[2] or 0)


@given(
    items=st.lists(members, min_size=1, max_size=4), gpus=gpu_lists, extra=st.lists(gigabytes, min_size=4, max_size=4)
)
def test_more_memory_and_fewer_members_never_spoil_a_plan(
    items: list[Member], gpus: list[Gpu], extra: list[int]
) -> None:
    if planned(items, gpus) is None:
        return
    larger = [
        Gpu(gpu.index, gpu.name, gpu.total_bytes + more, gpu.free_bytes + more)
        for gpu, more in zip(gpus, extra, strict=False)
    ]
    plan(items, larger)
    plan(items[1:], gpus)


def test_members_go_where_only_another_order_than_first_fit_finds_room() -> None:
    gpus = [Gpu(0, "a", 10 * GB, 10 * GB + CONTEXT_BYTES), Gpu(1, "b", 7 * GB, 7 * GB + CONTEXT_BYTES)]
    made = plan([one_member("six", 6), one_member("five", 5), one_member("other five", 5)], gpus)
    assert (made.index_of("six"), made.index_of("five"), made.index_of("other five")) == (1, 0, 0)


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:7", r"models\.a\.device: there is no cuda:7; there are: cuda:0"), ("cpu", "needs a GPU")],
)
def test_a_device_that_is_not_there_is_named(device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan([one_member("a", 1, device)], gpus_of([8]))


def test_without_a_gpu_there_is_nothing_to_plan() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        plan([one_member("a", 1)], [])


def test_a_refusal_says_by_how_much_and_its_advice_helps() -> None:
    shape = KNOWN["microsoft/phi-4"].shape
    weights = quantized_weight_bytes(shape, 4.0, 6)
    large = settings(cache_tokens=65_536)
    with pytest.raises(ConfigError) as caught:
        plan([member("phi", shape, weights, large)], gpus_of([16]))
    message = str(caught.value)
    assert message.startswith("models.phi: needs ")
    assert "GB too much: set models.phi.exllama.cache_tokens to " in message
    tokens = int(message.split("cache_tokens to ")[1].split(",")[0])
    advised = large.model_copy(update={"exllama": large.exllama.model_copy(update={"cache_tokens": tokens})})
    plan([member("phi", shape, weights, advised)], gpus_of([16]))


def test_members_that_fit_one_by_one_but_not_together_are_told_so() -> None:
    with pytest.raises(ConfigError, match=r"models\.b: needs .* beside a has .*all together|beside a has") as caught:
        plan([one_member("a", 10), one_member("b", 9)], gpus_of([16]))
    assert "all members together" in str(caught.value)
    assert "another GPU" in str(caught.value)


@given(shape=shapes, rows=st.integers(1, 1024))
def test_the_least_cache_holds_two_prompts_beside_the_rows_pages(shape: ModelShape, rows: int) -> None:
    least = least_cache_tokens(shape, rows)
    prompts = 2 * min(planning.LONGEST_PROMPT, shape.context)
    assert (least // 256 - scratch_pages(rows, least // 256)) * 256 >= prompts
    assert least % 256 == 0


def test_a_cache_that_is_too_small_is_refused_with_the_least_that_works() -> None:
    shape = KNOWN["microsoft/phi-4"].shape
    with pytest.raises(ConfigError, match=r"models\.phi\.exllama\.cache_tokens: 1024 is too small") as caught:
        check_cache(shape, ExllamaSettings(cache_tokens=1024), "phi")
    least = int(str(caught.value).rsplit(" ", 1)[1])
    check_cache(shape, ExllamaSettings(cache_tokens=least), "phi")


def test_a_folder_is_checked_against_what_is_free(tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1000,
        "max_position_embeddings": 512,
    }
    (tmp_path / "config.json").write_bytes(orjson.dumps(config))
    save_file({"lm_head.weight": np.zeros((1000, 64), dtype=np.float16)}, tmp_path / "model.safetensors")
    check_fits(tmp_path, settings(), 4 * GB, "tiny")
    with pytest.raises(ModelError, match=r"models\.tiny: needs .* and the GPU has 0\.\d GB free: .* GB too much: "):
        check_fits(tmp_path, settings(), GB // 10 * 7, "tiny")
    with pytest.raises(ConfigError, match="cache_tokens"):
        check_fits(tmp_path, settings(cache_tokens=1024, score_rows=512), 4 * GB, "tiny")


@pytest.mark.parametrize(
    ("preset", "sizes"), [("paper-gpu", [40]), ("paper-gpu", [24, 24]), ("gpu-24gb", [24]), ("gpu-8gb", [8])]
)
def test_the_gpu_presets_fit_the_cards_they_are_named_for(tmp_path: Path, preset: str, sizes: list[float]) -> None:
    chosen = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": preset}})
    placed = []
    for name in chosen.ensemble.members:
        model = chosen.models[name]
        assert model.engine == "exllamav2"
        facts = facts_of(model.source, tmp_path)
        assert facts is not None
        assert facts.basis == "arithmetic"
        check_cache(facts.shape, model.exllama, name)
        placed.append(member(name, facts.shape, facts.weights, model))
    made = plan(placed, gpus_of(sizes))
    assert all(used.left_bytes >= 0 for used in made.gpus)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "has no hidden_size"),
        ({"hidden_size": 8, "num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"hidden_size": "8"}, "hidden_size is '8'"),
        ({"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}, "has no vocab_size"),
    ],
)
def test_a_configuration_without_sizes_is_a_model_error(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"here: {message}"):
        shape_of(config, "here")


def test_sizes_may_stand_in_the_part_for_text() -> None:
    shape = shape_of(
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "text_config": {"hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34},
        },
        "gemma",
    )
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.vocab_size) == (8, 4, 256, 262_208)
