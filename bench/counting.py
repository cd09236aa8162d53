"""Counts what a call asks of a device, on a machine that has none.

Tensors are followed by their memory: those that were told to be on the device (weights, the cache, what is made with
an explicit ``device=`` or moved by ``.to``), and whatever is computed of them. An operation on one of them is a launch
unless it is a view or only takes memory. A host tensor that meets them has to be copied first; from then on it is on
the device. What reads a device tensor's values on the host (``.item()``, ``.tolist()``, ``.cpu()``, ``bool``, a mask as
an index) waits for the device.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

__all__ = ["DeviceCounts"]

_HERE: Final = Path(__file__).name
_ONLY_MEMORY: Final = {
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::_unsafe_view",
    "aten::_reshape_alias",
    "aten::lift_fresh",
    "aten::resize_",
    "aten::set_",
}
_KERNELS: Final = {"aten::linear", "aten::matmul", "aten::scaled_dot_product_attention", "aten::embedding"}
"""Composites that are one kernel each; other composites are taken apart."""
_MADE: Final = (torch.arange, torch.zeros, torch.ones, torch.full, torch.empty, torch.rand, torch.randn)
_GIVEN: Final = (torch.tensor, torch.as_tensor)
_READ: Final = {
    "item",
    "tolist",
    "cpu",
    "numpy",
    "__array__",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "nonzero",
    "equal",
}


class DeviceCounts:
    """``with counts:`` around what is counted.

    Args:
        package: names of packages, for :attr:`places`: a wait or copy is noted at the innermost line of one of them.
    """

    def __init__(self, *packages: str) -> None:
        self.launches = 0
        self.copies = 0
        self.waits = 0
        self.operations: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self._packages = packages
        self._on_device: dict[int, StorageWeakRef] = {}
        self._modes: list[Any] = []

    def on_device(self, tensors: Iterable[torch.Tensor]) -> None:
        """These are on the device."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._on_device[storage._cdata] = StorageWeakRef(storage)

    def is_on_device(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor's memory is on the device."""
        known = self._on_device.get(tensor.untyped_storage()._cdata)
        return known is not None and not known.expired()

    def copy(self, what: str, *, waits: bool = False) -> None:
        """A copy between host and device; ``waits``: until the device is idle."""
        self.copies += 1
        self._note(f"copy {what}")
        if waits:
            self.wait(what)

    def wait(self, what: str) -> None:
        """The host waits for the device."""
        self.waits += 1
        self._note(f"wait {what}")

    def one_launch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` as one launch, whatever it does here."""

        def counted(*given: Any, **named: Any) -> Any:
            self.launches += 1
            self.operations[name] += 1
            result = self.uncounted(function)(*given, **named)
            if isinstance(result, torch.Tensor):
                self.on_device([result])
            return result

        return counted

    def uncounted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` as something that the device has no part in."""

        def apart(*given: Any, **named: Any) -> Any:
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                return function(*given, **named)

        return apart

    def take(self) -> dict[str, Any]:
        """What was counted since the last time."""
        counted = {
            "launches": self.launches,
            "copies": self.copies,
            "waits": self.waits,
            "operations": dict(self.operations.most_common()),
            "places": dict(self.places.most_common()),
        }
        self.launches = self.copies = self.waits = 0
        self.operations.clear()
        self.places.clear()
        return counted

    def __enter__(self) -> DeviceCounts:
        self._modes = [_Calls(self), _Operations(self)]
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)
        self._modes = []

    def _note(self, what: str) -> None:
        for frame in reversed(traceback.extract_stack(limit=30)):
            if any(f"/{package}/" in frame.filename for package in self._packages) and _HERE not in frame.filename:
                self.places[f"{what} at {'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}"] += 1
                return


class _Calls(TorchFunctionMode):
    """What is asked for by name, before it is taken apart: devices, and readings of values."""

    def __init__(self, counts: DeviceCounts) -> None:
        self._counts = counts

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        counts, named = self._counts, kwargs or {}
        name = getattr(func, "__name__", "")
        own = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if name in _READ and own is not None and counts.is_on_device(own):
            counts.wait(name)
            return counts.uncounted(own.clone if name == "cpu" else func)(*(() if name == "cpu" else args), **named)
        if name in ("__getitem__", "__setitem__") and own is not None and counts.is_on_device(own):
            for index in args[1] if isinstance(args[1], tuple) else (args[1],):
                if isinstance(index, torch.Tensor) and index.dtype == torch.bool and name == "__getitem__":
                    counts.wait("for a mask as an index")
        result = func(*args, **named)
        if named.get("device") is not None and isinstance(result, torch.Tensor):
            if func in _MADE:
                counts.on_device([result])
                if func is not torch.empty:
                    counts.launches += 1
                    counts.operations[name] += 1
            elif func in _GIVEN:
                counts.on_device([result])
                counts.copy(name, waits=True)
        if name in ("to", "cuda") and own is not None and not counts.is_on_device(own) and _moves(args[1:], named):
            if result is own:
                result = own.clone()
            counts.on_device([result])
            counts.copy(name, waits=not named.get("non_blocking", False))
        return result


def _moves(args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    device = named.get("device", args[0] if args else None)
    return isinstance(device, (torch.device, str, int)) and not isinstance(device, bool)


class _Operations(TorchDispatchMode):
    """Every operation, with its tensors."""

    def __init__(self, counts: DeviceCounts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        counts, named = self._counts, kwargs or {}
        name = func._schema.name
        if name not in _KERNELS and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        ):
            with self:
                result = func.decompose(*args, **named)
            if result is not NotImplemented:
                return result
        given = [leaf for leaf in tree_leaves((args, named)) if isinstance(leaf, torch.Tensor)]
        result = func(*args, **named)
        there = [tensor for tensor in given if counts.is_on_device(tensor)]
        if not there:
            return result
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if name == "aten::copy_" and not counts.is_on_device(args[0]):
            counts.copy("to the host", waits=True)
            return result
        for tensor in given:
            if not counts.is_on_device(tensor) and tensor.dim() and tensor.numel():
                counts.copy(f"of a host tensor for {name}", waits=True)
                counts.on_device([tensor])
        if not _is_view(func) and name not in _ONLY_MEMORY:
            counts.launches += 1
            counts.operations[name] += 1
        counts.on_device(made)
        return result


def _is_view(func: Any) -> bool:
    returned = func._schema.returns
    return bool(returned) and all(one.alias_info is not None and not one.alias_info.is_write for one in returned)
