"""Key-value states of prompts that were read before, found again by their longest common beginning.

A tree: an entry holds what stands behind its parent's tokens, or behind some of them. The prompts of a batch of
sentences have an instruction in common that is ten times as long as their own part; it is kept once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from el4ner.engines.torch.heap import long_lived
from el4ner.engines.torch.past_states import PastStates, beginning, copy_states, total

__all__ = ["PrefixCache", "common_length"]

Tokens = npt.NDArray[np.int32]

LEAST_APART: Final = 64
"""When something begins like an entry and goes on differently, the rest of that entry becomes an entry of its own if it
has so many tokens: it may go while the beginning stays. Shorter rests do so where room is short."""


class _PrefixNode:
    """``tokens`` and their ``states`` ``[layers, 2, heads, tokens, head_dim]`` stand behind the first ``begin`` tokens
    of the prompt that ``parent`` ends. ``children``: by where they begin and by their first token, which differs from
    this one's there, so that at most one of them continues a prompt."""

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

    @property
    def end(self) -> int:
        return self.begin + len(self.tokens)

    def split(self, at: int) -> None:
        """Its tokens from ``at`` on become a child, used when it was, with the children that stand behind more than
        those before."""
        own = at - self.begin
        rest = _PrefixNode(self, at, self.tokens[own:], _copy([PastStates(self.states, len(self.tokens))], own))
        self.states = _copy([PastStates(self.states, own)], 0)
        rest.used = self.used
        rest.children = {key: child for key, child in self.children.items() if child.begin > at}
        for child in rest.children.values():
            child.parent = rest
        self.children = {key: child for key, child in self.children.items() if child.begin <= at}
        self.children[at, int(rest.tokens[0])] = rest
        self.tokens = self.tokens[:own]


class PrefixCache:
    """Entries together have at most ``max_bytes``; 0 keeps nothing. The least recently used goes first, of those that
    no other stands behind."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._uses = 0
        self._bytes = 0
        self._root = _PrefixNode(None, 0, np.empty(0, dtype=np.int32), torch.empty(0))

    def __len__(self) -> int:
        return sum(1 for _ in self._entries())

    @property
    def nbytes(self) -> int:
        """Bytes of all kept states."""
        return self._bytes

    def longest(self, tokens: Sequence[int]) -> tuple[PastStates, ...]:
        """The states of the longest beginning of ``tokens`` that is kept."""
        path = self._path(np.asarray(tokens, dtype=np.int32))
        for entry, _ in path:
            self._use(entry)
        return tuple(PastStates(entry.states, count) for entry, count in path)

    def put(self, tokens: Sequence[int], parts: Sequence[PastStates]) -> None:
        """Keep the states of ``tokens``, or of as many from the first on as there is room for: a copy of those that are
        not kept yet. To be called for what was looked up (:meth:`longest`) before."""
        wanted = np.asarray(tokens, dtype=np.int32)
        path = self._path(wanted)
        begin = sum(count for _, count in path)
        if begin == len(wanted):
            return
        parent = path[-1][0] if path else self._root
        token = parts[0].states[:, :, :, :1]
        token_bytes = token.numel() * token.element_size()
        # What it stands behind stays, and so do the entries that have that; the rest of the last one may go.
        stays = begin + sum(len(entry.tokens) - count for entry, count in path[:-1])
        free = self.max_bytes // token_bytes - stays
        count = min(len(wanted) - begin, free)
        if count <= 0:
            return
        rest = parent.end - begin
        if rest >= LEAST_APART or rest > free - count:
            parent.split(begin)
        self._make_room(count * token_bytes, {entry for entry, _ in path})
        end = begin + count
        entry = _PrefixNode(parent, begin, wanted[begin:end], _copy(beginning(parts, end), begin))
        parent.children[begin, int(wanted[begin])] = entry
        self._use(entry)
        self._bytes += entry.nbytes

    def clear(self) -> None:
        """Forget everything, at once: entries know each other, and would wait for the garbage collector."""
        for entry in list(self._entries()):
            entry.parent = None
            entry.children = {}
        self._root.children = {}
        self._bytes = 0

    def _path(self, tokens: Tokens) -> list[tuple[_PrefixNode, int]]:
        """The entries that have the longest kept beginning of ``tokens``, and how many each has of it."""
        path: list[tuple[_PrefixNode, int]] = []
        at, entry = 0, self._root
        while at < len(tokens):
            child = entry.children.get((at, int(tokens[at])))
            if child is None:
                break
            shared = common_length(tokens[at:], child.tokens)
            path.append((child, shared))
            at, entry = at + shared, child
        return path

    def _use(self, entry: _PrefixNode) -> None:
        self._uses += 1
        entry.used = self._uses

    def _make_room(self, size: int, needed: set[_PrefixNode]) -> None:
        """Drop entries, but for those that are ``needed``, until ``size`` bytes are free: they can be."""
        while self._bytes + size > self.max_bytes:
            leaves = (entry for entry in self._entries() if not entry.children and entry not in needed)
            entry = min(leaves, key=lambda entry: entry.used)
            assert entry.parent is not None
            del entry.parent.children[entry.begin, int(entry.tokens[0])]
            self._bytes -= entry.nbytes

    def _entries(self) -> Iterator[_PrefixNode]:
        waiting = list(self._root.children.values())
        while waiting:
            entry = waiting.pop()
            yield entry
            waiting += entry.children.values()


def _copy(parts: Sequence[PastStates], first: int) -> torch.Tensor:
    """The states of all tokens from ``first`` on."""
    like = parts[0].states
    shape = (*like.shape[:3], total(parts) - first, like.shape[4])
    copy = long_lived(shape, like.dtype, like.device)
    copy_states(parts, copy, first)
    return copy


def common_length(left: Tokens, right: Tokens) -> int:
    """How many tokens two arrays have in common from their beginning."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
