"""The questions behind one prompt, asked token by token.

Candidates are a tree of tokens behind the prompt. What is asked of a server is: behind these tokens, how likely are
those next ones? Its answer is the softmax over the whole vocabulary, so sums along a path are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from el4ner.engines.base import CandidateScore, ScoreResult
from el4ner.engines.packing import ROOT, Planted, Question, plant
from el4ner.types import Usage

__all__ = ["Scoring"]

_ONE_TREE: Final = 1 << 30


class Scoring:
    """What is asked behind one prompt, and what was found.

    Args:
        prefix: the prompt's tokens.
        questions: behind it.
    """

    def __init__(self, prefix: tuple[int, ...], questions: Sequence[Question]) -> None:
        self.prefix = prefix
        self._found: dict[tuple[int, int], float] = {}
        self._cached = len(prefix)
        trees, self._planted = plant(questions, _ONE_TREE)
        (self._tree,) = trees
        self._wanted: dict[int, set[int]] = {}
        for planted in self._planted:
            for candidate in planted.targets:
                for node, token in candidate:
                    self._wanted.setdefault(node, set()).add(token)

    @property
    def nodes(self) -> list[int]:
        """Places that something is asked about; those behind the same tail one after another."""
        return sorted(self._wanted)

    def context(self, node: int) -> list[int]:
        """The prompt and the tokens up to a place."""
        path: list[int] = []
        while node != ROOT:
            path.append(self._tree.tokens[node])
            node = self._tree.parents[node]
        return [*self.prefix, *reversed(path)]

    def missing(self, node: int) -> list[int]:
        """Tokens whose probability is asked for at a place, and not known yet."""
        return sorted(token for token in self._wanted[node] if (node, token) not in self._found)

    def take(self, node: int, told: dict[int, float], cached: int) -> None:
        """What a server said of a place, and how much of the prompt it knew."""
        self._found.update({(node, token): value for token, value in told.items()})
        self._cached = min(self._cached, cached)

    def result(self) -> ScoreResult:
        """When nothing is missing. ``usage``: the prompt and what stands behind it, what candidates share once."""
        scores = tuple(self._scores(planted) for planted in self._planted)
        usage = Usage(len(self.prefix) + len(self._tree), self._cached, 0) if self._wanted else Usage()
        return ScoreResult(scores, usage)

    def _scores(self, planted: Planted) -> tuple[CandidateScore, ...]:
        return tuple(
            CandidateScore(min(0.0, sum((self._found[target] for target in targets), 0.0)), len(targets))
            for targets in planted.targets
        )
