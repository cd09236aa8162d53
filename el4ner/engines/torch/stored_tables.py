"""A model's table of tokens as its file has it: in half the memory of float32, for the same numbers.

Of a small model the table is the largest part: 168 of Gemma 3 270M's 268 million numbers. A pass looks up some hundred
of its rows. As the head, which turns states into logits, all of it is needed, but not by a member that shows hidden
states alone: the head is made when it is first asked.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from typing_extensions import override

__all__ = ["Head", "StoredEmbedding", "store_tables"]

_ROWS: Final = 16_384
"""That are compared at a time."""


class StoredEmbedding(nn.Module):
    """Rows of a table that is kept in bfloat16, as the embedding module of the model makes them of a float32 one."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        embedding.padding_idx = None  # of use to gradients alone, and it may be beyond the rows that are looked up

    @override
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        tokens, places = torch.unique(ids, return_inverse=True)
        rows = self.embedding.weight.index_select(0, tokens).float()
        states: torch.Tensor = functional_call(self.embedding, {"weight": rows}, (places,))
        return states


class Head(nn.Module):
    """Logits of states in float32. ``weight`` ``[vocabulary, hidden]`` may be the table itself.

    Args:
        weight: bfloat16 or float32.
        bias: float32.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self._wide: torch.Tensor | None = None

    @override
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self._wide is None:
            self._wide = self.weight.float()
        return functional.linear(states, self._wide, self.bias)

    def forget(self) -> None:
        """Give back what was made when it was asked."""
        self._wide = None


def store_tables(model: Any) -> None:
    """Keep the table of tokens of a float32 model of transformers in bfloat16 where that loses nothing, as with all
    weights that were written so, and make its head when it is asked."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    table = _stored(embedding.weight)
    if isinstance(embedding, nn.Embedding) and table.dtype == torch.bfloat16:
        embedding.weight = table
        model.set_input_embeddings(StoredEmbedding(embedding))
    if isinstance(head, nn.Linear):
        model.set_output_embeddings(Head(table if tied else _stored(head.weight), head.bias))


def _stored(weight: Any) -> Any:
    """In bfloat16, or the weight itself where that is not the same."""
    narrow = torch.empty_like(weight, dtype=torch.bfloat16, requires_grad=False)
    for stored, rows in zip(torch.split(narrow, _ROWS), torch.split(weight.detach(), _ROWS), strict=True):
        if not torch.equal(stored.copy_(rows).float(), rows):
            return weight
    return nn.Parameter(narrow, requires_grad=False)
