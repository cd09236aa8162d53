"""llama.cpp's own server. Written and run with the one of xllamacpp 2026.10.11549 (llama.cpp b11549)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from typing_extensions import override

from el4ner.engines.base import GenerateRequest
from el4ner.engines.constraint import gbnf
from el4ner.engines.served.dialect import Body, Dialect, Facts, Get, Written, last_part

__all__ = ["LlamaCpp"]

_TOP: Final = 300
"""It tells so many of the most likely next tokens. It cannot be asked for certain ones: those missing are forced."""
_FORCED: Final = 1000.0
"""A bias that nothing outweighs. Probabilities are told from before it is added."""
_GREEDY: Final[Mapping[str, Any]] = {"temperature": 0.0, "samplers": ["top_k"], "top_k": 1, "cache_prompt": True}


class LlamaCpp(Dialect):
    """Its own API, ``/completion``, tells the tokens it writes, and probabilities by the model's own softmax whatever
    its samplers then do."""

    name = "llama.cpp"
    path = "/completion"

    @override
    def facts(self, get: Get, model: str | None) -> Facts | None:
        props = get("/props")
        if not isinstance(props, dict) or "build_info" not in props:
            return None  # TabbyAPI has such a page too, with less on it
        path = str(props["model_path"])
        alias = str(props.get("model_alias") or path)
        name = last_part(alias)
        if model not in (None, alias, name):
            return None
        listed = ((get("/v1/models") or {}).get("data") or [{}])[0].get("meta") or {}
        weights = [str(listed.get(key, "")) for key in ("ftype", "n_params", "size", "n_vocab")]
        return Facts(
            model=name,
            # A place of the slot stays free, so that there is one to write into.
            context_length=int(props["default_generation_settings"]["n_ctx"]) - 1,
            identity=" ".join([last_part(path), *weights]),
            version=str(props["build_info"]),
            slots=int(props["total_slots"]),
        )

    @override
    def tokenize(self, text: str, model: str) -> tuple[str, Body, Callable[[Any], list[int]]]:
        body = {"content": text, "add_special": False, "parse_special": False}
        return "/tokenize", body, lambda answer: [int(token) for token in answer["tokens"]]

    @override
    def generate(
        self, prompt: Sequence[int] | str, request: GenerateRequest, ends: Collection[int], model: str
    ) -> Body:
        body = {
            **_GREEDY,
            "prompt": prompt,
            "n_predict": request.max_new_tokens,
            "stop": list(request.stop),
            "return_tokens": True,
        }
        if request.spans_of is not None:
            body["grammar"] = gbnf(request.spans_of, request.stop)
        return body

    @override
    def written(self, answer: Any) -> Written:
        return Written(
            tuple(int(token) for token in answer["tokens"]),
            str(answer["content"]),
            answer["stop_type"] != "limit",
            int(answer["timings"]["cache_n"]),
            int(answer["tokens_predicted"]),
        )

    def next_tokens(self, prompt: Sequence[int], wanted: Collection[int], model: str) -> Body:
        """See :class:`Dialect`. One of the tokens is forced, and so told for sure."""
        return {**_one_token(prompt, min(wanted)), "n_probs": _TOP}

    @override
    def forced(self, prompt: Sequence[int], token: int, model: str) -> Body:
        return _one_token(prompt, token)

    @override
    def likelihoods(self, answer: Any, wanted: Collection[int]) -> tuple[dict[int, float], int]:
        (chosen,) = answer["completion_probabilities"]
        by_token = {int(entry["id"]): float(entry["logprob"]) for entry in (*chosen["top_logprobs"], chosen)}
        return {token: by_token[token] for token in wanted if token in by_token}, int(answer["timings"]["cache_n"])


def _one_token(prompt: Sequence[int], token: int) -> Body:
    return {**_GREEDY, "prompt": prompt, "n_predict": 1, "n_probs": 1, "logit_bias": [[token, _FORCED]]}
