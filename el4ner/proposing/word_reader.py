"""A sentence's words as a member reads them: its hidden states behind each, in a second copy of the sentence.

A causal model sees nothing to the right of a word. So the sentence stands twice, and the states are those of the second
copy, which have seen all of the first. The first one is the prompt that spans are compared behind too, so that whoever
does both reads it once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from el4ner.engines import checks
from el4ner.engines.base import Prompt, StateEngine, StateRequest
from el4ner.evidence.judges import Floats
from el4ner.text.word_units import word_units
from el4ner.types import Usage

__all__ = ["WordReader", "Words"]

_MIDDLE: Final = 0
"""The layer. The last one told less on all development splits, and both together no more."""

Words = tuple[list[tuple[int, int]], Floats]
"""Places of a text's words (code points, half-open), and their states ``[words, dimensions]``."""


class WordReader:
    """A member that shows its hidden states.

    Args:
        engine: the member.
        prompt: from a sentence to its zero-shot prompt.
        again: from a sentence to what stands behind the prompt: text that ends with the sentence.
        version: of the prompts.
    """

    def __init__(
        self, engine: StateEngine, prompt: Callable[[str], Prompt], again: Callable[[str], str], *, version: str
    ) -> None:
        self._engine = engine
        self._prompt = prompt
        self._again = again
        self.fingerprint = f"{engine.fingerprint}-{version}"
        self.states_fingerprint = f"{engine.states_fingerprint}-{version}"
        self.name = engine.name
        self.dimensions = engine.hidden_size

    def read(self, texts: Sequence[str]) -> tuple[list[Words], Usage]:
        """The words of each text."""
        places = [word_units(text) for text in texts]
        asked = [index for index, of_text in enumerate(places) if of_text]
        requests = []
        for index in asked:
            tail = self._again(texts[index])
            before = len(tail) - len(texts[index])
            ends = tuple(before + end for _, end in places[index])
            requests.append(StateRequest(self._prompt(texts[index]), (tail,), (ends,), middle_only=True))
        results = checks.states(self._engine, requests)
        states: list[Floats] = [np.zeros((0, self._engine.hidden_size), dtype=np.float32) for _ in texts]
        for index, result in zip(asked, results, strict=True):
            states[index] = np.ascontiguousarray(result.states[:, _MIDDLE])
        return list(zip(places, states, strict=True)), sum((result.usage for result in results), Usage())
