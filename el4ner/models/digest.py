"""Digests of weight files: computed once per file, then remembered."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Final

import orjson

from el4ner.models.files import write_atomically
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = ["remembered_sha256", "sha256_of"]

REMEMBERED: Final = "digests.json"
PIECE: Final = 1 << 22


def sha256_of(path: Path, progress: Progress = NO_PROGRESS) -> str:
    """Digest of a file's bytes, in hexadecimal. Advances ``progress`` by bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            progress.advance(len(piece))
    return digest.hexdigest()


def remembered_sha256(path: Path, cache_dir: Path) -> str:
    """:func:`sha256_of`, read from ``cache_dir`` if the file has the size and time that it had when it was digested.

    A cache that cannot be written costs time, nothing else.
    """
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    store = cache_dir / REMEMBERED
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, orjson.JSONDecodeError):
        read = orjson.loads(store.read_bytes())
        known = read if isinstance(read, dict) else {}
    if key not in known:
        known[key] = sha256_of(path)
        with contextlib.suppress(OSError):
            write_atomically(store, orjson.dumps(known, option=orjson.OPT_INDENT_2))
    return known[key]
