"""The questions behind one prompt, asked token by token.

Candidates are a tree of tokens behind the prompt. What is asked of a server is: behind these tokens, how likely are
those next ones? Its answer is the softmax over the whole vocabulary, so sums along a path are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from el4ner.engines.base import CandidateScore, ScoreResult
from el4ner.engines.packing import ROOT, TokenQuestion
from el4ner.engines.token_engine import PromptQuestions
from el4ner.types import Usage

__all__ = ["Scoring"]


class Scoring:
    """What is asked behind one prompt, and what was found.

    Args:
        prefix: the prompt's tokens.
        questions: behind it.
    """

    def __init__(self, prefix: tuple[int, ...], questions: Sequence[TokenQuestion]) -> None:
        self.prefix = prefix
        self._cached = len(prefix)
        self._questions = PromptQuestions(prefix, {0: questions})
        (self._tree,) = self._questions.trees
        self._wanted: dict[int, list[int]] = {}
        for node, token in self._questions.targets(0):
            self._wanted.setdefault(node, []).append(token)

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
        return [token for token in self._wanted[node] if (0, node, token) not in self._questions.logprobs]

    def take(self, node: int, told: dict[int, float], cached: int) -> None:
        """What a server said of a place, and how much of the prompt it knew."""
        self._questions.logprobs.update({(0, node, token): logprob for token, logprob in told.items()})
        self._cached = min(self._cached, cached)

    def result(self) -> ScoreResult:
        """When nothing is missing. ``usage``: the prompt and what stands behind it, what candidates share once."""
        ((_, result),) = self._questions.results(self._cached)
        scores = tuple(
            tuple(CandidateScore(min(0.0, score.logprob), score.tokens) for score in scores) for scores in result.scores
        )
        return ScoreResult(scores, result.usage if self._wanted else Usage())
