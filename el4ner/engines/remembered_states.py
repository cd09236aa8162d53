"""An engine that reads each text once, for evaluations with many pools of the same types.

Such pools' prompts are the same, so the hidden states of a sentence's words and spans are too: of those that another
pool made the engine read, the states are known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from typing_extensions import override

from el4ner.engines import checks
from el4ner.engines.base import (
    LAYERS,
    Asked,
    Engine,
    Prompt,
    StateEngine,
    StateRequest,
    StateResult,
    States,
)
from el4ner.engines.wrapped import WrappedEngine
from el4ner.types import Usage

__all__ = ["RememberedStates", "remembering"]

MOST_BYTES: Final = 1 << 30
"""Of states that are kept, for each engine. Those that were not asked for longest are forgotten first."""


def remembering(engine: Engine) -> Engine:
    """``engine`` with a memory of its hidden states; as it is where it shows none."""
    return RememberedStates(engine) if isinstance(engine, StateEngine) else engine


class RememberedStates(WrappedEngine):
    """An engine that remembers hidden states.

    Its usage counts what was read, not what was remembered. Generating and scoring are the engine's own.

    Args:
        engine: what is asked. Closing this one closes it.
        most_bytes: of states.
    """

    def __init__(self, engine: StateEngine, *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(engine)
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: OrderedDict[Prompt, dict[Asked, States]] = OrderedDict()

    @override
    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        # The engine is asked for the tails that it has not read behind their prompt (or not at these places), in one
        # call.
        unknown = [new for request in requests if (new := self._unknown(request)).tails]
        used: dict[int, Usage] = {}
        read: dict[Prompt, dict[Asked, States]] = {}
        for request, result in zip(unknown, checks.states(self._engine, unknown) if unknown else [], strict=True):
            of_tails = np.split(result.states, np.cumsum([len(ends) for ends in request.ends])[:-1])
            read.setdefault(request.prompt, {}).update(zip(request.asked, of_tails, strict=True))
            used[id(request.prompt)] = used.get(id(request.prompt), Usage()) + result.usage
        results = []
        for request in requests:
            known = {**self._known.get(request.prompt, {}), **read.get(request.prompt, {})}
            of_tails = [known[asked] for asked in request.asked]
            states = np.concatenate([np.zeros((0, LAYERS, self.hidden_size), np.float32), *of_tails])
            results.append(StateResult(states, used.pop(id(request.prompt), Usage())))
        for prompt in dict.fromkeys(request.prompt for request in requests):
            self._keep(prompt, read.get(prompt, {}))
        return results

    @override
    def close(self) -> None:
        self._known.clear()
        self._bytes = 0
        super().close()

    def _unknown(self, request: StateRequest) -> StateRequest:
        """The part of it that was never read."""
        known = self._known.get(request.prompt, {})
        new = [number for number, asked in enumerate(request.asked) if asked not in known]
        return replace(
            request,
            tails=tuple(request.tails[number] for number in new),
            marks=tuple(request.marks[number] for number in new) if request.marks else (),
        )

    def _keep(self, prompt: Prompt, read: dict[Asked, States]) -> None:
        self._known.setdefault(prompt, {}).update(read)
        self._known.move_to_end(prompt)
        self._bytes += sum(states.nbytes for states in read.values())
        while self._bytes > self._most_bytes and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._bytes -= sum(states.nbytes for states in forgotten.values())
