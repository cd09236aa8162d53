"""Files that others read while they are written."""

from __future__ import annotations

import os
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["DAMAGED_ARRAYS", "write_atomically", "written_atomically"]

DAMAGED_ARRAYS: Final = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
    RuntimeError,  # zipfile, of bits that ask for what it cannot do: passwords, other compressions
    *(ValueError, KeyError, SyntaxError, tokenize.TokenError, MemoryError),  # numpy, of an array's head
)
"""What reading a file of arrays (``numpy.load``) raises where a disk or a transfer has damaged it."""


def write_atomically(path: Path, content: bytes) -> None:
    """All of it or nothing, whoever else writes the same file."""
    with written_atomically(path) as file:
        file.write(content)


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """As :func:`write_atomically`, for what is written piece by piece: a file that takes its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
