"""A model's table of tokens as its file has it: in half the memory of float32, for the same numbers.

Of a small model the table is the largest part: 168 of Gemma 3 270M's 268 million numbers. A pass looks up some hundred
of its rows. As the head, which turns states into logits, all of it is needed, but not by a member that shows hidden
states alone: the head is made when it is first asked.

Where the file has the table in bfloat16 it is not copied either, but mapped: memory holds the rows that were looked up,
and all processes share them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
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


def store_tables(model: Any, folder: Path | None = None) -> None:
    """Keep the table of tokens of a float32 model of transformers in bfloat16 where that loses nothing, as with all
    weights that were written so, and make its head when it is asked. ``folder``: the model's files."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(weight): name for name, weight in model.named_parameters()}
    tied = head.weight is embedding.weight
    table = _stored(embedding.weight, folder, names.get(id(embedding.weight), ""))
    if not tied and isinstance(head, nn.Linear):
        model.set_output_embeddings(Head(_stored(head.weight, folder, names.get(id(head.weight), "")), head.bias))
    if isinstance(embedding, nn.Embedding) and table.dtype == torch.bfloat16:
        embedding.weight = table
        model.set_input_embeddings(StoredEmbedding(embedding))
    if tied and isinstance(head, nn.Linear):
        model.set_output_embeddings(Head(table, head.bias))


def _stored(weight: Any, folder: Path | None, name: str) -> Any:
    """In bfloat16, or the weight itself where that is not the same."""
    if _is_written(weight, folder, name):
        return nn.Parameter(_written(folder, name), requires_grad=False)
    narrow = torch.empty_like(weight, dtype=torch.bfloat16, requires_grad=False)
    for stored, rows in zip(torch.split(narrow, _ROWS), torch.split(weight.detach(), _ROWS), strict=True):
        if not torch.equal(stored.copy_(rows).float(), rows):
            return weight
    return nn.Parameter(narrow, requires_grad=False)


def _is_written(weight: Any, folder: Path | None, name: str) -> bool:
    """Whether the file has the same numbers. It is mapped for that alone: what was looked at is not kept in memory."""
    written = _written(folder, name)
    if written is None or written.dtype != torch.bfloat16 or written.shape != weight.shape:
        return False
    pairs = zip(torch.split(written, _ROWS), torch.split(weight.detach(), _ROWS), strict=True)
    return all(torch.equal(stored.float(), rows) for stored, rows in pairs)


def _written(folder: Path | None, name: str) -> Any:
    """The tensor of that name, mapped; None: no file has it."""
    for path in sorted(folder.glob("*.safetensors")) if folder is not None else ():
        with safe_open(path, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - it is no mapping
                return tensors.get_tensor(name)
    return None
