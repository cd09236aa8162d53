"""Linear layers that multiply their rows in blocks of few sizes, on a processor in half precision.

For each number of rows oneDNN makes a kernel and keeps it, the latest 1,024 of them: some 0.8 MB each where there is
AMX, and 5 to 25 ms. Passes have any number of rows, so a process that goes on grew by hundreds of megabytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override

__all__ = ["SIZES", "RowBlocks", "block_rows", "blocks"]

SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512)
"""Rows of a block. Larger ones are hardly faster."""
_APART: Final = 32
"""Fewer rows than this are one block, which rows of zeros may fill."""


@lru_cache(maxsize=4096)
def blocks(rows: int) -> tuple[tuple[int, int], ...]:
    """First row and end of each block of so many rows. The last one may go over rows of the one before; of less than
    32 rows it may end behind them."""
    largest = SIZES[-1]
    whole = [(start, start + largest) for start in range(0, rows - largest + 1, largest)]
    left = rows - len(whole) * largest
    if not left:
        return tuple(whole)
    size = next(size for size in SIZES if size >= left)
    if rows < _APART:
        return ((0, size),)
    if size <= rows:
        return (*whole, (rows - size, rows))
    first = max(size for size in SIZES if size <= rows)
    last = next(size for size in SIZES if size >= rows - first)
    return (0, first), (rows - last, rows)


class RowBlocks(nn.Module):
    """In the place of ``linear``, whose weight it shares."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias: nn.Parameter | None = linear.bias

    @override
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = states.reshape(-1, states.shape[-1])
        count = len(rows)
        parts = blocks(count)
        if parts and parts[-1][1] > count:
            rows = functional.pad(rows, (0, 0, 0, parts[-1][1] - count))
        product = rows.new_empty(len(rows), len(self.weight))
        weight = self.weight.t()
        for first, end in parts:
            if self.bias is None:
                torch.mm(rows[first:end], weight, out=product[first:end])
            else:
                torch.addmm(self.bias, rows[first:end], weight, out=product[first:end])
        return product[:count].view(*states.shape[:-1], len(self.weight))


def block_rows(model: Any) -> None:
    """Every ``nn.Linear`` of a model of transformers, its head too, becomes a :class:`RowBlocks`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, RowBlocks(child))
