"""Key-value states of prompts that were read before, found again by their longest common beginning.

A linear scan over the kept entries is enough: a few hundred megabytes hold some tens of prompts, and comparing token
arrays takes microseconds where reading a prompt again takes hundreds of milliseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from el4ner.engines.torch.heap import long_lived_copy

__all__ = ["PrefixCache"]

Tokens = npt.NDArray[np.int32]


class PrefixCache:
    """Least-recently-used entries, together at most ``max_bytes``; 0 keeps nothing.

    States are tensors ``[layers, 2, heads, tokens, head_dim]``: keys and values of every layer.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, tuple[Tokens, torch.Tensor]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all kept states."""
        return self._bytes

    def longest(self, tokens: Sequence[int]) -> tuple[int, torch.Tensor | None]:
        """The entry that shares the longest beginning with ``tokens``: how many tokens, and its states.

        The states may hold more tokens than are shared. They are shared memory: read, never written.
        """
        wanted = np.asarray(tokens, dtype=np.int32)
        best, best_key = 0, None
        for key, (kept, _) in self._entries.items():
            shared = common_length(wanted, kept)
            if shared > best:
                best, best_key = shared, key
        if best_key is None:
            return 0, None
        self._entries.move_to_end(best_key)
        return best, self._entries[best_key][1]

    def put(self, tokens: Sequence[int], states: torch.Tensor) -> None:
        """Keep a copy of the first ``len(tokens)`` states, and drop entries that are beginnings of it."""
        size = states[:, :, :, : len(tokens)].numel() * states.element_size()
        if not tokens or size > self._max_bytes:
            return
        new = np.asarray(tokens, dtype=np.int32)
        for key, (kept, _) in list(self._entries.items()):
            shared = common_length(new, kept)
            if shared == len(new):  # what is kept already covers it
                self._entries.move_to_end(key)
                return
            if shared == len(kept):
                self._drop(key)
        while self._bytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[new.tobytes()] = (new, long_lived_copy(states[:, :, :, : len(tokens)]))
        self._bytes += size

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bytes = 0

    def _drop(self, key: bytes) -> None:
        _, states = self._entries.pop(key)
        self._bytes -= states.numel() * states.element_size()


def common_length(left: Tokens, right: Tokens) -> int:
    """How many tokens two arrays have in common from their beginning."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
