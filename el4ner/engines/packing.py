"""Many continuations of one prefix as a tree of tokens, so that a model reads what they share only once.

A tree hangs behind a *prefix* (a chain of tokens). Node ``ROOT`` is the prefix's last token; every other node is one
token, sees the prefix, its ancestors and itself, and stands at position ``prefix length + depth - 1``. Continuations
that begin alike share nodes. A node's hidden state is therefore the same as if its path were read alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["ROOT", "Planted", "Target", "TokenQuestion", "TokenTree", "plant"]

ROOT: Final = -1

Target = tuple[int, int]
"""(node that predicts, token that it is asked about)."""


@dataclass(slots=True)
class TokenTree:
    """Tokens in an order in which parents precede their children. ``depths[i]`` is 1 right behind the prefix."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    _children: dict[Target, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, path: Sequence[int], at: int = ROOT) -> int:
        """Walk ``path`` from node ``at``, adding what is missing; the last node, or ``at`` for an empty path."""
        node = at
        for token in path:
            child = self._children.get((node, token))
            if child is None:
                child = len(self.tokens)
                self._children[node, token] = child
                self.depths.append(1 if node == ROOT else self.depths[node] + 1)
                self.tokens.append(token)
                self.parents.append(node)
            node = child
        return node

    def path(self, node: int) -> list[int]:
        """The nodes from the first one behind the prefix down to ``node``."""
        nodes = []
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]

    def missing(self, path: Sequence[int]) -> int:
        """How many nodes :meth:`add` would add for ``path`` from the root."""
        node = ROOT
        for index, token in enumerate(path):
            child = self._children.get((node, token))
            if child is None:
                return len(path) - index
            node = child
        return 0

    def related(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Nodes, and an ancestor of each or the node itself: every pair once."""
        parents = np.asarray(self.parents, dtype=np.int64)
        nodes = ancestors = np.arange(len(self))
        pairs: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        while len(nodes):
            pairs.append((nodes, ancestors))
            above = parents[ancestors]
            nodes, ancestors = nodes[above != ROOT], above[above != ROOT]
        if not pairs:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        return np.concatenate([node for node, _ in pairs]), np.concatenate([ancestor for _, ancestor in pairs])

    def sees(self) -> npt.NDArray[np.bool_]:
        """``[i, j]``: node j is node i or one of its ancestors."""
        visible = np.zeros((len(self), len(self)), dtype=np.bool_)
        visible[self.related()] = True
        return visible


@dataclass(frozen=True, slots=True)
class TokenQuestion:
    """A tail and its candidates, in tokens."""

    tail: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Positions behind the prefix that the longest continuation takes."""
        return len(self.tail) + max((len(candidate) for candidate in self.candidates), default=0)


@dataclass(frozen=True, slots=True)
class Planted:
    """Where one question's answers are read: ``targets[candidate]`` are its tokens' targets in tree ``tree``."""

    tree: int
    targets: tuple[tuple[Target, ...], ...]


def plant(questions: Sequence[TokenQuestion], max_nodes: int | None) -> tuple[list[TokenTree], list[Planted]]:
    """Put all questions into as few trees of at most ``max_nodes`` nodes as their order allows (None: into one).

    A candidate's last token is asked for, never read, so single-token candidates add no node. A question that is larger
    than ``max_nodes`` gets a larger tree of its own. Returns at least one (perhaps empty) tree, and one
    :class:`Planted` per question.
    """
    trees = [TokenTree()]
    planted = []
    for question in questions:
        paths = [question.tail + candidate[:-1] for candidate in question.candidates]
        upper_bound = sum(trees[-1].missing(path) for path in paths)
        if max_nodes is not None and len(trees[-1]) and len(trees[-1]) + upper_bound > max_nodes:
            trees.append(TokenTree())
        tree = trees[-1]
        answered_at = tree.add(question.tail) if question.candidates else ROOT
        every_target = []
        for candidate in question.candidates:
            node = answered_at
            targets = []
            for index, token in enumerate(candidate):
                targets.append((node, token))
                if index + 1 < len(candidate):
                    node = tree.add((token,), at=node)
            every_target.append(tuple(targets))
        planted.append(Planted(len(trees) - 1, tuple(every_target)))
    return trees, planted
