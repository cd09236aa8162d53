"""A library's compiled extension: where it is, and compiling it once for this torch, Python and these cards.

In the cache folder, or in TORCH_EXTENSIONS_DIR where that is set::

    extensions/exllamav2-0.3.2-torch2.15.0+cu132-cuda13.2-cpython-311-x86_64-linux-gnu-sm90/
        exllamav2_ext.so    imported as it is: nvcc and ninja are needed for compiling alone
        build.json          what it was compiled with
    extensions/.….building/     objects and log.txt of a build that goes on, or was cut off and is gone on with
    extensions/cuda-13.2-…/     links to the compiler's wheels (:func:`el4ner.engines.exllama.toolchain.link_toolkit`)
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from el4ner.engines.exllama import compiling
from el4ner.engines.exllama.capabilities import (
    ARCHITECTURES_VARIABLE,
    Capability,
    covers,
    format_architectures,
    parse_architectures,
)
from el4ner.engines.exllama.ninja_output import NinjaOutput, first_error
from el4ner.engines.exllama.toolchain import BuildTools, find_build_tools, gpu_architectures, link_toolkit
from el4ner.errors import ModelError
from el4ner.models.locking import exclusive
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = [
    "BuildKey",
    "Extension",
    "build_extension",
    "build_key",
    "extension_environ",
    "extensions_folder",
    "find_extension",
    "load_extension",
    "wanted_architectures",
]

log = logging.getLogger(__name__)
_RECORD: Final = "build.json"
_MEMORY_A_JOB: Final = 3_000_000_000
"""Bytes that one compiler may need: 2.4 GB was the most, measured with ExLlamaV2 0.3.2 and torch 2.15."""
_LAST_LINES: Final = 4_000
_PATIENCE: Final = 20.0
"""Seconds in which a build that is told to end may do so by itself."""
_CHECK_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class BuildKey:
    """What a compiled extension depends on. ``abi``: of Python, with the machine's architecture."""

    library: str
    version: str
    torch: str
    cuda: str
    abi: str
    architectures: tuple[Capability, ...]

    @property
    def stem(self) -> str:
        """All of it but the cards."""
        return f"{self.library}-{self.version}-torch{self.torch}-cuda{self.cuda}-{self.abi}"

    @property
    def name(self) -> str:
        """The folder's name."""
        cards = "_".join(
            f"{card.major}{card.minor}{card.suffix}{'ptx' if card.ptx else ''}" for card in self.architectures
        )
        return f"{self.stem}-sm{cards}"


@dataclass(frozen=True, slots=True)
class Extension:
    """A compiled extension that is there.

    ``origin``: ``built`` by el4ner; ``prebuilt``: compiled elsewhere and on Python's path, so that the library takes it
    by itself, for which cards is not known.
    """

    path: Path
    origin: Literal["built", "prebuilt"]
    architectures: tuple[Capability, ...] | None = None


