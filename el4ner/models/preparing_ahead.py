"""Packaged models that are not prepared yet, prepared by other processes while this one imports what runs them.

As a program: ``python -P -m el4ner.models.preparing_ahead SOURCE FOLDER``. It ends when its standard input does, and so
with the process that started it, however that ends. What it cannot prepare, whoever needs it finds missing, prepares
itself, and says what is wrong.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from el4ner.errors import ModelError
from el4ner.models.catalogue import PREFIX, packaged
from el4ner.models.prepare import prepare, prepared_folder, resolve

__all__ = ["prepared_ahead"]


@contextlib.contextmanager
def prepared_ahead(sources: Iterable[str], cache_dir: Path) -> Iterator[None]:
    """Inside, processes prepare those packaged models of ``sources`` that are not prepared and nobody prepares: one
    each, where there are several processors. :func:`~el4ner.models.prepare.prepare` waits for them. At the end of the
    block those that are still at work are ended."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        if len(os.sched_getaffinity(0)) > 1:
            missing = [source for source in dict.fromkeys(sources) if _missing(source, cache_dir)]
            processes += [_started(source, cache_dir) for source in missing]
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _missing(source: str, cache_dir: Path) -> bool:
    try:
        if not source.startswith(PREFIX) or resolve(source, cache_dir) is not None:
            return False
        return not _is_locked(prepared_folder(packaged(source), cache_dir).with_suffix(".lock"))
    except ModelError:
        return False  # whoever prepares it says why


def _is_locked(lock: Path) -> bool:
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True


def _started(source: str, cache_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "el4ner.models.preparing_ahead", source, str(cache_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end_with_standard_input() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _main(source: str, folder: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through everything that cleans up
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    with contextlib.suppress(ModelError):
        prepare(source, Path(folder))


if __name__ == "__main__":
    _main(*sys.argv[1:])
