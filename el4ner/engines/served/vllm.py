"""vLLM's server. Written from its documentation and source of 2026 (0.12 and later), never run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from typing_extensions import override

from el4ner.engines.base import GenerateRequest
from el4ner.engines.constraint import gbnf
from el4ner.engines.served.dialect import Body, Dialect, Facts, Get, Written, cached_tokens, last_part

__all__ = ["Vllm"]

_TOP: Final = 20
"""``--max-logprobs``, as it is by default."""
_GREEDY: Final[Mapping[str, Any]] = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


class Vllm(Dialect):
    """``/v1/completions``. Probabilities are those of the token written next, not ``prompt_logprobs``: a request with
    those does not read the prompt cache."""

    name = "vllm"
    path = "/v1/completions"

    @override
    def facts(self, get: Get, model: str | None) -> Facts | None:
        models = get("/v1/models")
        if not isinstance(models, dict):
            return None
        served = [entry for entry in models.get("data", []) if entry.get("owned_by") == "vllm"]
        chosen = [entry for entry in served if model in (None, entry["id"])]
        if len(chosen) != 1:
            return None
        (entry,) = chosen
        return Facts(
            model=str(entry["id"]),
            context_length=int(entry["max_model_len"]),
            identity=last_part(str(entry.get("root") or entry["id"])),
            version=str((get("/version") or {}).get("version", "")),
        )

    @override
    def tokenize(self, text: str, model: str) -> tuple[str, Body, Callable[[Any], list[int]]]:
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return "/tokenize", body, lambda answer: [int(token) for token in answer["tokens"]]

    @override
    def generate(
        self, prompt: Sequence[int] | str, request: GenerateRequest, ends: Collection[int], model: str
    ) -> Body:
        body: Body = {
            **_GREEDY,
            "model": model,
            "prompt": prompt,
            "max_tokens": request.max_new_tokens,
            "stop": list(request.stop),
            "stop_token_ids": sorted(ends),
        }
        if request.spans_of is not None:
            body["structured_outputs"] = {"grammar": gbnf(request.spans_of, request.stop)}
        return body

    @override
    def written(self, answer: Any) -> Written:
        choice, usage = answer["choices"][0], answer["usage"]
        ended = choice["finish_reason"] != "length"
        return Written(None, str(choice["text"]), ended, cached_tokens(usage), int(usage["completion_tokens"]))

    def next_tokens(self, prompt: Sequence[int], wanted: Collection[int], model: str) -> Body:
        """See :class:`Dialect`. Versions before July 2026 pass ``logprob_token_ids`` over, and tell the most likely."""
        return {
            **_one_token(prompt, model),
            "logprobs": _TOP,
            "logprob_token_ids": sorted(wanted)[:_TOP],
        }

    def forced(self, prompt: Sequence[int], token: int, model: str) -> Body:
        """See :class:`Dialect`. Probabilities are told from before other tokens are forbidden (``--logprobs-mode``)."""
        return {**_one_token(prompt, model), "logprobs": 1, "allowed_token_ids": [token]}

    @override
    def likelihoods(self, answer: Any, wanted: Collection[int]) -> tuple[dict[int, float], int]:
        logprobs = answer["choices"][0]["logprobs"]
        by_token = {_number(key): float(value) for key, value in logprobs["top_logprobs"][0].items()}
        by_token[_number(logprobs["tokens"][0])] = float(logprobs["token_logprobs"][0])
        return {token: by_token[token] for token in wanted if token in by_token}, cached_tokens(answer["usage"])


def _one_token(prompt: Sequence[int], model: str) -> Body:
    return {
        **_GREEDY,
        "model": model,
        "prompt": prompt,
        "max_tokens": 1,
        "return_tokens_as_token_ids": True,  # else tokens are told by their text, and several have the same
        "ignore_eos": True,
    }


def _number(key: str) -> int:
    """Of ``token_id:123``."""
    return int(key.rpartition(":")[2])
