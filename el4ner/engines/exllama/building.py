"""Compiling a library's extension: once, whoever asks, with progress, and again where it was cut off."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson
import psutil

from el4ner.engines.exllama import compiling
from el4ner.engines.exllama.capabilities import ARCHITECTURES_VARIABLE, Capability, format_architectures
from el4ner.engines.exllama.extension import (
    RECORD,
    BuildKey,
    Extension,
    build_key,
    extensions_folder,
    find_extension,
    wanted_architectures,
)
from el4ner.engines.exllama.ninja_output import NinjaOutput, first_error
from el4ner.engines.exllama.toolchain import BuildTools, find_build_tools, gpu_architectures, link_toolkit
from el4ner.errors import ModelError
from el4ner.models.child_process import run_logged
from el4ner.models.locking import exclusive
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = ["build_extension", "extension_environ"]

log = logging.getLogger(__name__)
_MEMORY_A_JOB: Final = 3_000_000_000
"""Bytes that one compiler may need: 2.4 GB was the most, measured with ExLlamaV2 0.3.2 and torch 2.15."""
_CHECK_SECONDS: Final = 300.0


def build_extension(
    library: str,
    cache_dir: Path,
    *,
    architectures: Sequence[Capability] = (),
    progress: Progress = NO_PROGRESS,
    tools: BuildTools | None = None,
) -> Extension:
    """Compile the library's extension into the cache folder, or take the one that is there.

    Processes that ask at once compile once. One that is killed leaves nothing that blocks the next, which goes on with
    the objects that are done. MAX_JOBS says how many compilers run at a time; by default what cores and memory allow.

    Args:
        library: the module's name; its extension is ``LIBRARY_ext``.
        cache_dir: el4ner's cache folder; TORCH_EXTENSIONS_DIR wins over it.
        architectures: the cards; empty for TORCH_CUDA_ARCH_LIST, or else for the cards here.
        progress: is told how many of the steps are done.
        tools: what to compile with; None looks.

    Raises:
        ModelError: something that compiling needs is missing, or it failed.
    """
    import torch

    cards = tuple(architectures) or wanted_architectures()
    folder = extensions_folder(cache_dir)
    existing = find_extension(library, folder, cards)
    if existing is not None and (cards or existing.origin == "prebuilt"):
        return existing
    if not cards:
        raise ModelError(
            f"{library}: for which cards is it to be compiled? torch finds no GPU here: name their compute capability, "
            f"as in `el4ner models gpu --build --arch 9.0`, or in {ARCHITECTURES_VARIABLE}"
        )
    key = build_key(library, cards)
    tools = tools or find_build_tools(torch.version.cuda)
    if tools.missing:
        raise ModelError(f"{library} has to be compiled, and {'; '.join(map(str, tools.missing))}")

    _check_architectures(cards, tools)

    def waiting() -> None:
        log.info("extension-built-by-another-process", extra={"library": library, "folder": str(folder)})
        progress.start(f"{library}: another process compiles it", 0)

    try:
        with exclusive(folder / f"{key.name}.lock", waiting=waiting):
            progress.done()
            existing = find_extension(library, folder, cards)
            return existing or _build(key, folder, tools, progress)
    except OSError as error:
        raise ModelError(
            f"{folder}: {library} cannot be compiled there: {error}: set EL4NER_CACHE_DIR or TORCH_EXTENSIONS_DIR to a "
            "folder that can be written to"
        ) from error


def extension_environ(library: str, cache_dir: Path, progress: Progress = NO_PROGRESS) -> dict[str, str]:
    """Variables for a process that is to find the library's extension, which is compiled where that was not done.

    Raises:
        ModelError: it is not there, and cannot be compiled.
    """
    extension = build_extension(library, cache_dir, progress=progress)
    if extension.origin == "prebuilt":
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(extension.path.parent), os.environ.get("PYTHONPATH")]))}


def _build(key: BuildKey, folder: Path, tools: BuildTools, progress: Progress) -> Extension:
    """Compile, check and publish; the lock is held."""
    work = folder / f".{key.name}.building"
    work.mkdir(parents=True, exist_ok=True)
    environ = _environ(key, folder, tools)
    jobs = environ["MAX_JOBS"]
    compiler = "none" if tools.compiler is None else f"nvcc {tools.compiler.version} ({tools.compiler.origin})"
    log.info(
        "extension-compiling",
        extra={
            "library": key.library,
            "architectures": format_architectures(key.architectures),
            "compiler": compiler,
            "jobs": jobs,
            "log": str(work / "log.txt"),
        },
    )
    began = time.monotonic()
    progress.start(f"{key.library}: preparing to compile", 0)  # half a minute, before ninja says its first word
    output = NinjaOutput(f"{key.library}: compiling ({jobs} at a time)", progress)
    command = [sys.executable, "-P", str(Path(compiling.__file__)), key.library, str(work)]
    try:
        code, said = run_logged(command, environ, work / "log.txt", output.read, watched=True)
    finally:
        output.close()
    extension = f"{key.library}_ext.so"
    if code != 0:
        reason = first_error("".join(said))
        raise ModelError(
            f"{key.library} could not be compiled: {reason} (all that was said: {work / 'log.txt'}); "
            "the same call goes on where it was"
        )
    staged = folder / f".{key.name}.staged"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    shutil.copyfile(work / extension, staged / extension)
    progress.start(f"{key.library}: importing it", 0)
    try:
        checked = _check(key.library, staged, environ)
    finally:
        progress.done()
    seconds = round(time.monotonic() - began, 1)
    record = {
        "library": key.library,
        "version": key.version,
        "torch": key.torch,
        "cuda": key.cuda,
        "abi": key.abi,
        "architectures": [str(card) for card in key.architectures],
        "compiler": compiler,
        "cxx": f"{tools.cxx} {tools.cxx_version}",
        "bytes": (staged / extension).stat().st_size,
        "seconds": seconds,
        "checked": checked,
    }
    (staged / RECORD).write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
    target = folder / key.name
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)
    shutil.rmtree(work, ignore_errors=True)
    log.info("extension-compiled", extra={"library": key.library, "seconds": seconds, "folder": str(target)})
    return Extension(target / extension, "built", key.architectures)


def _check_architectures(cards: Sequence[Capability], tools: BuildTools) -> None:
    """Before minutes are spent: raise a ModelError for a card that this compiler makes no code for."""
    if tools.compiler is None:
        return
    known = gpu_architectures(tools.compiler)
    refused = [str(card) for card in cards if known and (card.major, card.minor) not in known]
    if refused:
        listed = ", ".join(f"{major}.{minor}" for major, minor in sorted(known))
        raise ModelError(
            f"nvcc {tools.compiler.version} makes no code for compute capability {', '.join(refused)}: it makes it for "
            f"{listed}"
        )


def _environ(key: BuildKey, folder: Path, tools: BuildTools) -> dict[str, str]:
    environ = dict(os.environ)
    # The new process finds what this one does, however it was put on the path.
    environ["PYTHONPATH"] = os.pathsep.join(str(Path(entry or ".").absolute()) for entry in sys.path)
    environ[ARCHITECTURES_VARIABLE] = format_architectures(key.architectures)
    environ["MAX_JOBS"] = environ.get("MAX_JOBS") or str(_jobs())
    environ["PYTHONUNBUFFERED"] = "1"
    # An installation that nobody activated has ninja beside its Python, which is not on PATH.
    folders = [] if tools.ninja is None else [str(tools.ninja.parent)]
    environ["PATH"] = os.pathsep.join([*folders, environ.get("PATH", os.defpath)])
    if tools.compiler is not None:
        environ["CUDA_HOME"] = str(link_toolkit(tools.compiler, folder))
    # ninja's own way of writing `[7/48]`, which is read.
    environ.pop("NINJA_STATUS", None)
    return environ


_CHECK: Final = """
import importlib, sys, torch
sys.path.insert(0, sys.argv[2])
importlib.import_module(sys.argv[1] + "_ext")
if torch.cuda.is_available():
    importlib.import_module(sys.argv[1])
    torch.cuda.synchronize()
    print("imported on a GPU")
else:
    print("loaded without a GPU")
"""


def _check(library: str, folder: Path, environ: Mapping[str, str]) -> str:
    """Import it in a fresh process, all of the library where there is a GPU.

    Raises:
        ModelError: it cannot be imported.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHECK, library, str(folder)],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CHECK_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{library} was compiled, and importing it takes more than {_CHECK_SECONDS:.0f} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise ModelError(f"{library} was compiled, and cannot be imported: {said[-1]}")
    return done.stdout.strip().splitlines()[-1]


def _jobs() -> int:
    cores = len(os.sched_getaffinity(0))
    free = psutil.virtual_memory().available
    return max(1, min(cores, free // _MEMORY_A_JOB)) if free else cores
