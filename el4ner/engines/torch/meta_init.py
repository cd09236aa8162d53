"""Building a model whose weights come from a file, without drawing random ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    """

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
        if func is torch.empty_like and args and args[0].is_meta and named.keys() <= {"device"}:
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=named.get("device", args[0].device))
        return func(*args, **named)
