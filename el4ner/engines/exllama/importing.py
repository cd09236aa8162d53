"""Importing libraries that are compiled first, and saying in one line what is missing when they cannot be."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

from typing_extensions import override

from el4ner.engines.exllama.building import build_extension
from el4ner.engines.exllama.extension import extension_on_path
from el4ner.engines.exllama.ninja_output import first_error
from el4ner.errors import El4nerError, ModelError
from el4ner.models.prepare import default_cache_dir
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = [
    "Library",
    "LoggedProgress",
    "device_index",
    "explain",
    "import_library",
    "load_extension",
    "version_of",
]

log = logging.getLogger(__name__)

Library = Literal["exllamav2", "exllamav3"]
_INSTALL = {"exllamav2": "el4ner[gpu]", "exllamav3": "el4ner[exl3]"}
_SECONDS_BETWEEN_RECORDS: Final = 15.0


def import_library(library: Library, cache_dir: Path | None = None) -> ModuleType:
    """The library's module. Its extension is compiled into ``cache_dir`` (None: el4ner's own) if that was not done.

    That takes minutes, once for a version of torch and Python and for a kind of card. What it needs, and how far it is,
    is logged.

    Raises:
        ModelError: there is no GPU, the library or a compiler is not installed, or its extension does not fit torch.
    """
    import torch

    if not torch.cuda.is_available():
        built = "is built without CUDA" if torch.version.cuda is None else "finds no GPU"
        raise ModelError(
            f"engine {library!r} needs a CUDA GPU: torch {torch.__version__} {built} (`el4ner models gpu` says more)"
        )
    try:
        with _threads_kept():
            load_extension(library, cache_dir or default_cache_dir(), LoggedProgress())
            return importlib.import_module(library)
    except El4nerError:
        raise
    except Exception as error:
        raise ModelError(explain(library, error)) from error


def load_extension(library: str, cache_dir: Path, progress: Progress = NO_PROGRESS) -> None:
    """Have ``import library`` find its extension; compile it where that was not done.

    Raises:
        ModelError: it is not there, and cannot be compiled.
        ImportError: it is there, and does not fit this torch.
    """
    name = f"{library}_ext"
    if name in sys.modules:
        return
    extension = build_extension(library, cache_dir, progress=progress)
    if extension_on_path(name) is not None:
        return  # the library's own import takes it
    spec = importlib.util.spec_from_file_location(name, extension.path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{extension.path}: is no module that this Python can load")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module


def explain(library: Library, error: BaseException) -> str:
    """One line: what kept ``library`` from being imported, and how to mend it."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        if error.name == library:
            return f"engine {library!r} is not installed: install {_INSTALL[library]}"
        return f"engine {library!r} lacks the module {error.name!r}: install {_INSTALL[library]} again"
    if "Error building extension" in text:
        return f"engine {library!r} could not be compiled: {first_error(text)}"
    if "CUDA_HOME" in text or "nvcc" in text.lower():
        return (
            f"engine {library!r} compiles its CUDA sources when it is first used and found no nvcc: install "
            f"{_INSTALL[library]}, which brings one, or the CUDA toolkit of torch's CUDA version (CUDA_HOME)"
        )
    if "file too short" in text or "invalid ELF header" in text:
        return (
            f"engine {library!r} cannot be imported: its extension is damaged ({first}): remove that file, and it is "
            "compiled anew"
        )
    if "undefined symbol" in text or "cannot open shared object" in text:
        return (
            f"engine {library!r} was compiled for another torch or CUDA ({first}): remove its prebuilt extension "
            "(`el4ner models gpu` shows where it is), and it is compiled anew"
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


class LoggedProgress(Progress):
    """An :class:`el4ner.models.progress.Progress` in the log: when something begins and ends, and now and then between.

    Its records are warnings: whoever waits for minutes shall see why, also where only warnings are shown.
    """

    def __init__(self) -> None:
        self._label = ""
        self._steps = self._total = 0
        self._began = self._said = 0.0

    @override
    def start(self, label: str, total: int) -> None:
        self._label, self._steps, self._total = label, 0, total
        self._began = self._said = time.monotonic()
        log.warning("extension-progress", extra={"step": label, "objects": 0, "of": total, "seconds": 0})

    @override
    def advance(self, steps: int) -> None:
        self._steps += steps
        now = time.monotonic()
        if self._steps == self._total or now - self._said >= _SECONDS_BETWEEN_RECORDS:
            self._said = now
            seconds = round(now - self._began)
            log.warning(
                "extension-progress",
                extra={"step": self._label, "objects": self._steps, "of": self._total, "seconds": seconds},
            )

    @override
    def done(self) -> None:
        pass


@contextmanager
def _threads_kept() -> Iterator[None]:
    """ExLlamaV2 sets torch to one thread for the whole process when it is imported."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
