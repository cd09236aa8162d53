"""How the processor threads of torch wait for their next piece of work: asleep, in any process that uses this library.

A forward pass of a small model is some hundred short parallel regions. Between them the threads of torch's OpenMP
library, libgomp, spin: up to 300,000 turns, which is 3 to 17 ms, so in effect always. That is a little faster where
nothing else wants the cores. Where anything does (a broker, another process, the hypervisor's other guests), the thread
that spins holds the core that the thread it waits for needs. libgomp gives up spinning after 100 turns when its threads
are more than the processors, but one thread that calls torch makes a team exactly as large as the machine, and then it
takes the machine for its own.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Final

__all__ = ["POLICIES", "import_torch"]

POLICIES: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which somebody has decided how OpenMP's threads wait. It reads them when it is loaded."""

log = logging.getLogger(__name__)
_lock = threading.Lock()
_held = False


def import_torch(environ: Mapping[str, str] = os.environ) -> None:
    """Import torch such that its waiting threads sleep; may be called any number of times, on any thread.

    Where torch is not imported yet, libgomp is told so in the way that it documents, by ``OMP_WAIT_POLICY``; the
    variable is gone again afterwards. Where the program has imported torch before, libgomp has read its variables, and
    is brought to its short spin by threads that do nothing (:func:`_hold_idle_team`). Either holds for the whole
    process. Where one of :data:`POLICIES` is set, it is left to that.
    """
    with _lock:
        if any(environ.get(name) for name in POLICIES):
            import_module("torch")
        elif "torch" not in sys.modules:
            with _passive():
                import_module("torch")
        else:
            _hold_idle_team()


@contextmanager
def _passive() -> Iterator[None]:
    """Until it is loaded, ``OMP_WAIT_POLICY`` is set. It does not stay: children may want another."""
    global _held
    if _is_loaded():  # by another package, though not yet by torch: it has read the variables
        yield
        _hold_idle_team()
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    try:
        yield
    finally:
        os.environ.pop("OMP_WAIT_POLICY", None)
    _held = True


def _hold_idle_team() -> None:
    """Make libgomp's threads one more than the processors, by a team that sleeps until the process ends.

    libgomp keeps a team's threads as long as the thread lives that called for them, and counts them all. What they
    run once is a function of libgomp's own that returns at once.
    """
    global _held
    if _held:
        return
    _held = True
    library = _libgomp()
    if library is None:
        log.info("torch does not run on libgomp: its threads wait as they are configured to")
        return
    processors = len(os.sched_getaffinity(0))
    if processors == 1:
        return  # nobody to wait for
    ready = threading.Event()

    def hold() -> None:
        library.GOMP_parallel(
            ctypes.cast(library.omp_get_level, ctypes.c_void_p), None, ctypes.c_uint(processors + 1), ctypes.c_uint(0)
        )
        ready.set()
        threading.Event().wait()

    threading.Thread(target=hold, name="idle-openmp-team", daemon=True).start()
    ready.wait()


def _libgomp() -> ctypes.CDLL | None:
    """The copy of libgomp that torch uses. Other packages may have loaded copies of their own."""
    loaded = _loaded()
    of_torch = [path for path in loaded if "torch" in path.parts] or loaded
    return ctypes.CDLL(str(of_torch[0])) if of_torch else None


def _is_loaded() -> bool:
    """Whether a libgomp is loaded that torch would share: not a copy that another package brought for itself alone."""
    return any(path.name == "libgomp.so.1" for path in _loaded())


def _loaded() -> list[Path]:
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if "libgomp" in line and "/" in line}
    return sorted(Path(path) for path in paths if Path(path).name.startswith("libgomp"))
