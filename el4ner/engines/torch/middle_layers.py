"""Passes that leave some of their tokens behind at the middle layer: whose states there are all that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from el4ner.engines.torch.attention_plans import AttentionPlan

__all__ = ["MiddleExit", "Shorter"]


@dataclass(frozen=True, slots=True)
class Shorter:
    """What goes on behind the middle layer: the places of its tokens in the pass, ascending, and how they attend."""

    places: torch.Tensor
    plan: AttentionPlan


class MiddleExit:
    """Gives the layers behind the middle one the tokens that go on.

    Args:
        layers: of a model of transformers; each is called with states ``[1, tokens, hidden]``, and whatever else there
            is for each token (places, rotations) in tensors ``[1, tokens, …]``.
        middle: the last one that reads all.
    """

    def __init__(self, layers: nn.ModuleList, middle: int) -> None:
        self._shorter: Shorter | None = None
        self._tokens = 0
        for layer in layers[middle + 1 :]:
            layer.register_forward_pre_hook(self._enter, with_kwargs=True)

    @contextmanager
    def leaving(self, shorter: Shorter | None, tokens: int) -> Iterator[None]:
        """Inside, a pass over ``tokens`` tokens goes on with ``shorter`` (None: with all)."""
        self._shorter, self._tokens = shorter, tokens
        try:
            yield
        finally:
            self._shorter = None

    def _enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del layer
        if self._shorter is None:
            return None
        taken = {name: self._taken(value) for name, value in kwargs.items()}
        return tuple(map(self._taken, args)), {**taken, "packed_plan": self._shorter.plan}

    def _taken(self, value: Any) -> Any:
        assert self._shorter is not None
        if isinstance(value, tuple):
            return tuple(map(self._taken, value))
        if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[1] == self._tokens:
            return value.index_select(1, self._shorter.places)
        return value
