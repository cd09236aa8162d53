"""SGLang's server. Written from its documentation and source of 2025 and 2026 (0.5), never run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from typing_extensions import override

from el4ner.engines.base import GenerateRequest
from el4ner.engines.constraint import gbnf
from el4ner.engines.served.dialect import Body, Dialect, Facts, Get, Written, last_part

__all__ = ["Sglang"]

_KEPT_FREE: Final = 6
"""Places of the context that it lets no request have: one of the whole, and five of the prompt."""
_GREEDY: Final[Mapping[str, Any]] = {
    "temperature": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "skip_special_tokens": True,
}


class Sglang(Dialect):
    """Its own API, ``/generate``, tells the probability of any next token that is named."""

    name = "sglang"
    path = "/generate"

    @override
    def facts(self, get: Get, model: str | None) -> Facts | None:
        info = get("/model_info") or get("/get_model_info")
        if not isinstance(info, dict) or "model_path" not in info:
            return None
        server = get("/server_info") or get("/get_server_info") or {}
        listed = ((get("/v1/models") or {}).get("data") or [{}])[0]
        path = str(info["model_path"])
        name = str(listed.get("id") or server.get("served_model_name") or path)
        lengths = [listed.get("max_model_len") or server.get("context_length"), server.get("max_total_num_tokens")]
        known = [int(length) for length in lengths if length is not None]
        if not known or model not in (None, name, path):
            return None
        return Facts(
            model=name,
            context_length=min(known) - _KEPT_FREE,
            identity=f"{last_part(path)} {info.get('weight_version', '')} {server.get('quantization') or ''}".strip(),
            version=str(server.get("version", "")),
        )

    @override
    def tokenize(self, text: str, model: str) -> tuple[str, Body, Callable[[Any], list[int]]]:
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return "/tokenize", body, lambda answer: [int(token) for token in answer["tokens"]]

    @override
    def generate(
        self, prompt: Sequence[int] | str, request: GenerateRequest, ends: Collection[int], model: str
    ) -> Body:
        sampling = {
            **_GREEDY,
            "max_new_tokens": request.max_new_tokens,
            "stop": list(request.stop),
            "stop_token_ids": sorted(ends),
        }
        if request.spans_of is not None:
            sampling["ebnf"] = gbnf(request.spans_of, request.stop)
        return {"input_ids": prompt, "sampling_params": sampling}

    @override
    def written(self, answer: Any) -> Written:
        meta = answer["meta_info"]
        ended = meta["finish_reason"]["type"] != "length"
        cached = int(meta.get("cached_tokens") or 0)
        return Written(None, str(answer["text"]), ended, cached, int(meta["completion_tokens"]))

    @override
    def next_tokens(self, prompt: Sequence[int], wanted: Collection[int], model: str) -> Body:
        return {
            "input_ids": prompt,
            "sampling_params": {**_GREEDY, "max_new_tokens": 1, "ignore_eos": True},
            "return_logprob": True,
            "token_ids_logprob": sorted(wanted),
        }

    @override
    def forced(self, prompt: Sequence[int], token: int, model: str) -> Body:
        return self.next_tokens(prompt, [token], model)

    @override
    def likelihoods(self, answer: Any, wanted: Collection[int]) -> tuple[dict[int, float], int]:
        meta = answer["meta_info"]
        by_token = {int(token): float(value) for value, token, *_ in meta["output_token_ids_logprobs"][0]}
        return {token: by_token[token] for token in wanted if token in by_token}, int(meta.get("cached_tokens") or 0)
