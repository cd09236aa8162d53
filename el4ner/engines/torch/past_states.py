"""Key-value states in parts: what prompts have in common is kept once, and what follows it stands apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["PastStates", "beginning", "copy_states", "total"]


@dataclass(frozen=True, slots=True, eq=False)
class PastStates:
    """The first ``tokens`` of ``states`` ``[layers, 2, heads, tokens or more, head_dim]``. A tuple of them is a prompt.

    States are shared: read, never written.
    """

    states: torch.Tensor
    tokens: int


def total(parts: Sequence[PastStates]) -> int:
    """Tokens of all of them."""
    return sum(part.tokens for part in parts)


def beginning(parts: Sequence[PastStates], tokens: int) -> tuple[PastStates, ...]:
    """Of the first ``tokens`` tokens, or of as many as there are."""
    found: list[PastStates] = []
    for part in parts:
        if tokens <= 0:
            break
        found.append(part if part.tokens <= tokens else PastStates(part.states, tokens))
        tokens -= part.tokens
    return tuple(found)


def copy_states(parts: Sequence[PastStates], into: torch.Tensor, first: int = 0) -> None:
    """From token ``first`` on, to the beginning of ``into``, ``[layers, 2, heads, tokens or more, head_dim]``."""
    at = -first
    for part in parts:
        skipped = max(0, -at)
        if skipped < part.tokens:
            into[:, :, :, at + skipped : at + part.tokens] = part.states[:, :, :, skipped : part.tokens]
        at += part.tokens
