"""Importing transformers without what runs no model on one device: in processes that are el4ner's own.

To read one sentence with one model, transformers imports scikit-learn and pandas (for assisted generation), SciPy (for
losses), torch's distributed tensors and SymPy (for sharding), flex attention, and torch's compiler: 10 of 14 seconds.
It does so wherever they are installed, and sentence-transformers and torch bring them all. It asks functions of its own
whether they are there. Here these say no.

That is for good in the process, and transformers could then not shard, nor compute every loss. So a program that uses
this library does not get it unasked; the command line and the workers ask for it (:func:`leave_out_unused_parts`).
Whatever goes wrong, as it may with another version, the import is undone and made plainly.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Final

__all__ = ["collection_paused", "import_transformers", "leave_out_unused_parts", "without_compiler"]

UNUSED: Final = (
    "is_flash_linear_attention_available",
    "is_scipy_available",
    "is_sklearn_available",
    "is_torch_distributed_available",
    "is_torch_flex_attn_available",
)
"""Functions of ``transformers.utils`` that say whether something is there; a version may lack some of them."""
_MODULES: Final = ("transformers.modeling_utils", "transformers.models.auto.modeling_auto")
_COMPILER: Final = "torch._dynamo"
_TRACING: Final = "torch._dynamo._trace_wrapped_higher_order_op"

log = logging.getLogger(__name__)
_wanted = False


def leave_out_unused_parts() -> None:
    """From now on :func:`import_transformers` leaves them out: this process runs el4ner's models and nothing else."""
    global _wanted
    _wanted = True


def import_transformers() -> None:
    """Import what the transformers engine needs of transformers; without the unused parts if that was asked for."""
    if not _wanted or _MODULES[0] in sys.modules:
        return
    before = set(sys.modules)
    restore: list[Callable[[], None]] = []
    try:
        with without_compiler():
            utils = [import_module("transformers.utils"), import_module("transformers.utils.import_utils")]
            restore = [_say_no(module, name) for module in utils for name in UNUSED if hasattr(module, name)]
            for name in _MODULES:
                import_module(name)
    except Exception as error:
        log.info("transformers is imported whole", extra={"error": f"{type(error).__name__}: {error}"})
        for undo in restore:
            undo()
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "transformers":
                del sys.modules[name]


def _say_no(module: ModuleType, name: str) -> Callable[[], None]:
    real = getattr(module, name)
    setattr(module, name, _no)
    return lambda: setattr(module, name, real)


def _no(*_: Any, **__: Any) -> bool:
    return False


@contextmanager
def collection_paused() -> Iterator[None]:
    """Inside, no garbage is collected: imports make hundreds of thousands of objects that stay, and going through them
    again and again takes a tenth of their time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, torch's compiler is not imported for decorators that say how functions are compiled: nothing here is.
    Afterwards it is imported as ever, should anything compile. Does nothing where unused parts are to be there."""
    import torch

    if not _wanted or _COMPILER in sys.modules:
        yield
        return
    compiler, tracing = ModuleType(_COMPILER), ModuleType(_TRACING)
    compiler.__path__ = []
    for name in ("allow_in_graph", "assume_constant_result", "disable"):
        setattr(compiler, name, _undecorated)
    tracing.TransformGetItemToIndex = _TransformGetItemToIndex  # type: ignore[attr-defined]
    sys.modules |= {_COMPILER: compiler, _TRACING: tracing}
    torch._dynamo = compiler
    try:
        yield
    finally:
        del sys.modules[_COMPILER], sys.modules[_TRACING], torch._dynamo


def _undecorated(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if function is not None else _undecorated


class _TransformGetItemToIndex:
    """The real one, from where it really is."""

    def __new__(cls) -> Any:
        """An instance of the class of torch."""
        return import_module(_TRACING).TransformGetItemToIndex()
