"""What a process runs to compile one library's extension: ``python -P compiling.py LIBRARY FOLDER``.

It imports the library, whose own call of ``torch.utils.cpp_extension.load`` names sources and flags; only the folder is
ours, and that ninja's output is shown. It imports nothing of el4ner, so that it runs wherever torch and the library do.

The system lets go of its lock when it dies. It ends with the process that started it, and ninja and the compilers with
it: that process holds the other end of standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["main"]

_GRACE = 10.0
"""Seconds in which ninja may end its compilers."""


class _CompiledError(BaseException):
    """Ends the import, which has done what it was for; no ``except Exception`` of the library may stop it."""


def main(library: str, folder: Path) -> int:
    """Compile ``LIBRARY_ext.so`` into ``folder``; finished objects in it are kept. The exit code."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # ninja ends, and then so does this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "compiling.lock").open("w") as lock:
        # A process of a build that was cut off may still be about to end.
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Before 2.15 torch waited forever for whoever had made this file, also if it had died.
        (folder / "lock").unlink(missing_ok=True)
        return _compile(library, folder)


def _compile(library: str, folder: Path) -> int:
    from torch.utils import cpp_extension

    load = cpp_extension.load
    compiled = folder / f"{library}_ext.so"

    def load_here(name: str, *arguments: Any, **options: Any) -> Any:
        module = load(name, *arguments, **{**options, "build_directory": str(folder), "verbose": True})
        if name == f"{library}_ext":
            raise _CompiledError
        return module

    cpp_extension.load = load_here
    try:
        importlib.import_module(library)
    except _CompiledError:
        pass
    except ImportError as error:
        # Compiled, but it cannot be loaded here: whether that matters is for whoever checks it.
        if not compiled.is_file():
            raise
        sys.stderr.write(f"{error}\n")
    if not compiled.is_file():
        sys.stderr.write(f"{library} was imported, and compiled no {compiled.name}\n")
        return 1
    return 0


def _end_with_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.killpg(0, signal.SIGTERM)
    threading.Event().wait(_GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
