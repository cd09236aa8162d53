"""Memory that was freed and that the C library keeps.

glibc keeps pages between blocks that are still used. A model whose weights are replaced by smaller ones, or that reads
batches of all sizes, leaves gigabytes of them: the default ensemble, just loaded, took 2.5 GB with int8 layers, and
takes 1.8 since they are given back.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import torch

__all__ = ["give_back_freed_memory", "long_lived"]

_PRIVATE: Final[dict[str, Any]] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
"""Otherwise pages count as shared memory, which containers limit apart."""


def give_back_freed_memory() -> None:
    """To the system, where the C library can: glibc. Takes milliseconds."""
    trim = _malloc_trim()
    if trim is not None:
        trim(ctypes.c_size_t(0))


def long_lived(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An empty tensor in pages of its own, which go back to the system with it. On the heap it would lie between
    tensors of passes, which come and go: megabytes here and there that fit none of the next ones.

    Raises:
        MemoryError: the system has no room for it.
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or not size:
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    try:
        pages = mmap.mmap(-1, size, **_PRIVATE)
    except OSError as error:
        raise MemoryError(f"{size} bytes: {error.strerror}") from error
    return torch.frombuffer(pages, dtype=dtype).view(tuple(shape))


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return None
