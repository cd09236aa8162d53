"""Trees of tokens, from the paths that are in them."""

from __future__ import annotations

from collections.abc import Sequence

from el4ner.engines.packing import TokenTree

__all__ = ["tree_of"]


def tree_of(paths: Sequence[Sequence[int]]) -> TokenTree:
    tree = TokenTree()
    for path in paths:
        tree.add(path)
    return tree
