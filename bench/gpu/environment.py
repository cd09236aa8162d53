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
from gpu.record import Record

__all__ = ["build", "describe", "first_errors", "install"]

SHOWN_LINES: Final = 12
NEEDED: Final = ("jinja2", "orjson", "pydantic", "scipy", "sentencex", "structlog", "transformers")
"""By el4ner, at once."""
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
    """Join what was carried, and unpack wheels into ``site``: nothing of the machine's own Python is changed."""
    record.doing("wheels")
    whole, missing = join(loads, work / "carried")
    wheels = [work / "carried" / name for name in whole if name.endswith(".whl")]
    record.put(carried=whole, not_whole=missing)
    if not wheels:
        return
    if importlib.util.find_spec("pip") is None:
        record.problem("wheels", f"{sys.executable} has no pip, so that none of {len(wheels)} wheels is used")
        return
    mark = site.with_name(f"{site.name}.wheels")
    listed = "\n".join(f"{wheel.name} {wheel.stat().st_size}" for wheel in wheels)
    if mark.is_file() and mark.read_text(encoding="utf-8") == listed:
        return  # unpacked again, sources would be newer than what was compiled of them
    site.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-warn-conflicts", "--upgrade", "--target", str(site)]
    done = subprocess.run([*command, *map(str, wheels)], capture_output=True, text=True, check=False)
    if done.returncode:
        for wheel in wheels:  # one that does not fit this Python keeps the others from nothing
            done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
            if done.returncode:
                record.problem(f"install {wheel.name}", done.stderr)
    mark.write_text(listed, encoding="utf-8")


def describe(record: Record, *, cpu: bool) -> None:
    """Values of the machine; a GPU that torch does not see is an error.

    Raises:
        RuntimeError: there is no GPU.
    """
    record.doing("torch")
    import torch

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
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"el4ner needs {', '.join(missing)}: carry them along (bench/gpu/pack.py --also NAME)")
    if cpu:
        record.put(gpu="none (--cpu)")
        return
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU; --cpu tries everything that is not CUDA")
    facts = torch.cuda.get_device_properties(0)
    record.put(
        gpu=facts.name,
        gpus=torch.cuda.device_count(),
        gpu_memory_gb=round(facts.total_memory / 1e9, 1),
        capability=".".join(map(str, torch.cuda.get_device_capability(0))),
        multiprocessors=facts.multi_processor_count,
    )


def build(record: Record, library: str, *, jobs: int) -> None:
    """Import ``library``, which compiles its extension if that was not done.

    Raises:
        RuntimeError: the first of what the compiler complained about.
    """
    os.environ["MAX_JOBS"] = str(jobs)
    record.put(architectures=os.environ.get("TORCH_CUDA_ARCH_LIST"), jobs=jobs)
    # A process that was ended while it compiled leaves its lock; whoever comes next would wait for it forever.
    for lock in Path(os.environ["TORCH_EXTENSIONS_DIR"]).glob(f"**/{library}_ext/lock"):
        lock.unlink(missing_ok=True)
    record.doing(library)
    began = time.monotonic()
    try:
        importlib.import_module(library)
    except Exception as error:
        raise RuntimeError("\n".join(first_errors(str(error))) or repr(error)) from error
    record.put(build_seconds=time.monotonic() - began, version=_version(library))
    record.doing(None)


def first_errors(text: str, lines: int = SHOWN_LINES) -> list[str]:
    """Of a compiler's output, which is thousands of lines: the first that name an error, or else the first."""
    every = [line.strip()[:300] for line in text.splitlines() if line.strip()]
    named = [line for line in every if "error" in line.lower() and not line.startswith(("/usr", "[", "ninja:"))]
    located = [line for line in every if ": error" in line or "fatal error" in line]
    return (located or named or every)[:lines]


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
