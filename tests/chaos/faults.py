"""An engine with faults: what a document says is what goes wrong with it.

A text that holds ``Fault<Kind><Stage>`` (``FaultHangClassify``) makes the engine of that stage's process fail
on every call that asks about it; :data:`KINDS` says how. Without such a word the engine is
:class:`~el4ner.engines.instant.InstantEngine`.
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from el4ner.engines.base import CandidateScore, GenerateRequest, GenerateResult, Prompt, ScoreRequest, ScoreResult
from el4ner.engines.instant import InstantEngine
from el4ner.errors import EngineError, EngineOutOfMemoryError

__all__ = ["ANNOUNCED", "KINDS", "STAGES", "FaultyEngine", "word"]

STAGES: Final = ("extract", "classify", "validate")
KINDS: Final = {
    "hang": "never comes back",
    "crash": "takes its process along, as a fault in native code does",
    "memory": "runs out of memory, however small the batch",
    "crowd": "runs out of memory unless the document is alone: no poison at all",
    "error": "cannot answer",
    "count": "gives one result too few",
    "nan": "gives scores that are no numbers",
    "positive": "gives log-probabilities above 0",
    "control": "answers with control characters and half a surrogate",
}

ANNOUNCED: Final = "chaos: the engine stops at "

_WORD: Final = re.compile(r"Fault(?P<kind>[A-Z][a-z]+)(?P<stage>Extract|Classify|Validate)")

Q = TypeVar("Q", GenerateRequest, ScoreRequest)
R = TypeVar("R", GenerateResult, ScoreResult)


def word(kind: str, stage: str) -> str:
    """What a text has to hold."""
    if kind not in KINDS or stage not in STAGES:
        raise ValueError(f"there is no fault {kind!r} of stage {stage!r}")
    return f"Fault{kind.capitalize()}{stage.capitalize()}"


class FaultyEngine(InstantEngine):
    """See the module. ``stages``: those that this process runs."""

    def __init__(self, name: str, *, stages: Sequence[str]) -> None:
        super().__init__(name, reply=_names)
        self._stages = frozenset(stages)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """See :class:`~el4ner.engines.base.Engine`."""
        return self._with_faults(requests, super().generate)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """See :class:`~el4ner.engines.base.Engine`."""
        return self._with_faults(requests, super().score)

    def _with_faults(self, requests: Sequence[Q], answer: Callable[[Sequence[Q]], list[R]]) -> list[R]:
        kinds = [self._kind(request.prompt) for request in requests]
        present = {kind for kind in kinds if kind is not None}
        if "hang" in present:
            _announce()
            threading.Event().wait()
        if "crash" in present:
            _announce()
            os.kill(os.getpid(), signal.SIGSEGV)
        if "memory" in present or ("crowd" in present and len({_asked(request.prompt) for request in requests}) > 1):
            raise EngineOutOfMemoryError(f"{self.name}: out of memory with {len(requests)} prompts")
        if "error" in present:
            raise EngineError(f"{self.name}: cannot answer")
        results = answer(requests)
        if "count" in present:
            return results[:-1]
        return [result if kind is None else _spoilt(result, kind) for kind, result in zip(kinds, results, strict=True)]

    def _kind(self, prompt: Prompt) -> str | None:
        found = _WORD.search(_asked(prompt))
        if found is None or found["stage"].lower() not in self._stages:
            return None
        return found["kind"].lower()


def _announce() -> None:
    """Say in the worker's log when it stopped; all processes of a machine share the monotonic clock."""
    sys.stderr.write(f"{ANNOUNCED}{time.monotonic()}\n")
    sys.stderr.flush()


def _asked(prompt: Prompt) -> str:
    return prompt.user


def _names(prompt: Prompt) -> str:
    """Some words of the prompt, as a model would list spans."""
    return "\n".join(dict.fromkeys(re.findall(r"\b[A-Z][a-z]+\b", prompt.user)[-4:]))


def _spoilt(result: Any, kind: str) -> Any:
    if kind == "control":
        if isinstance(result, GenerateResult):
            return replace(result, text="\x00\x1b[2J\ud800 | Person\n\x07\n" + result.text)
        return result
    if kind in {"nan", "positive"} and isinstance(result, ScoreResult):
        wrong = math.nan if kind == "nan" else 3.5
        return replace(
            result, scores=tuple(tuple(CandidateScore(wrong, score.tokens) for score in item) for item in result.scores)
        )
    return result
