"""The numbers of one forward pass over pages: made once on the host, and copied to the device in one piece.

Every layer needs the same table of pages, lengths and places. The library copies them by itself, each with a wait for
the whole device; here they lie in one buffer of pinned memory, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

import numpy as np
import torch

from el4ner.engines.device_copies import to_device

__all__ = ["Pass"]

T = TypeVar("T")


class Pass:
    """``width`` tokens of each row are read behind what its pages hold.

    Args:
        table: ``[rows, blocks]``, int32, on the processor: each row's pages in order.
        before: ``[rows]``, int32, on the processor: tokens of each row that its pages hold.
        width: tokens that are read of each row.
        page: tokens in a page.
        device: where the model is.

    Attributes:
        longest: tokens of the longest row when the pass is over; known on the host.
        table: ``[rows, blocks in use]``, int32, on the device.
        before: ``[rows]``, int32, on the device.
        after: the same, with what is read.
        query_ends: ``[rows + 1]``, int32, on the device: where each row's queries end when rows follow each other.
        key_ends: the same of keys.
        slots: ``[rows × width]``, int64, on the device: where each token that is read goes, in tokens from the cache's
            beginning.
    """

    def __init__(
        self, table: torch.Tensor, before: torch.Tensor, width: int, *, page: int, device: torch.device
    ) -> None:
        lengths = before.numpy().astype(np.int64)
        ends = lengths + width
        self.rows = len(lengths)
        self.width = width
        self.longest = int(ends.max())
        self._device = device
        self._page = page
        self._ends = ends
        self._pages = np.ascontiguousarray(table.numpy()[:, : -(-self.longest // page)]).astype(np.int64)
        places = lengths[:, None] + np.arange(width)
        rows = np.arange(self.rows)[:, None]
        slots = (self._pages[rows, places // page] * page + places % page).ravel()
        key_ends = np.concatenate([[0], ends.cumsum()])
        parts = [self._pages.ravel(), lengths, ends, np.arange(self.rows + 1) * width, key_ends]
        numbers = np.concatenate(parts).astype(np.int32)
        buffer = np.concatenate([slots.view(np.uint8), numbers.view(np.uint8)])
        there = to_device(buffer, device)
        self.slots = there[: slots.nbytes].view(torch.int64)
        pages, self.before, self.after, self.query_ends, self.key_ends = torch.split(
            there[slots.nbytes :].view(torch.int32), [len(part) for part in parts]
        )
        self.table = pages.view(self._pages.shape)
        self._kept: dict[Hashable, torch.Tensor] = {}

    def key_slots(self) -> torch.Tensor:
        """``[keys of all rows]``, int64, on the device: where every row's keys are, row after row, without padding."""
        if "keys" not in self._kept:
            row = np.repeat(np.arange(self.rows), self._ends)
            place = np.arange(int(self._ends.sum())) - np.repeat(self._ends.cumsum() - self._ends, self._ends)
            slots = self._pages[row, place // self._page] * self._page + place % self._page
            self._kept["keys"] = to_device(slots, self._device)
        return self._kept["keys"]

    def pages(self) -> torch.Tensor:
        """:attr:`table` as an index."""
        if "pages" not in self._kept:
            self._kept["pages"] = self.table.long()
        return self._kept["pages"]

    def mask(self, dtype: torch.dtype, *, causal: bool, window: int, repeats: int) -> torch.Tensor:
        """What is added to the scores, ``[rows, 1, repeats × width, blocks in use × page]``: 0 where a query sees a
        key, -inf elsewhere.

        Args:
            dtype: of the scores.
            causal: a query sees no key behind it.
            window: how many places back it sees; -1: all.
            repeats: how often the queries follow each other.
        """
        kind = (dtype, causal, window, repeats)
        if kind not in self._kept:
            place = torch.arange(self.table.shape[1] * self._page, device=self._device)
            own = self.before[:, None, None] + torch.arange(self.width, device=self._device)[:, None]
            seen = place < self.after[:, None, None]
            if causal:
                seen = seen & (place <= own)
            if window >= 0:
                seen = seen & (place >= own - window)
            added = torch.zeros((), dtype=dtype, device=self._device).masked_fill(~seen, float("-inf"))
            self._kept[kind] = added.expand(-1, self.width, -1).repeat(1, repeats, 1)[:, None]
        return self._kept[kind]
