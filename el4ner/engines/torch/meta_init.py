"""Building a model whose weights come from a file, without drawing random ones first, and with matrices in the number
type that the file has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from typing_extensions import override

__all__ = ["SkipMetaInit"]


class SkipMetaInit(TorchFunctionMode):
    """Inside, ``torch.nn.init`` leaves tensors on the meta device as they are (they have no values to be filled), and
    ranges of numbers that are asked for there are made on the processor.

    transformers builds models on the meta device, and puts weights and rotary frequencies in afterwards. Drawing random
    numbers, dividing and copying shapes there is done by torch's reference implementations, which import SymPy and
    torch's compiler first: 5 seconds for nothing. Holds for this thread alone.

    Args:
        matrices: what matrices are made in on the meta device where nobody says what (None: torch's default). It is
            what transformers loads them in. A matrix in the number type of its file is mapped from there, not copied.
    """

    def __init__(self, matrices: torch.dtype | None = None) -> None:
        super().__init__()
        self._matrices = matrices

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = named.get("tensor", args[0] if args else None)
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        if func is torch.arange and str(named.get("device")) == "meta":
            del named["device"]
        if func is torch.empty and self._matrices is not None and str(named.get("device")) == "meta":
            shape = args[0] if args and isinstance(args[0], Sequence) else args
            if len(shape) == 2 and named.get("dtype") is None:
                named["dtype"] = self._matrices
        if func is torch.empty_like and args and args[0].is_meta and named.keys() <= {"device"}:
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=named.get("device", args[0].device))
        return func(*args, **named)
