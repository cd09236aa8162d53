"""Importing libraries that compile themselves, and saying in one line what is missing when they cannot."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Literal

from el4ner.errors import ModelError

__all__ = ["Library", "device_index", "import_library", "version_of"]

Library = Literal["exllamav2", "exllamav3"]
_INSTALL = {"exllamav2": "el4ner[gpu]", "exllamav3": "el4ner[exl3]"}


def import_library(library: Library) -> ModuleType:
    """The library's module, compiled if it has to be (minutes, once for a version of torch; needs nvcc).

    Raises:
        ModelError: there is no GPU, the library or the compiler is not installed, or its extension does not fit torch.
    """
    import torch

    if not torch.cuda.is_available():
        built = "is built without CUDA" if torch.version.cuda is None else "finds no GPU"
        raise ModelError(f"engine {library!r} needs a CUDA GPU: torch {torch.__version__} {built}")
    try:
        with _threads_kept():
            return importlib.import_module(library)
    except Exception as error:
        raise ModelError(explain(library, error)) from error


def explain(library: Library, error: BaseException) -> str:
    """One line: what kept ``library`` from being imported, and how to mend it."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        if error.name == library:
            return f"engine {library!r} is not installed: install {_INSTALL[library]}"
        return f"engine {library!r} lacks the module {error.name!r}: install {_INSTALL[library]} again"
    if "Error building extension" in text:
        return f"engine {library!r} could not be compiled: {_first_error(text)}"
    if "CUDA_HOME" in text or "nvcc" in text.lower():
        return (
            f"engine {library!r} compiles its CUDA sources when it is first used and found no nvcc: install the CUDA "
            "toolkit of torch's CUDA version, or set CUDA_HOME to it"
        )
    if "undefined symbol" in text or "cannot open shared object" in text:
        return (
            f"engine {library!r} was compiled for another torch or CUDA ({first}): remove its prebuilt extension or "
            "its folder in TORCH_EXTENSIONS_DIR, and it is compiled anew"
        )
    return f"engine {library!r} cannot be imported: {first}"


def version_of(library: Library) -> str:
    """The installed version, or ``unknown``."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def device_index(name: str, device: str) -> int:
    """The GPU that ``models.NAME.device`` means.

    Raises:
        ModelError: it is no GPU, or there are not so many.
    """
    import torch

    if device == "cpu":
        raise ModelError(f"models.{name}.device: this engine needs a GPU, not 'cpu'")
    index = int(device.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        raise ModelError(f"models.{name}.device: there is no {device!r}, there are {count} GPUs")
    return index


def _first_error(text: str) -> str:
    """The compiler's first complaint; its whole output is hundreds of lines."""
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()]
    told = [line for line in lines if "Error building extension" not in line]
    return (told or lines)[0][:400]


@contextmanager
def _threads_kept() -> Iterator[None]:
    """ExLlamaV2 sets torch to one thread for the whole process when it is imported."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
