"""Weights as their file has them, for a model that computes in float32: in half the memory, for the same numbers.

Of a small model the table is the largest part: 168 of Gemma 3 270M's 268 million numbers. A pass looks up some hundred
of its rows. As the head, which turns states into logits, all of it is needed, but not by a member that shows hidden
states alone: the head is made when it is first asked.

Where the file has the table in bfloat16 it is not copied either, but mapped: memory holds the rows that were looked up,
and all processes share them. So are linear layers that are to be replaced by others soon (:class:`StoredLinear`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from typing_extensions import override

__all__ = ["Head", "StoredEmbedding", "StoredLinear", "store_tables", "widen", "written_in_bfloat16"]

_ROWS: Final = 16_384
"""That are compared, or multiplied, at a time."""
_LOOKED_AT: Final = 64
"""Rows that are compared where the numbers came from the file."""


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


class StoredLinear(nn.Linear):
    """A linear layer whose weight is kept in bfloat16, and widened at each call: for a few calls."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    @override
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.linear(input, self.weight.float(), self.bias)


class Head(nn.Module):
    """Logits of states in float32. ``weight`` ``[vocabulary, hidden]`` may be the table itself.

    Args:
        weight: bfloat16 or float32.
        bias: float32.
        again: the weight, mapped once more: None where no file has it.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, again: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self._wide: torch.Tensor | None = None
        self._again = again or (lambda: weight)
        self._in_pieces = False

    @override
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self._in_pieces:
            pieces = torch.split(self._again(), _ROWS)
            logits = torch.cat([functional.linear(states, rows.float()) for rows in pieces], -1)
            return logits if self.bias is None else logits + self.bias
        if self._wide is None:
            self._wide = self.weight.float()
        return functional.linear(states, self._wide, self.bias)

    @contextmanager
    def in_pieces(self) -> Iterator[None]:
        """Inside, the weight is read and widened piece by piece, each time it is asked: slower, and nothing is kept."""
        self._in_pieces = True
        try:
            yield
        finally:
            self._in_pieces = False


def written_in_bfloat16(folder: Path) -> bool:
    """Whether all weights in the folder's files are."""
    kinds: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as tensors:
            kinds.update(tensors.get_slice(name).get_dtype() for name in tensors.keys())  # noqa: SIM118 - no mapping
    return kinds == {"BF16"}


def widen(model: Any, *, layers: bool) -> None:
    """What transformers loaded in bfloat16 becomes float32, but for the tables of tokens. ``layers``: linear layers,
    too; otherwise they become :class:`StoredLinear`."""
    tables = [
        table
        for table in (model.get_input_embeddings(), model.get_output_embeddings())
        if isinstance(table, nn.Embedding | nn.Linear)
    ]
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            narrow = any(weight.dtype == torch.bfloat16 for weight in child.parameters(recurse=False))
            if narrow and child not in tables:
                if type(child) is nn.Linear and not layers:
                    setattr(parent, name, StoredLinear(child))
                else:
                    child.float()


def store_tables(model: Any, folder: Path | None = None) -> None:
    """Keep the table of tokens of a float32 model of transformers in bfloat16 where that loses nothing, as with all
    weights that were written so, and make its head when it is asked. ``folder``: the model's files."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(weight): name for name, weight in model.named_parameters()}
    tied = head.weight is embedding.weight
    name = names.get(id(embedding.weight), "")
    table, again = _stored(embedding.weight, folder, name)
    if not tied and isinstance(head, nn.Linear):
        weight, mapped = _stored(head.weight, folder, names.get(id(head.weight), ""))
        model.set_output_embeddings(Head(weight, head.bias, mapped))
    if isinstance(embedding, nn.Embedding) and table.dtype == torch.bfloat16:
        embedding.weight = table
        model.set_input_embeddings(StoredEmbedding(embedding))
    if tied and isinstance(head, nn.Linear):
        model.set_output_embeddings(Head(table, head.bias, again))


def _stored(weight: Any, folder: Path | None, name: str) -> tuple[Any, Callable[[], Any] | None]:
    """In bfloat16, or the weight itself where that is not the same; and what maps it once more. It is mapped for
    itself: where it was loaded from its file, that mapping has all other weights, too."""
    if _is_written(weight, folder, name):
        return nn.Parameter(_written(folder, name), requires_grad=False), partial(_written, folder, name)
    if weight.dtype == torch.bfloat16:
        return weight, None
    narrow = torch.empty_like(weight, dtype=torch.bfloat16, requires_grad=False)
    for stored, rows in zip(torch.split(narrow, _ROWS), torch.split(weight.detach(), _ROWS), strict=True):
        if not torch.equal(stored.copy_(rows).float(), rows):
            return weight, None
    return nn.Parameter(narrow, requires_grad=False), None


def _is_written(weight: Any, folder: Path | None, name: str) -> bool:
    """Whether the file has the same numbers. It is mapped for that alone: what was looked at is not kept in memory. Of
    a weight in bfloat16, which is the file's, some rows are looked at."""
    written = _written(folder, name)
    if written is None or written.dtype != torch.bfloat16 or written.shape != weight.shape:
        return False
    if weight.dtype == torch.bfloat16:
        apart = len(weight) // _LOOKED_AT + 1
        return torch.equal(written[::apart], weight.detach()[::apart])
    pairs = zip(torch.split(written, _ROWS), torch.split(weight.detach(), _ROWS), strict=True)
    return all(torch.equal(stored.float(), rows) for stored, rows in pairs)


def _written(folder: Path | None, name: str) -> Any:
    """The tensor of that name, mapped; None: no file has it."""
    for path in sorted(folder.glob("*.safetensors")) if folder is not None else ():
        with safe_open(path, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - it is no mapping
                return tensors.get_tensor(name)
    return None
