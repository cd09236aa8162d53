"""What the machine has, wheels that were carried, and compiling the libraries' extensions."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gpu.loads import join
from gpu.paths import open_for_import
from gpu.prebuilt import EXTENSION, mismatch, prebuilt_file, try_out, unpack
from gpu.record import Record

__all__ = ["build", "describe", "first_errors", "install", "take_prebuilt"]

SHOWN_LINES: Final = 12
NEEDED: Final = (
    "gguf",
    "el4ner.loader",
    "el4ner.engines.registry",
    "el4ner.engines.torch.transformers_engine",
    "el4ner.models.prepare",
)
"""What the phases import: these bring everything that el4ner needs."""
PACKAGES: Final = (
    "torch",
    "transformers",
    "triton",
    "exllamav2",
    "exllamav3",
    "flash-attn",
    "xformers",
    "safetensors",
    "tokenizers",
    "numpy",
    "pydantic",
    "orjson",
    "sentencex",
    "pytest",
)


def install(record: Record, loads: Sequence[Path], work: Path, site: Path) -> None:
    """Join what was carried, and unpack wheels into ``site``: nothing of the machine's own Python is changed. Wheels
    that are there already stay as they are: unpacked again, sources would be newer than what was compiled of them."""
    record.doing("wheels")
    whole, missing = join(loads, work / "carried")
    wheels = [work / "carried" / name for name in whole if name.endswith(".whl")]
    record.put(carried=whole, not_whole=missing)
    mark = site.with_name(f"{site.name}.wheels")
    there = mark.read_text(encoding="utf-8").splitlines() if mark.is_file() else []
    wheels = [wheel for wheel in wheels if _line(wheel) not in there]
    # Asked in a process of its own: where setuptools is, to look for pip changes which distutils this one gets.
    if (
        wheels
        and subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode
    ):
        record.problem("wheels", f"{sys.executable} has no pip, so that none of {len(wheels)} wheels is used")
        wheels = []
    open_for_import(site)
    if not wheels:
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-warn-conflicts", "--upgrade", "--target", str(site)]
    done = subprocess.run([*command, *map(str, wheels)], capture_output=True, text=True, check=False)
    if done.returncode:
        for wheel in list(wheels):  # one that does not fit this Python keeps the others from nothing
            done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
            if done.returncode:
                record.problem(f"install {wheel.name}", done.stderr)
                wheels.remove(wheel)
    mark.write_text("\n".join([*there, *map(_line, wheels)]), encoding="utf-8")
    open_for_import(site)


def take_prebuilt(
    record: Record, source: Path | None, work: Path, folder: Path, *, capability: str | None = None
) -> None:
    """Unpack the extension that ``source`` has, or that was carried, into ``folder``; whether it fits is found out when
    it is tried. One that cannot be used is a problem, and no error: then the library compiles."""
    folder.mkdir(parents=True, exist_ok=True)
    carried = work / "carried" / "prebuilt"
    if source is None and not carried.is_dir():
        return
    record.doing("prebuilt")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    try:
        file = prebuilt_file(source or carried)
        reason = mismatch(file.name, python=python, torch=_version("torch"), capability=capability)
        if reason is None:
            unpack(file, folder)
            record.put(prebuilt=file.name)
        else:
            record.problem("prebuilt", f"{file.name}: {reason}")
    except ValueError as error:
        record.problem("prebuilt", error)


def describe(record: Record, *, cpu: bool) -> str | None:
    """Values of the machine; a GPU that torch does not see is an error.

    Returns:
        the GPU's compute capability, as ``9.0``; None without one.

    Raises:
        RuntimeError: there is no GPU, or a package is missing.
    """
    record.doing("torch")
    try:
        import torch
    except ImportError as error:
        raise RuntimeError(
            f"{sys.executable} cannot import torch ({error}): run with the Python of the machine's own torch, or after "
            "`uv sync --extra gpu --extra embedded` with .venv/bin/python"
        ) from error

    record.put(
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        cuda_of_torch=torch.version.cuda,
        packages={name: found for name in PACKAGES if (found := _version(name))},
        nvcc=_last_line(["nvcc", "--version"]),
        driver=_last_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        flash_attn=importlib.util.find_spec("flash_attn") is not None,
        ninja=shutil.which("ninja") is not None,
    )
    record.doing("imports")
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise RuntimeError(f"{name} needs {error.name}: carry it along (bench/gpu/pack.py --also NAME)") from error
    if cpu:
        record.put(gpu="none (--cpu)")
        return None
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU; --cpu tries everything that is not CUDA")
    facts = torch.cuda.get_device_properties(0)
    capability = ".".join(map(str, torch.cuda.get_device_capability(0)))
    record.put(
        gpu=facts.name,
        gpus=torch.cuda.device_count(),
        gpu_memory_gb=round(facts.total_memory / 1e9, 1),
        capability=capability,
        multiprocessors=facts.multi_processor_count,
    )
    return capability


def build(record: Record, library: str, cache_dir: Path, *, jobs: int, prebuilt: Path | None = None) -> None:
    """Have the library's extension where engines and converters look for it.

    Args:
        record: where to write.
        library: ``exllamav2`` or ``exllamav3``.
        cache_dir: el4ner's; TORCH_EXTENSIONS_DIR wins over it.
        jobs: compilers at the same time.
        prebuilt: a folder on the path that may have a compiled extension: one that does not fit is taken away.

    Raises:
        RuntimeError: what is missing, or the first of what the compiler complained about.
    """
    from el4ner.engines.exllama.building import build_extension
    from el4ner.engines.exllama.extension import extensions_folder

    began = time.monotonic()
    if prebuilt is not None and (prebuilt / EXTENSION).is_file():
        record.doing("prebuilt")
        reason = try_out(prebuilt)
        if reason is None:
            record.put(built="prebuilt", build_seconds=time.monotonic() - began, version=_version(library))
            record.doing(None)
            return
        (prebuilt / EXTENSION).unlink()
        importlib.invalidate_caches()
        record.problem("prebuilt", f"it does not fit, so that the library compiles: {reason}")
    os.environ["MAX_JOBS"] = str(jobs)
    record.put(architectures=os.environ.get("TORCH_CUDA_ARCH_LIST"), jobs=jobs)
    record.doing(library)
    began = time.monotonic()
    try:
        build_extension(library, cache_dir)
    except Exception as error:
        errors = [
            line
            for log in extensions_folder(cache_dir).glob(f".{library}-*/log.txt")
            for line in first_errors(log.read_text(encoding="utf-8", errors="replace"))
        ]
        raise RuntimeError("\n".join([str(error), *errors])) from error
    record.put(built="compiled", build_seconds=time.monotonic() - began, version=_version(library))
    record.doing(None)


def first_errors(text: str, lines: int = SHOWN_LINES) -> list[str]:
    """Of a compiler's output, which is thousands of lines: the first that name an error, or else the first."""
    every = [line.strip()[:300] for line in text.splitlines() if line.strip()]
    named = [line for line in every if "error" in line.lower() and not line.startswith(("/usr", "[", "ninja:"))]
    located = [line for line in every if ": error" in line or "fatal error" in line]
    return (located or named or every)[:lines]


def _line(wheel: Path) -> str:
    return f"{wheel.name} {wheel.stat().st_size}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _last_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines: list[Any] = done.stdout.strip().splitlines()
    return str(lines[-1]) if lines else None
