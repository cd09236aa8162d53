"""Key-value states of prompts that were read before, found again by their longest common beginning.

A tree: an entry holds what stands behind its parent's tokens, or behind some of them. The prompts of a batch of
sentences have an instruction in common that is ten times as long as their own part; it is kept once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from el4ner.engines.torch.heap import long_lived
from el4ner.engines.torch.past_states import PastStates, copy_states

__all__ = ["PrefixCache", "common_length"]

Tokens = npt.NDArray[np.int32]


class _PrefixNode:
    """``tokens`` and their ``states`` ``[layers, 2, heads, tokens, head_dim]`` stand behind the first ``begin`` tokens
    of the prompt that ``parent`` ends. ``children``: by where they begin and by their first token, which differs from
    the entry's own at that place, so that at most one of them continues a prompt."""

    __slots__ = ("begin", "children", "parent", "states", "tokens", "used")

    def __init__(self, parent: _PrefixNode | None, begin: int, tokens: Tokens, states: torch.Tensor) -> None:
        self.parent = parent
        self.begin = begin
        self.tokens = tokens
        self.states = states
        self.children: dict[tuple[int, int], _PrefixNode] = {}
        self.used = 0

    @property
    def nbytes(self) -> int:
        return self.states.numel() * self.states.element_size()


class PrefixCache:
    """Entries together have at most ``max_bytes``; 0 keeps nothing. The least recently used goes first, of those that
    no other stands behind."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._uses = 0
        self.clear()

    def __len__(self) -> int:
        return sum(1 for _ in self._entries())

    @property
    def nbytes(self) -> int:
        """Bytes of all kept states."""
        return self._bytes

    def longest(self, tokens: Sequence[int]) -> tuple[PastStates, ...]:
        """The states of the longest beginning of ``tokens`` that is kept."""
        return tuple(PastStates(entry.states, count) for entry, count in self._path(np.asarray(tokens, dtype=np.int32)))

    def put(self, tokens: Sequence[int], parts: Sequence[PastStates]) -> None:
        """Keep the states of all ``tokens``: a copy of those that are not kept yet."""
        wanted = np.asarray(tokens, dtype=np.int32)
        path = self._path(wanted)
        begin = sum(count for _, count in path)
        if begin == len(wanted):
            return
        first = parts[0].states
        shape = (*first.shape[:3], len(wanted) - begin, first.shape[4])
        if not self._make_room(math.prod(shape) * first.element_size(), {entry for entry, _ in path}):
            return
        own = long_lived(shape, first.dtype, first.device)
        copy_states(parts, own, begin)
        parent = path[-1][0] if path else self._root
        entry = _PrefixNode(parent, begin, wanted[begin:], own)
        parent.children[begin, int(wanted[begin])] = entry
        self._use(entry)
        self._bytes += entry.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._root = _PrefixNode(None, 0, np.empty(0, dtype=np.int32), torch.empty(0))
        self._bytes = 0

    def _path(self, tokens: Tokens) -> list[tuple[_PrefixNode, int]]:
        """The entries that have the longest kept beginning of ``tokens``, and how many each has of it. Uses them."""
        path: list[tuple[_PrefixNode, int]] = []
        at, entry = 0, self._root
        while at < len(tokens):
            child = entry.children.get((at, int(tokens[at])))
            if child is None:
                break
            shared = common_length(tokens[at:], child.tokens)
            path.append((child, shared))
            at, entry = at + shared, child
        for used, _ in path:
            self._use(used)
        return path

    def _use(self, entry: _PrefixNode) -> None:
        self._uses += 1
        entry.used = self._uses

    def _make_room(self, size: int, needed: set[_PrefixNode]) -> bool:
        """Drop entries, but for those that are ``needed``, until ``size`` bytes are free; False if they cannot be."""
        if sum(entry.nbytes for entry in needed) + size > self.max_bytes:
            return False
        while self._bytes + size > self.max_bytes:
            leaves = (entry for entry in self._entries() if not entry.children and entry not in needed)
            entry = min(leaves, key=lambda entry: entry.used)
            assert entry.parent is not None
            del entry.parent.children[entry.begin, int(entry.tokens[0])]
            self._bytes -= entry.nbytes
        return True

    def _entries(self) -> Iterator[_PrefixNode]:
        waiting = list(self._root.children.values())
        while waiting:
            entry = waiting.pop()
            yield entry
            waiting += entry.children.values()


def common_length(left: Tokens, right: Tokens) -> int:
    """How many tokens two arrays have in common from their beginning."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
