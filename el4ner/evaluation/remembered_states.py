"""An engine that reads each text once, for evaluations with many pools of the same types.

Such pools' prompts are the same, so the hidden states of a sentence's spans are too: of a span that another pool made
the engine read, the states are known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from el4ner.engines import checks
from el4ner.engines.base import (
    LAYERS,
    Engine,
    GenerateRequest,
    GenerateResult,
    Prompt,
    ScoreRequest,
    ScoreResult,
    StateEngine,
    StateRequest,
    StateResult,
    States,
)
from el4ner.types import Usage

__all__ = ["RememberedStates", "remembering"]

MOST_BYTES: Final = 1 << 30
"""Of states that are kept, for each engine. Those that were not asked for longest are forgotten first."""


def remembering(engine: Engine) -> Engine:
    """``engine`` with a memory of its hidden states; as it is where it shows none."""
    return RememberedStates(engine) if isinstance(engine, StateEngine) else engine


class RememberedStates:
    """A :class:`~el4ner.engines.base.StateEngine` around another one, whose name and fingerprint it has.

    Its usage counts what was read, not what was remembered. Generating and scoring are the engine's own.

    Args:
        engine: what is asked. Closing this one closes it.
        most_bytes: of states.
    """

    def __init__(self, engine: StateEngine, *, most_bytes: int = MOST_BYTES) -> None:
        self._engine = engine
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: OrderedDict[Prompt, dict[str, States]] = OrderedDict()

    @property
    def name(self) -> str:
        """The engine's."""
        return self._engine.name

    @property
    def fingerprint(self) -> str:
        """The engine's: the states are the same."""
        return self._engine.fingerprint

    @property
    def context_length(self) -> int:
        """The engine's."""
        return self._engine.context_length

    @property
    def hidden_size(self) -> int:
        """The engine's."""
        return self._engine.hidden_size

    def count_tokens(self, prompt: Prompt) -> int:
        """The engine's."""
        return self._engine.count_tokens(prompt)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """The engine's."""
        return self._engine.generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """The engine's."""
        return self._engine.score(requests)

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        """The engine is asked for the tails that it has not read behind their prompt, in one call."""
        unknown = [
            replace(request, tails=new)
            for request in requests
            if (new := tuple(tail for tail in request.tails if tail not in self._known.get(request.prompt, {})))
        ]
        used: dict[int, Usage] = {}
        read: dict[Prompt, dict[str, States]] = {}
        for request, result in zip(unknown, checks.states(self._engine, unknown) if unknown else [], strict=True):
            read.setdefault(request.prompt, {}).update(zip(request.tails, result.states, strict=True))
            used[id(request.prompt)] = used.get(id(request.prompt), Usage()) + result.usage
        results = []
        for request in requests:
            known = {**self._known.get(request.prompt, {}), **read.get(request.prompt, {})}
            states = np.asarray([known[tail] for tail in request.tails], dtype=np.float32)
            shape = (len(request.tails), LAYERS, self.hidden_size)
            results.append(StateResult(states.reshape(shape), used.pop(id(request.prompt), Usage())))
        for prompt in dict.fromkeys(request.prompt for request in requests):
            self._keep(prompt, read.get(prompt, {}))
        return results

    def close(self) -> None:
        """Closes the engine and forgets."""
        self._known.clear()
        self._bytes = 0
        self._engine.close()

    def _keep(self, prompt: Prompt, read: dict[str, States]) -> None:
        self._known.setdefault(prompt, {}).update(read)
        self._known.move_to_end(prompt)
        self._bytes += sum(states.nbytes for states in read.values())
        while self._bytes > self._most_bytes and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._bytes -= sum(states.nbytes for states in forgotten.values())
