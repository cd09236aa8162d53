"""What the engine refuses, cuts and does not believe, without a server: answers come from httpx's mock transport.
(What it does with a real one is in ``tests/integration/test_engine_served.py``.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import pytest

from el4ner.config import ModelSettings, ServerSettings
from el4ner.engines.base import GenerateRequest, Prompt, ScoreItem, ScoreRequest
from el4ner.engines.rendering import Renderer
from el4ner.engines.served.http_transport import Transport
from el4ner.engines.served.kinds import KINDS
from el4ner.engines.served.probing import Probed, Prober
from el4ner.engines.served.served_engine import ServedEngine
from el4ner.errors import EngineError, ModelError
from tests.support.tiny_models import TEMPLATE, byte_tokenizer

Answer = Callable[[str, dict[str, Any]], Any]
ASKED = Prompt("Be brief.", "Who?")
SCORES = ScoreRequest(ASKED, (ScoreItem(" is", (" a", " b")),))


def handler(answer: Answer) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content) if request.content else {}
        said = answer(request.url.path, body)
        return httpx.Response(404) if said is None else httpx.Response(200, json=said)

    return httpx.MockTransport(handle)


@contextmanager
def engine(kind: str, answer: Answer, **more: Any) -> Iterator[ServedEngine]:
    probed = {
        "dialect": KINDS[kind],
        "model": "m1",
        "context_length": 500,
        "identity": "w",
        "scores": True,
        "constrains": True,
        "one_at_a_time": False,
    }
    made = ServedEngine(
        "m",
        Transport("m", ServerSettings(urls=("http://a",), api_key="kept secret"), transport=handler(answer)),
        Probed(**{**probed, **more}),
        byte_tokenizer(template=TEMPLATE),
        end_tokens=frozenset(),
        fingerprint="t",
    )
    try:
        yield made
    finally:
        made.close()


def written(text: str, why: str = "stop", tokens: int = 3) -> Any:
    return {"choices": [{"text": text, "finish_reason": why}], "usage": {"completion_tokens": tokens}}


def test_a_server_that_takes_text_is_sent_the_prompt_with_its_template() -> None:
    sent: list[str] = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        sent.append(body["prompt"])
        return written(" Ada")

    with engine("tabbyapi", answer) as one:
        (result,) = one.generate([GenerateRequest(ASKED, 8)])
    assert result.text == " Ada"
    assert sent == [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    ]


@pytest.mark.parametrize("where", ["system", "user", "answer"])
def test_a_server_that_takes_text_is_not_sent_a_control_token_of_somebody_elses(where: str) -> None:
    asked = {"system": "s", "user": "u", "answer": "a"} | {where: "a log line with <|im_end|> in it"}
    with (
        engine("tabbyapi", lambda path, body: pytest.fail("it was sent")) as one,
        pytest.raises(EngineError, match=r"^m: the text contains '<\|im_end\|>', which a tabbyapi server would"),
    ):
        one.generate([GenerateRequest(Prompt(**asked), 8)])


def test_what_a_server_cannot_do_is_said_before_it_is_asked() -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        pytest.fail("it was asked")

    with engine("tabbyapi", answer, scores=False, constrains=False) as one:
        assert not one.scores
        with pytest.raises(
            EngineError, match=r'^m: a tabbyapi server does not tell .* method.mode = "paper"'
        ) as caught:
            one.score([SCORES])
        assert caught.value.code == "engine-cannot"
        with pytest.raises(EngineError, match=r"does not keep to a grammar: set method.constrain = false") as caught:
            one.generate([GenerateRequest(ASKED, 8, spans_of="Ada")])
        assert caught.value.code == "engine-cannot"
        with pytest.raises(EngineError, match="take 600 tokens, the server reads 500"):
            one.generate([GenerateRequest(ASKED, 600 - one.count_tokens(ASKED))])


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm", "sglang"])
@pytest.mark.parametrize("said", [{}, [], {"choices": []}, {"meta_info": {}}, {"error": "x"}, 3, "x"])
def test_an_answer_of_another_form_is_garbage(kind: str, said: Any) -> None:
    with engine(kind, lambda path, body: said) as one:
        for call in (lambda: one.generate([GenerateRequest(ASKED, 8)]), lambda: one.score([SCORES])):
            with pytest.raises(EngineError, match=rf"^m: the {kind} server answered in a form") as caught:
                call()
            assert caught.value.code == "engine-garbage"


def test_a_probability_that_is_never_told_is_garbage() -> None:
    said = {"meta_info": {"output_token_ids_logprobs": [[]]}}
    with engine("sglang", lambda path, body: said) as one, pytest.raises(EngineError, match="does not tell") as caught:
        one.score([SCORES])
    assert caught.value.code == "engine-garbage"


@pytest.mark.parametrize(
    ("text", "why", "expected", "finished"),
    [
        (" Ada\n\nText: x", "length", " Ada", True),
        (" Ada", "stop", " Ada", True),
        (" Ada", "length", " Ada", False),
        ("Text:\n\n", "length", "", True),
    ],
)
def test_an_answer_is_cut_before_the_first_stop_string(text: str, why: str, expected: str, finished: bool) -> None:
    with engine("vllm", lambda path, body: written(text, why)) as one:
        (result,) = one.generate([GenerateRequest(ASKED, 8, ("\n\n", "Text:"))])
    assert (result.text, result.finished) == (expected, finished)


def test_an_answer_ends_with_the_models_own_token_whatever_the_server_thinks() -> None:
    tokenizer = byte_tokenizer(template=TEMPLATE)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokens = [*Renderer(tokenizer).encode(" Ada"), end, *Renderer(tokenizer).encode(" and on")]
    said = {
        "content": " Ada and on",
        "tokens": tokens,
        "stop_type": "limit",
        "tokens_predicted": len(tokens),
        "timings": {"cache_n": 0},
    }
    with engine("llama.cpp", lambda path, body: said) as one:
        (result,) = one.generate([GenerateRequest(ASKED, 64)])
    assert (result.text, result.finished) == (" Ada", True)


def test_all_that_is_asked_behind_one_prompt_is_asked_once() -> None:
    """The questions of a place together, one place ahead of the others; what is missing then, singly."""
    asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        wanted = body["token_ids_logprob"]
        asked.append((tuple(body["input_ids"]), tuple(wanted)))
        told = [[-1.0, token, None] for token in wanted[: 1 if len(wanted) > 1 else None]]
        return {"meta_info": {"output_token_ids_logprobs": [told], "cached_tokens": 7}}

    request = ScoreRequest(ASKED, (ScoreItem(" is", (" xy", " xz", "")), ScoreItem(" was", (" xy",))))
    with engine("sglang", answer) as one:
        (result,) = one.score([request])
        prompt = one.count_tokens(ASKED)
    assert len(asked) == len(set(asked)) == 6 + 1  # three places behind each tail; y and z are asked together, z again
    assert len(asked[0][0]) == prompt + len(" is")
    assert [[score.tokens for score in item] for item in result.scores] == [[3, 3, 0], [3]]
    assert [[score.logprob for score in item] for item in result.scores] == [[-3, -3, 0], [-3]]
    assert result.usage.cached_tokens == 7
    assert result.usage.prompt_tokens == prompt + len(" is x") + len("was x")  # the space is read once


def test_the_fingerprint_follows_the_weights_and_not_the_key() -> None:
    prints = []
    for more in ({}, {"identity": "v"}, {"model": "m2"}, {"dialect": KINDS["vllm"]}, {}):
        with engine("sglang", lambda path, body: None, **more) as one:
            prints.append(one.fingerprint)
    assert len(set(prints[:4])) == 4
    assert prints[0] == prints[4]


# --- what a server can do is tried, not believed -------------------------------------------------------------------


def vllm(*, raw: bool = True, grammar: bool = True, cuts: Callable[[str], list[int]] | None = None) -> Answer:
    """A server that answers as vLLM does; ``raw``: its probabilities are from before a token is forced."""
    cuts = cuts or (lambda text: list(Renderer(byte_tokenizer()).encode(text)))

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": "phi", "owned_by": "vllm", "root": "/w/phi", "max_model_len": 500}]}
        if path == "/tokenize":
            return {"tokens": cuts(body["prompt"])}
        if path != "/v1/completions":
            return None
        if "logprobs" not in body:
            return written(" Qx7" if grammar and "structured_outputs" in body else "es are")
        forced = body.get("allowed_token_ids", [10])[0]
        value = -0.1 if forced == 10 else -9.0
        told = {"tokens": [f"token_id:{forced}"], "token_logprobs": [value if raw else 0.0], "top_logprobs": [{}]}
        return {"choices": [{"text": "", "logprobs": told}], "usage": {"completion_tokens": 1}}

    return answer


def probe(*answers: Answer) -> Probed:
    by_host = {f"s{number}": handler(answer) for number, answer in enumerate(answers)}
    settings = ServerSettings(urls=tuple(f"http://{host}" for host in by_host))
    transport = Transport(
        "m", settings, transport=httpx.MockTransport(lambda request: by_host[request.url.host].handle_request(request))
    )
    try:
        return Prober("m", settings, transport, Renderer(byte_tokenizer()).encode).probe()
    finally:
        transport.close()


def test_a_server_that_can_do_everything() -> None:
    probed = probe(vllm(), vllm())
    assert (probed.dialect.name, probed.model, probed.context_length) == ("vllm", "phi", 500)
    assert probed.scores
    assert probed.constrains
    assert not probed.one_at_a_time


def test_probabilities_from_behind_the_samplers_are_not_believed() -> None:
    probed = probe(vllm(), vllm(raw=False))
    assert not probed.scores
    assert probed.constrains


def test_a_grammar_that_is_passed_over_is_noticed() -> None:
    probed = probe(vllm(grammar=False))
    assert probed.scores
    assert not probed.constrains


def test_another_tokenizer_and_one_that_is_not_told_are_refused() -> None:
    with pytest.raises(ModelError, match=r"^models.m.source: http://s0 cuts text into other tokens"):
        probe(vllm(cuts=lambda text: [1, 2]))
    silent = vllm()
    with pytest.raises(ModelError, match=r"http://s0/tokenize does not tell how the server cuts text"):
        probe(lambda path, body: None if path == "/tokenize" else silent(path, body))


def test_an_address_that_is_no_model_server_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"answers, but not as llama\.cpp or sglang or tabbyapi or vllm with one model"
    ):
        probe(lambda path, body: {"hello": "world"})


def test_settings_of_a_server_are_needed() -> None:
    with pytest.raises(ValueError, match="needs a table"):
        ModelSettings(source="packaged:smollm2-135m-instruct", engine="server")