def extensions_folder(cache_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where compiled extensions are."""
    given = environ.get("TORCH_EXTENSIONS_DIR")
    return Path(given).expanduser().absolute() if given else cache_dir.absolute() / "extensions"


def wanted_architectures(environ: Mapping[str, str] = os.environ) -> tuple[Capability, ...]:
    """What to compile for: TORCH_CUDA_ARCH_LIST, else the cards that torch sees; empty where there are none."""
    text = environ.get(ARCHITECTURES_VARIABLE, "").strip()
    if text and text != "native":
        return parse_architectures(text)
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(sorted({_capability_of(index) for index in range(torch.cuda.device_count())}))


def build_key(library: str, architectures: Sequence[Capability]) -> BuildKey:
    """For the library and the torch that are installed.

    Raises:
        ModelError: the library is not installed, or torch is built without CUDA.
    """
    import torch

    try:
        version = importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError as error:
        extra = "exl3" if library == "exllamav3" else "gpu"
        raise ModelError(f"{library} is not installed: install el4ner[{extra}]") from error
    abi = sysconfig.get_config_var("SOABI") or f"{sys.implementation.cache_tag}-{os.uname().machine}"
    return BuildKey(
        library, version, torch.__version__, torch.version.cuda or "none", abi, tuple(sorted(set(architectures)))
    )


def find_extension(library: str, folder: Path, architectures: Sequence[Capability]) -> Extension | None:
    """What ``import library`` can use on cards of these architectures without compiling, if there is such.

    A prebuilt one comes first, as it does for the library; then one of exactly this key; then one of more cards.
    Without ``architectures`` any one that was built for this library, torch and Python is returned.
    """
    path = _on_path(f"{library}_ext")
    if path is not None:
        compiled = _compiled_for(path.parent)
        return Extension(path, "prebuilt" if compiled is None else "built", compiled)
    try:
        key = build_key(library, architectures)
    except ModelError:
        return None
    folders = [folder / key.name, *sorted(folder.glob(f"{_escape(key.stem)}-sm*"))]
    for candidate in folders:
        path = candidate / f"{library}_ext.so"
        compiled = _compiled_for(candidate)
        if path.is_file() and compiled is not None and covers(compiled, key.architectures):
            return Extension(path, "built", compiled)
    return None


def extension_environ(library: str, cache_dir: Path, progress: Progress = NO_PROGRESS) -> dict[str, str]:
    """Variables for a process that is to find the library's extension, which is compiled where that was not done.

    Raises:
        ModelError: it is not there, and cannot be compiled.
    """
    extension = build_extension(library, cache_dir, progress=progress)
    if extension.origin == "prebuilt":
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(extension.path.parent), os.environ.get("PYTHONPATH")]))}


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
    if _on_path(name) is not None:
        return  # the library's own import takes it
    spec = importlib.util.spec_from_file_location(name, extension.path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{extension.path}: is no module that this Python can load")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module


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
    output = NinjaOutput(f"{key.library}: compiling with {jobs} jobs", progress)
    command = [sys.executable, "-P", str(Path(compiling.__file__)), key.library, str(work)]
    try:
        code, text = _run(command, environ, work / "log.txt", output)
    finally:
        output.close()
    extension = f"{key.library}_ext.so"
    if code != 0:
        raise ModelError(
            f"{key.library} could not be compiled: {first_error(text)} (all that was said: {work / 'log.txt'}); the "
            "same call goes on where it was"
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
        "seconds": seconds,
        "checked": checked,
    }
    (staged / _RECORD).write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
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


def _run(command: Sequence[str], environ: Mapping[str, str], log_file: Path, output: NinjaOutput) -> tuple[int, str]:
    """The exit code, and the last lines. The process ends when this one does, however that happens."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with (
        log_file.open("a", encoding="utf-8") as written,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environ,
            start_new_session=True,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                written.write(line)
                written.flush()
                last.append(line)
                output.read(line)
            return process.wait(), "".join(last)
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


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
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CHECK, library, str(folder)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=_CHECK_SECONDS,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise ModelError(f"{library} was compiled, and cannot be imported: {said[-1]}")
    return done.stdout.strip().splitlines()[-1]


def _jobs() -> int:
    cores = len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, pages // _MEMORY_A_JOB))


def _on_path(extension: str) -> Path | None:
    """The file that importing it would load."""
    try:
        spec = importlib.util.find_spec(extension)
    except ValueError:  # a module without a file has its place
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.origin.endswith(".so") else None


def _compiled_for(folder: Path) -> tuple[Capability, ...] | None:
    try:
        record = orjson.loads((folder / _RECORD).read_bytes())
        return parse_architectures(";".join(record["architectures"]), str(folder / _RECORD))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _capability_of(index: int) -> Capability:
    """Of a card; newer ones than torch itself is compiled for get what torch has for its newest."""
    import torch

    card = Capability(*torch.cuda.get_device_capability(index))
    known = [
        Capability(int(digits[:-1]), int(digits[-1]))
        for name in torch.cuda.get_arch_list()
        if name.startswith("sm_") and (digits := name.removeprefix("sm_").rstrip("af")).isdigit()
    ]
    if known and card > max(known):
        newest = max(known)
        return card if card.major == newest.major else Capability(newest.major, newest.minor, ptx=True)
    return card


def _escape(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
