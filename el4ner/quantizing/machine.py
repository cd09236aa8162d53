"""What this machine has of what quantising needs, and in one line what it lacks."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from el4ner.errors import ModelError
from el4ner.models.quantized import QuantizedFormat, QuantizedName
from el4ner.models.shapes import ModelShape

__all__ = ["LIBRARIES", "Machine", "check_room", "check_tools", "look"]

GB: Final = 1_000_000_000
LIBRARIES: Final[dict[QuantizedFormat, str]] = {"exl2": "exllamav2", "exl3": "exllamav3"}
INSTALLS: Final[dict[QuantizedFormat, str]] = {"exl2": "el4ner[gpu]", "exl3": "el4ner[exl3]"}
_ROWS: Final[dict[QuantizedFormat, int]] = {"exl2": 100, "exl3": 250}
"""Calibration texts of 2,048 tokens, whose hidden states are kept: at least once, with the checkpoint on disk."""


@dataclass(frozen=True, slots=True)
class Machine:
    """``gpus``: free bytes of each, as torch sees them; ``memory``: free bytes, 0 where nobody says; ``compiled``: the
    library's CUDA sources have been; ``missing``: what compiling them lacks, each with how to mend it."""

    installed: bool
    gpus: tuple[int, ...]
    compiled: bool
    missing: tuple[str, ...]
    memory: int

    def free_disk(self, folder: Path) -> int:
        """Bytes that are free where ``folder`` is, or will be."""
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


def look(form: QuantizedFormat, cache_dir: Path) -> Machine:
    """What there is. Imports torch, but not the library: that would compile it."""
    from el4ner.engines.exllama.extension import extensions_folder, find_extension, wanted_architectures
    from el4ner.engines.exllama.toolchain import find_build_tools

    library = LIBRARIES[form]
    installed = importlib.util.find_spec(library) is not None
    gpus: tuple[int, ...] = ()
    compiled = False
    missing: tuple[str, ...] = ()
    if installed:
        import torch

        if torch.cuda.is_available():
            gpus = tuple(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
        compiled = find_extension(library, extensions_folder(cache_dir), wanted_architectures()) is not None
        missing = tuple(map(str, find_build_tools(torch.version.cuda).missing))
    return Machine(installed, gpus, compiled, missing, psutil.virtual_memory().available)


def check_tools(form: QuantizedFormat, machine: Machine, gpu: int) -> None:
    """Before gigabytes are fetched: raise a ModelError if the library, that GPU or a compiler is missing."""
    if not machine.installed:
        raise ModelError(f"quantising to {form.upper()} needs {LIBRARIES[form]}: install {INSTALLS[form]}")
    if not machine.gpus:
        raise ModelError("quantising needs an NVIDIA GPU, and torch finds none here: run it on a machine that has one")
    if gpu >= len(machine.gpus):
        raise ModelError(f"there is no GPU {gpu}: torch finds {len(machine.gpus)}, the first is 0")
    if not machine.compiled and machine.missing:
        raise ModelError(f"{LIBRARIES[form]} has to be compiled, and {'; '.join(machine.missing)}")


def check_room(name: QuantizedName, shape: ModelShape, machine: Machine, *, work: Path, output: Path, gpu: int) -> None:
    """Before hours are spent.

    Args:
        name: what is made.
        shape: of the source.
        machine: what there is; :func:`check_tools` has passed.
        work: the folder for intermediate files.
        output: the folder of the result.
        gpu: the number of the GPU that works.

    Raises:
        ModelError: the GPU, memory or disk is too small for certain.
    """
    form = name.format
    needed = gpu_bytes(shape)
    if machine.gpus[gpu] < needed:
        raise ModelError(
            f"{name.source}: quantising it takes at least {needed / GB:.1f} GB of GPU {gpu}, and "
            f"{machine.gpus[gpu] / GB:.1f} GB are free: stop what uses it, or take another with --gpu"
        )
    needed = memory_bytes(shape, form)
    if machine.memory and machine.memory < needed:
        raise ModelError(
            f"{name.source}: quantising it takes at least {needed / GB:.1f} GB of memory, and "
            f"{machine.memory / GB:.1f} GB are free"
        )
    result = result_bytes(shape, name)
    for folder, needed in ((output, result), (work, result + _state_bytes(shape, form))):
        free = machine.free_disk(folder)
        if free < needed:
            raise ModelError(
                f"{folder}: quantising {name.source} takes {needed / GB:.1f} GB of disk there, and {free / GB:.1f} GB "
                "are free: set EL4NER_CACHE_DIR, or --output, to a larger disk"
            )


def gpu_bytes(shape: ModelShape) -> int:
    """A matrix in 32 bits three times, its inputs' products with each other, and what CUDA and the library take: no
    conversion gets by with less."""
    widest = max(shape.hidden_size, shape.intermediate_size, shape.heads * shape.head_dim)
    return max(shape.linear_sizes) * 4 * 3 + widest * widest * 4 * 2 + GB


def memory_bytes(shape: ModelShape, form: QuantizedFormat) -> int:
    """Of the host: the calibration texts' hidden states, and a layer in 16 bits."""
    return _state_bytes(shape, form) + shape.decoder_parameters // shape.layers * 2 + GB


def result_bytes(shape: ModelShape, name: QuantizedName) -> int:
    """The files of the result, embeddings in 16 bits among them."""
    head = min(16.0, name.head_bits + 0.6)
    return int(shape.decoder_parameters * name.bits / 8 + shape.embedding_parameters * (2 + head / 8))


def _state_bytes(shape: ModelShape, form: QuantizedFormat) -> int:
    return _ROWS[form] * 2048 * shape.hidden_size * 2
