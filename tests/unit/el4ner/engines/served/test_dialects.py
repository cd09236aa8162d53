"""What servers are asked, and how their answers are read.

llama.cpp's answers are those of a real one, shortened (b11549; the engine is tested on it as a whole). The others' are
as documented and as their sources make them, never seen live: vLLM's ``entrypoints/openai/completion/protocol.py`` of
2026, SGLang's ``entrypoints/http_server.py`` and ``managers/io_struct.py`` of 0.5, TabbyAPI's ``endpoints`` at e632af4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from el4ner.engines.base import GenerateRequest, Prompt
from el4ner.engines.constraint import gbnf
from el4ner.engines.served.dialect import Dialect, Get
from el4ner.engines.served.kinds import KINDS

LLAMA, VLLM, SGLANG, TABBY = (KINDS[name] for name in ("llama.cpp", "vllm", "sglang", "tabbyapi"))
SCORING = (LLAMA, VLLM, SGLANG)
REQUEST = GenerateRequest(Prompt("", "x"), 7, ("\n\n", "Text:"), spans_of="Ada met Bob")

PAGES: Mapping[str, Mapping[str, Any]] = {
    "llama.cpp": {
        "/props": {
            "default_generation_settings": {"params": {}, "n_ctx": 2048},
            "total_slots": 4,
            "model_alias": "/models/SmolLM2.Q4_1.gguf",
            "model_path": "/models/SmolLM2.Q4_1.gguf",
            "build_info": "b11549-abc",
        },
        "/v1/models": {
            "object": "list",
            "data": [
                {
                    "id": "/models/SmolLM2.Q4_1.gguf",
                    "owned_by": "llamacpp",
                    "meta": {"n_vocab": 49152, "n_params": 134515008, "size": 96576768, "ftype": "Q4_1"},
                }
            ],
        },
    },
    "vllm": {
        "/v1/models": {
            "object": "list",
            "data": [{"id": "phi", "object": "model", "owned_by": "vllm", "root": "/w/phi-4", "max_model_len": 16384}],
        },
        "/version": {"version": "0.15.0"},
    },
    "sglang": {
        "/get_model_info": {"model_path": "/w/phi-4", "tokenizer_path": "/w/phi-4", "is_generation": True},
        "/get_server_info": {"max_total_num_tokens": 9000, "version": "0.5.6", "served_model_name": "phi"},
        "/v1/models": {
            "object": "list",
            "data": [{"id": "phi", "object": "model", "owned_by": "sglang", "root": "phi", "max_model_len": 16384}],
        },
    },
    "tabbyapi": {
        "/v1/model": {
            "id": "phi-4-exl3",
            "object": "model",
            "owned_by": "tabbyAPI",
            "parameters": {"max_seq_len": 8192},
        },
        "/props": {
            "total_slots": 8,
            "chat_template": "{{ messages }}",
            "default_generation_settings": {"n_ctx": 8192},
        },
        "/v1/models": {"object": "list", "data": [{"id": "phi-4-exl3", "object": "model", "owned_by": "tabbyAPI"}]},
    },
}


def pages(kind: str) -> Get:
    return PAGES[kind].get


@pytest.mark.parametrize("served", PAGES)
@pytest.mark.parametrize("asked", PAGES)
def test_each_kind_is_told_from_the_others(served: str, asked: str) -> None:
    """TabbyAPI has the page by which llama.cpp is known, too."""
    assert (KINDS[asked].facts(pages(served), None) is not None) == (asked == served)


@pytest.mark.parametrize("kind", PAGES)
def test_a_server_without_pages_is_of_no_kind(kind: str) -> None:
    assert KINDS[kind].facts(lambda path: None, None) is None


@pytest.mark.parametrize(
    ("kind", "model", "length", "slots"),
    [
        ("llama.cpp", "SmolLM2.Q4_1.gguf", 2047, 4),
        ("vllm", "phi", 16384, None),
        ("sglang", "phi", 8994, None),
        ("tabbyapi", "phi-4-exl3", 8192, None),
    ],
)
def test_what_a_server_says_of_itself(kind: str, model: str, length: int, slots: int | None) -> None:
    facts = KINDS[kind].facts(pages(kind), None)
    assert facts is not None
    assert (facts.model, facts.context_length, facts.slots) == (model, length, slots)
    assert KINDS[kind].facts(pages(kind), facts.model) == facts
    assert KINDS[kind].facts(pages(kind), "another") is None


def test_the_same_weights_in_another_folder_are_the_same() -> None:
    elsewhere = orjson.loads(orjson.dumps(PAGES["llama.cpp"]).replace(b"/models/", b"/mnt/gguf/"))
    assert LLAMA.facts(elsewhere.get, None) == LLAMA.facts(pages("llama.cpp"), None)
    larger = orjson.loads(orjson.dumps(PAGES["llama.cpp"]).replace(b"96576768", b"96576769"))
    assert LLAMA.facts(larger.get, None) != LLAMA.facts(pages("llama.cpp"), None)


def test_of_several_models_of_vllm_one_has_to_be_named() -> None:
    one = PAGES["vllm"]["/v1/models"]["data"][0]
    two = {"/v1/models": {"data": [one, {**one, "id": "phi-lora", "root": "/lora"}]}}
    assert VLLM.facts(two.get, None) is None
    named = VLLM.facts(two.get, "phi-lora")
    assert named is not None
    assert named.identity == "lora"


@pytest.mark.parametrize(
    ("dialect", "path"), [(LLAMA, "/tokenize"), (VLLM, "/tokenize"), (SGLANG, "/tokenize"), (TABBY, "/v1/token/encode")]
)
def test_tokens_of_plain_text_are_asked_for_without_any_put_before(dialect: Dialect, path: str) -> None:
    asked, body, read = dialect.tokenize("Zoë", "phi")
    assert asked == path
    assert "Zoë" in body.values()
    assert not any(value is True for value in body.values())
    assert read({"tokens": [1, 2], "count": 2}) == [1, 2]


@pytest.mark.parametrize("dialect", KINDS.values(), ids=list(KINDS))
def test_answers_are_greedy_whatever_the_server_has_as_a_default(dialect: Dialect) -> None:
    body = dialect.generate([5, 6], REQUEST, {9, 8}, "phi")
    sampling = body.get("sampling_params", body)
    assert sampling["temperature"] == 0
    if dialect is LLAMA:  # no other sampler runs
        assert sampling["samplers"] == ["top_k"]
        assert sampling["top_k"] == 1
    else:
        assert sampling["repetition_penalty"] == 1
        assert sampling["frequency_penalty"] == sampling["presence_penalty"] == 0
    assert 7 in (sampling.get("n_predict"), sampling.get("max_tokens"), sampling.get("max_new_tokens"))
    assert [stop for stop in sampling["stop"] if isinstance(stop, str)] == ["\n\n", "Text:"]
    orjson.dumps(body)


@pytest.mark.parametrize("dialect", [VLLM, SGLANG, TABBY], ids=lambda dialect: dialect.name)
def test_the_tokens_that_end_an_answer_are_named(dialect: Dialect) -> None:
    body = dialect.generate([5], REQUEST, {9, 8}, "phi")
    sampling = body.get("sampling_params", body)
    assert [one for one in sampling.get("stop_token_ids", sampling["stop"]) if isinstance(one, int)] == [8, 9]


@pytest.mark.parametrize(
    ("dialect", "where"),
    [
        (LLAMA, ("grammar",)),
        (VLLM, ("structured_outputs", "grammar")),
        (SGLANG, ("sampling_params", "ebnf")),
        (TABBY, ("grammar_string",)),
    ],
)
def test_a_constraint_is_a_grammar(dialect: Dialect, where: tuple[str, ...]) -> None:
    found: Any = dialect.generate([5], REQUEST, (), "phi")
    for key in where:
        found = found[key]
    assert found == gbnf("Ada met Bob", ("\n\n", "Text:"))
    free = orjson.dumps(dialect.generate([5], GenerateRequest(Prompt("", "x"), 7), (), "phi"))
    assert b"root ::=" not in free


WRITTEN = {
    "llama.cpp": {
        "content": " Ada",
        "tokens": [5, 6],
        "stop_type": "eos",
        "tokens_predicted": 3,
        "timings": {"cache_n": 11, "prompt_n": 1},
    },
    "vllm": {
        "choices": [{"index": 0, "text": " Ada", "finish_reason": "stop", "stop_reason": None, "logprobs": None}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 11}},
    },
    "sglang": {
        "text": " Ada",
        "output_ids": [5, 6],
        "meta_info": {
            "finish_reason": {"type": "stop", "matched": 2},
            "prompt_tokens": 12,
            "completion_tokens": 3,
            "cached_tokens": 11,
        },
    },
    "tabbyapi": {
        "choices": [{"index": 0, "text": " Ada", "finish_reason": "stop", "eos_reason": "stop_token"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    },
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_an_answer_is_read(kind: str) -> None:
    written = KINDS[kind].written(WRITTEN[kind])
    assert (written.text, written.ended, written.new_tokens) == (" Ada", True, 3)
    assert written.cached_tokens == (0 if kind == "tabbyapi" else 11)
    assert written.tokens == ((5, 6) if kind == "llama.cpp" else None)
    cut = orjson.loads(orjson.dumps(WRITTEN[kind]).replace(b'"stop"', b'"length"').replace(b'"eos"', b'"limit"'))
    assert not KINDS[kind].written(cut).ended


@pytest.mark.parametrize("dialect", SCORING, ids=lambda dialect: dialect.name)
def test_one_token_is_made_for_a_probability(dialect: Dialect) -> None:
    for body in (dialect.next_tokens([5, 6], [3, 4], "phi"), dialect.forced([5, 6], 4, "phi")):
        sampling = body.get("sampling_params", body)
        assert 1 in (sampling.get("n_predict"), sampling.get("max_tokens"), sampling.get("max_new_tokens"))
        assert body.get("prompt", body.get("input_ids")) == [5, 6]
        assert sampling["temperature"] == 0
        orjson.dumps(body)


def test_a_token_is_forced_where_it_cannot_be_named() -> None:
    assert LLAMA.forced([5], 4, "phi")["logit_bias"][0][0] == 4
    assert VLLM.forced([5], 4, "phi")["allowed_token_ids"] == [4]
    assert SGLANG.forced([5], 4, "phi")["token_ids_logprob"] == [4]
    assert SGLANG.next_tokens([5], [4, 3], "phi")["token_ids_logprob"] == [3, 4]


TOLD = {
    "llama.cpp": {
        "completion_probabilities": [
            {
                "id": 28000,
                "token": "untu",
                "logprob": -22.5,
                "top_logprobs": [
                    {"id": 7042, "token": " Paris", "logprob": -0.25},
                    {"id": 260, "token": " the", "logprob": -2.75},
                ],
            }
        ],
        "timings": {"cache_n": 4, "prompt_n": 1},
    },
    "vllm": {
        "choices": [
            {
                "index": 0,
                "text": "untu",
                "finish_reason": "length",
                "logprobs": {
                    "text_offset": [0],
                    "tokens": ["token_id:28000"],
                    "token_logprobs": [-22.5],
                    "top_logprobs": [{"token_id:28000": -22.5, "token_id:7042": -0.25, "token_id:260": -2.75}],
                },
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}},
    },
    "sglang": {
        "text": "untu",
        "meta_info": {
            "finish_reason": {"type": "length", "length": 1},
            "cached_tokens": 4,
            "completion_tokens": 1,
            "output_token_logprobs": [[-22.5, 28000, None]],
            "output_token_ids_logprobs": [[[-2.75, 260, None], [-0.25, 7042, None], [-22.5, 28000, None]]],
        },
    },
}


@pytest.mark.parametrize("kind", TOLD)
def test_probabilities_are_read(kind: str) -> None:
    found, cached = KINDS[kind].likelihoods(TOLD[kind], [28000, 7042, 99])
    assert found == {28000: -22.5, 7042: -0.25}  # of 99 nothing is told: it is asked again, alone
    assert cached == 4


def test_a_server_that_does_not_tell_what_was_cached_is_believed_to_know_nothing() -> None:
    told = orjson.loads(orjson.dumps(TOLD["vllm"]).replace(b'{"cached_tokens":4}', b"null"))
    assert VLLM.likelihoods(told, [260])[1] == 0


def test_tabbyapi_only_writes() -> None:
    assert not TABBY.scores
    assert not TABBY.takes_tokens
    body = TABBY.generate("<|im_start|>x", REQUEST, {9}, "phi")
    assert body["prompt"] == "<|im_start|>x"
    assert body["add_bos_token"] is False
    assert body["loop_detect_window"] == 0
    assert "model" not in body  # it would be loaded
