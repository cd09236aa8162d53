"""From what is asked behind a prompt to the rows that a backend reads, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from el4ner.engines.exllama.pages import PAGE
from el4ner.engines.packing import ROOT, TokenTree
from el4ner.errors import EngineError

__all__ = ["TreePath", "paths_of"]


@dataclass(frozen=True, slots=True)
class TreePath:
    """One row to read: ``prefix`` (the prompt, and what did not fit behind it), ``tokens`` behind it, and the tree's
    targets ``(node, token)`` that are asked at ``places`` (0: behind the prefix's last token)."""

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]
    places: tuple[int, ...]
    targets: tuple[tuple[int, int], ...]


def paths_of(prefix: tuple[int, ...], tree: TokenTree, targets: Sequence[tuple[int, int]]) -> list[TreePath]:
    """One path for every leaf of the tree that something is asked about; each target on one of them.

    A path longer than a page is cut: its beginning is read as part of the prompt.

    Raises:
        EngineError: what is asked about one path lies more than a page apart.
    """
    last_below: dict[int, int] = {}
    for node in range(len(tree) - 1, -1, -1):  # parents precede their children
        last_below.setdefault(node, node)
        if tree.parents[node] != ROOT:
            last_below.setdefault(tree.parents[node], last_below[node])
    asked: dict[int, list[tuple[int, int]]] = {}
    for node, token in targets:
        leaf = last_below[node] if node != ROOT else last_below[0] if len(tree) else ROOT
        asked.setdefault(leaf, []).append((node, token))
    return [_path(prefix, tree, leaf, wanted) for leaf, wanted in asked.items()]


def _path(prefix: tuple[int, ...], tree: TokenTree, leaf: int, targets: list[tuple[int, int]]) -> TreePath:
    places = [0 if node == ROOT else tree.depths[node] for node, _ in targets]
    tokens: list[int] = []
    node = leaf
    while node != ROOT:
        tokens.append(tree.tokens[node])
        node = tree.parents[node]
    tokens.reverse()
    tokens = tokens[: max(places)]  # nothing is asked behind the last place
    cut = min(places) if len(tokens) >= PAGE else 0
    if len(tokens) - cut >= PAGE:
        raise EngineError(f"a candidate takes {len(tokens) - cut} tokens, more than the {PAGE - 1} that can be scored")
    return TreePath(
        (*prefix, *tokens[:cut]), tuple(tokens[cut:]), tuple(place - cut for place in places), tuple(targets)
    )
