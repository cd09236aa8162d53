"""What this machine has of what the ExLlama engines need, and a line for each thing that it lacks."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from el4ner.engines.exllama.capabilities import Capability
from el4ner.engines.exllama.extension import Extension, extensions_folder, find_extension, wanted_architectures
from el4ner.engines.exllama.toolchain import BuildTools, Missing, find_build_tools

__all__ = ["Card", "Driver", "GpuReadiness", "LibraryState", "find_driver", "look"]

_LIBRARIES: Final = {"exllamav2": "el4ner[gpu]", "exllamav3": "el4ner[exl3]"}
_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver. ``version``: None where nothing says it; ``cuda``: the newest CUDA version that it knows."""

    version: str | None
    cuda: str


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, as torch sees it; ``memory``: bytes in all."""

    index: int
    name: str
    memory: int
    capability: str


@dataclass(frozen=True, slots=True)
class LibraryState:
    """``version``: None where it is not installed; ``extension``: what it can use here without compiling."""

    name: str
    version: str | None
    extension: Extension | None


@dataclass(frozen=True, slots=True)
class GpuReadiness:
    """All that there is. Nothing in ``missing``: the engine works, and compiles its extension first if it has to."""

    driver: Driver | None
    cards: tuple[Card, ...]
    torch: str
    torch_cuda: str | None
    architectures: tuple[Capability, ...]
    tools: BuildTools
    libraries: tuple[LibraryState, ...]
    flash_attn: str | None
    extensions: Path
    missing: tuple[Missing, ...]

    @property
    def ready(self) -> bool:
        """Whether the engine would load a model that fits."""
        return not self.missing

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain values, sizes in bytes."""
        tools = self.tools
        return {
            "ready": self.ready,
            "driver": None if self.driver is None else asdict(self.driver),
            "cards": [asdict(card) for card in self.cards],
            "torch": self.torch,
            "torch_cuda": self.torch_cuda,
            "architectures": [str(architecture) for architecture in self.architectures],
            "compiler": None
            if tools.compiler is None
            else {
                "origin": tools.compiler.origin,
                "version": tools.compiler.version,
                "nvcc": str(tools.compiler.nvcc),
            },
            "compilers_passed_over": list(tools.passed_over),
            "cxx": None if tools.cxx is None else {"path": str(tools.cxx), "version": tools.cxx_version},
            "ninja": _text(tools.ninja),
            "python_headers": _text(tools.python_headers),
            "can_build": not tools.missing,
            "extensions_folder": str(self.extensions),
            "libraries": [
                {
                    "name": library.name,
                    "version": library.version,
                    "extension": None
                    if library.extension is None
                    else {
                        "origin": library.extension.origin,
                        "path": str(library.extension.path),
                        "architectures": None
                        if library.extension.architectures is None
                        else [str(card) for card in library.extension.architectures],
                    },
                }
                for library in self.libraries
            ],
            "flash_attn": self.flash_attn,
            "missing": [{"what": item.what, "mend": item.mend} for item in self.missing],
        }


def look(cache_dir: Path, architectures: tuple[Capability, ...] = ()) -> GpuReadiness:
    """Look at everything. Imports torch, but neither library: that would compile it.

    ``architectures``: the cards that an extension is wanted for; empty for TORCH_CUDA_ARCH_LIST, or else those here.
    """
    import torch

    wanted = architectures or wanted_architectures()
    folder = extensions_folder(cache_dir)
    driver = find_driver()
    cards: tuple[Card, ...] = ()
    if torch.cuda.is_available():
        cards = tuple(
            Card(index, facts.name, facts.total_memory, f"{facts.major}.{facts.minor}")
            for index in range(torch.cuda.device_count())
            for facts in [torch.cuda.get_device_properties(index)]
        )
    tools = find_build_tools(torch.version.cuda)
    libraries = tuple(LibraryState(name, _version(name), find_extension(name, folder, wanted)) for name in _LIBRARIES)
    return GpuReadiness(
        driver=driver,
        cards=cards,
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        architectures=wanted,
        tools=tools,
        libraries=libraries,
        flash_attn=_version("flash-attn"),
        extensions=folder,
        missing=_missing(driver, cards, torch.version.cuda, libraries, tools),
    )


def find_driver() -> Driver | None:
    """The driver whose library can be loaded here."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int(0)
        if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return Driver(_driver_version(), f"{number.value // 1000}.{number.value % 1000 // 10}")


def _missing(
    driver: Driver | None,
    cards: tuple[Card, ...],
    torch_cuda: str | None,
    libraries: tuple[LibraryState, ...],
    tools: BuildTools,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Missing, ...]:
    missing = []
    if driver is None:
        missing.append(
            Missing(
                "there is no NVIDIA driver (libcuda.so.1 cannot be loaded)",
                "install the driver; a container needs `--gpus all` and the NVIDIA Container Toolkit",
            )
        )
    elif torch_cuda is not None and int(driver.cuda.split(".")[0]) < int(torch_cuda.split(".")[0]):
        missing.append(
            Missing(
                f"the driver knows CUDA {driver.cuda} at most, and torch is of CUDA {torch_cuda}",
                "install a newer driver, or a torch of the driver's CUDA version",
            )
        )
    elif not cards and torch_cuda is not None:
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        shown = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})"
        missing.append(Missing(f"torch finds no GPU{shown}", "see whether `nvidia-smi` lists one that may be used"))
    installed = [library for library in libraries if library.version is not None]
    if not installed:
        missing.append(Missing("exllamav2 is not installed", f"pip install '{_LIBRARIES['exllamav2']}'"))
    if torch_cuda is None or any(library.extension is None for library in installed):
        # An extension that is there needs none of this.
        missing += tools.missing
    return tuple(missing)


def _driver_version() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^NVRM version:.*?\s(\d{3,}(?:\.\d+)+)\s", text, re.MULTILINE)
    if match is not None:
        return match[1]
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(done.stdout.split()), None) if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
