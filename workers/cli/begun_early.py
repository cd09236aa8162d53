"""A worker that its starter begins before it knows what the worker is to work on: it imports, and waits to be told.

What models need takes seconds to import, and three times as long where Python has compiled nothing yet. A demo starts
its broker meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.config import StreamSettings

__all__ = ["begin", "import_and_wait"]


def import_and_wait(settings: StreamSettings) -> None:
    """Do what a worker with these settings needs first; then take over the environment that comes in a line on standard
    input (:func:`begin`).

    Raises:
        SystemExit: standard input has closed: there is nothing to do.
    """
    from el4ner.code_fingerprint import code_fingerprint
    from el4ner.engines.registry import import_engine

    for name in ("workers.run", "el4ner.loader"):
        import_module(name)
    with contextlib.suppress(ImportError):  # who loads it says what is missing
        for member in settings.ensemble.members:
            import_engine(settings.models[member])
    # Shared answers are looked up by it: a second, which the first document would wait for. Not on a thread beside
    # others: Python 3.11 cannot parse on two at once.
    code_fingerprint()
    # Not through sys.stdin, as in :mod:`workers.cli.ended_by_stdin`.
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(0, 1 << 16)
        if not read:
            raise SystemExit(1)
        line += read
    os.environ.update(json.loads(line))


def begin(process: subprocess.Popen[bytes], environ: Mapping[str, str]) -> None:
    """Let a process go on that waits in :func:`import_and_wait`. If it has ended, that shows elsewhere."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        # Past the buffer, which could not be closed if the process has ended. A pipe takes 64 KiB.
        os.write(process.stdin.fileno(), json.dumps(dict(environ)).encode() + b"\n")
