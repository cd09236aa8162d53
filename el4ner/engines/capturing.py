"""What one thread must not do to a GPU while another records a CUDA graph, and what cannot be recorded.

A recording that fails cannot be taken back: torch's allocator goes on as if it were under way, and from then on giving
memory back fails in the whole process (``captures_underway.empty() INTERNAL ASSERT FAILED``). So recordings wait for
each other, memory is given back between them, and work that waits for the device is not recorded at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["RECORDING", "NoWaits", "give_memory_back"]

RECORDING: Final = threading.RLock()
"""Held by the thread that records."""

_READS: Final = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "bincount",
}
_INDEXING: Final = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""A mask as an index is counted first; numbers as an index are not."""
_MASKS: Final = (torch.bool, torch.uint8)
_COPIES: Final = {"copy_", "_to_copy"}


def give_memory_back() -> None:
    """``torch.cuda.empty_cache()``, when nobody records."""
    with RECORDING:
        torch.cuda.empty_cache()


class NoWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, this thread's work must neither read a tensor's values on the host nor copy between host and device.

    Raises:
        RuntimeError: it does.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _READS or (name == "repeat_interleave" and func._overloadname == "Tensor"):
            raise RuntimeError(f"the model waits for the device ({name})")
        if name in _INDEXING and any(index is not None and index.dtype in _MASKS for index in args[1]):
            raise RuntimeError(f"the model waits for the device ({name} by a mask)")
        with self:  # what an operation is made of, in inference mode
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        operation: Callable[..., Any] = func
        result = operation(*args, **(kwargs or {}))
        if name in _COPIES:
            source = args[1] if name == "copy_" else args[0]
            if source.device.type != result.device.type:
                raise RuntimeError(f"the model copies between host and device ({name})")
        return result
