"""Engines that are asked a question once, however many rows ask it: written answers in a file, states in memory."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from typing_extensions import override

from el4ner.engines.base import (
    Asked,
    Engine,
    GenerateRequest,
    GenerateResult,
    Prompt,
    ScoreRequest,
    ScoreResult,
    StateEngine,
    StateRequest,
    StateResult,
)
from el4ner.engines.remembered_states import RememberedStates
from el4ner.types import Usage

__all__ = ["Answers", "RememberingEngine", "RememberingStates"]


class Answers:
    """A file of answers: (text, finished, usage, seconds) by what was asked of whom. A killed run loses only the call
    that was under way. One process writes to it at a time; the others wait."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(path, timeout=60)
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT, finished INTEGER, "
            "prompt_tokens INTEGER, cached_tokens INTEGER, new_tokens INTEGER, seconds REAL)"
        )

    def get(self, key: str) -> tuple[GenerateResult, float] | None:
        """The answer and the seconds that it took, if it is known."""
        found = self._file.execute(
            "SELECT text, finished, prompt_tokens, cached_tokens, new_tokens, seconds FROM answers WHERE key = ?",
            (key,),
        ).fetchone()
        if found is None:
            return None
        text, finished, prompt_tokens, cached_tokens, new_tokens, seconds = found
        return GenerateResult(text, bool(finished), Usage(prompt_tokens, cached_tokens, new_tokens)), seconds

    def put(self, answers: Sequence[tuple[str, GenerateResult, float]]) -> None:
        """Kept when this returns."""
        with self._file:
            self._file.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        key,
                        result.text,
                        int(result.finished),
                        result.usage.prompt_tokens,
                        result.usage.cached_tokens,
                        result.usage.new_tokens,
                        seconds,
                    )
                    for key, result, seconds in answers
                ],
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RememberingEngine(Engine):
    """``inner``, asked only what ``answers`` does not have.

    ``seconds`` is what all answers given so far took when they were written, also those that are from the file: what a
    caller would have waited if nothing were remembered. The seconds of a call are shared out evenly over its questions.
    """

    def __init__(self, inner: Engine, answers: Answers) -> None:
        self._inner = inner
        self._answers = answers
        self.seconds = 0.0
        self.asked = 0

    @property
    @override
    def name(self) -> str:
        return self._inner.name

    @property
    @override
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    @property
    @override
    def context_length(self) -> int:
        return self._inner.context_length

    @override
    def count_tokens(self, prompt: Prompt) -> int:
        return self._inner.count_tokens(prompt)

    @override
    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        keys = [hashlib.sha256(repr((self.fingerprint, astuple(request))).encode()).hexdigest() for request in requests]
        known = {key: found for key in dict.fromkeys(keys) if (found := self._answers.get(key)) is not None}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in known}
        if missing:
            began = time.perf_counter()
            results = self._inner.generate(list(missing.values()))
            each = (time.perf_counter() - began) / len(missing)
            written = [(key, result, each) for key, result in zip(missing, results, strict=True)]
            self._answers.put(written)
            known.update((key, (result, seconds)) for key, result, seconds in written)
            self.asked += len(missing)
        self.seconds += sum(known[key][1] for key in keys)
        return [known[key][0] for key in keys]

    @override
    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        return self._inner.score(requests)

    @override
    def close(self) -> None:
        self._inner.close()


class RememberingStates(RememberedStates):
    """One that forgets nothing, for rows that ask several ensembles about the same sentences.

    ``saved`` is the processor's seconds that remembered answers took when they were read: what a row's clock adds. The
    seconds of a call are shared out evenly over its tails. ``inner`` is the engine, which remembers nothing.
    """

    def __init__(self, engine: StateEngine) -> None:
        super().__init__(engine, most_bytes=sys.maxsize)
        self.inner = engine
        self._seconds: dict[tuple[Prompt, Asked], float] = {}
        self.saved = 0.0

    @override
    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        keys = [(request.prompt, asked) for request in requests for asked in request.asked]
        self.saved += sum(self._seconds.get(key, 0.0) for key in keys)
        new = {key for key in keys if key not in self._seconds}
        began = time.process_time()
        results = super().states(requests)
        self._seconds.update(dict.fromkeys(new, (time.process_time() - began) / max(1, len(new))))
        return results
