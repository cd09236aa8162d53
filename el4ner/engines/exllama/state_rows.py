"""From the tails of a call to the rows whose hidden states a backend shows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from el4ner.engines.base import LAYERS, StateResult, States
from el4ner.engines.exllama.pages import PAGE
from el4ner.engines.exllama.shared_prefix import AskedRow, SharedPrefixRows
from el4ner.engines.token_engine import MarkedTail, Tokens
from el4ner.types import Usage

__all__ = ["StateRows"]

_LONGEST_ROW: Final = PAGE - 1


class StateRows:
    """All tails of a call as rows: what is asked twice behind a prompt is read once.

    A tail longer than a row is cut into pieces from its end; what stands before a piece is part of its prompt. Pieces
    in which nothing is wanted are no rows.
    """

    def __init__(self, asked: Iterable[tuple[Tokens, Sequence[MarkedTail]]]) -> None:
        self._wanted: dict[tuple[Tokens, Tokens], set[int]] = {}
        """By a row's prompt and tokens: the places in it, 1 for its first token."""
        self._requests = [
            (prefix, tails, [place for tail in tails for place in self._want(prefix, tail)]) for prefix, tails in asked
        ]
        self._rows = {row: sorted(places) for row, places in self._wanted.items()}
        self._behind: dict[Tokens, SharedPrefixRows[States]] = {}
        self._numbers: dict[tuple[Tokens, Tokens], int] = {}
        for (prompt, tokens), places in self._rows.items():
            prefix_rows = self._behind.setdefault(prompt, SharedPrefixRows(prompt))
            self._numbers[prompt, tokens] = len(prefix_rows.rows)
            prefix_rows.rows.append(AskedRow(tokens, places=tuple(places)))

    @property
    def asked(self) -> list[SharedPrefixRows[States]]:
        """What is to be read: a result ``[places, LAYERS, hidden]`` for every row."""
        return list(self._behind.values())

    def results(self, hidden_size: int) -> list[StateResult]:
        """Of each request, when everything is read."""
        return [self._result(*request, hidden_size) for request in self._requests]

    def _want(self, prefix: Tokens, tail: MarkedTail) -> list[tuple[Tokens, Tokens, int]]:
        """(prompt, row, place in it) of each wanted state of a tail."""
        places = []
        for index in tail.places:
            end = len(tail.tokens) - (len(tail.tokens) - 1 - index) // _LONGEST_ROW * _LONGEST_ROW
            start = max(0, end - _LONGEST_ROW)
            prompt, tokens = (*prefix, *tail.tokens[:start]), tail.tokens[start:end]
            self._wanted.setdefault((prompt, tokens), set()).add(index + 1 - start)
            places.append((prompt, tokens, index + 1 - start))
        return places

    def _result(
        self,
        prefix: Tokens,
        tails: Sequence[MarkedTail],
        places: Sequence[tuple[Tokens, Tokens, int]],
        hidden_size: int,
    ) -> StateResult:
        if not places:
            return StateResult(np.zeros((0, LAYERS, hidden_size), dtype=np.float32), Usage())
        states = np.stack([self._state(*place) for place in places])
        read = len(prefix) + sum(map(len, {tail.tokens for tail in tails}))
        found = min(self._behind[places[0][0]].cached_tokens, len(prefix))
        return StateResult(states, Usage(read, found, 0))

    def _state(self, prompt: Tokens, tokens: Tokens, place: int) -> States:
        row = self._behind[prompt].results[self._numbers[prompt, tokens]]
        state: States = row[self._rows[prompt, tokens].index(place)]
        return state
