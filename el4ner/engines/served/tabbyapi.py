"""TabbyAPI. Written from its source of August 2026, never run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from typing_extensions import override

from el4ner.engines.base import GenerateRequest
from el4ner.engines.constraint import gbnf
from el4ner.engines.served.dialect import Body, Dialect, Facts, Get, Written, last_part

__all__ = ["TabbyApi"]


class TabbyApi(Dialect):
    """It takes prompts as text only, and tells the probabilities that its samplers leave, by the tokens' texts: it
    writes, no more."""

    name = "tabbyapi"
    scores = False
    takes_tokens = False
    path = "/v1/completions"

    @override
    def facts(self, get: Get, model: str | None) -> Facts | None:
        loaded = get("/v1/model")
        if not isinstance(loaded, dict) or "max_seq_len" not in (loaded.get("parameters") or {}):
            return None
        name = str(loaded["id"])
        if model not in (None, name):
            return None
        return Facts(name, int(loaded["parameters"]["max_seq_len"]), last_part(name), "")

    @override
    def tokenize(self, text: str, model: str) -> tuple[str, Body, Callable[[Any], list[int]]]:
        body = {"text": text, "add_bos_token": False, "encode_special_tokens": False}
        return "/v1/token/encode", body, lambda answer: [int(token) for token in answer["tokens"]]

    def generate(
        self, prompt: Sequence[int] | str, request: GenerateRequest, ends: Collection[int], model: str
    ) -> Body:
        """See :class:`Dialect`. No ``model``: naming one may load it."""
        body: Body = {
            "prompt": prompt,
            "max_tokens": request.max_new_tokens,
            "stop": [*request.stop, *sorted(ends)],
            "add_bos_token": False,  # the prompt has it, if the model wants it
            "token_healing": False,
            "temperature": 0.0,
            "top_k": 1,
            "top_p": 1.0,
            "min_p": 0.0,
            "xtc_probability": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "loop_detect_window": 0,
        }
        if request.spans_of is not None:
            body["grammar_string"] = gbnf(request.spans_of, request.stop)
        return body

    @override
    def written(self, answer: Any) -> Written:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        ended = choice["finish_reason"] != "length"
        return Written(None, str(choice["text"]), ended, 0, int(usage.get("completion_tokens", 0)))
