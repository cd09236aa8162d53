"""Measured sentences on disk, so that an interrupted evaluation goes on and a repeated one costs nothing.

One JSON Lines file for everything that was measured with the same pipeline; a record is found by its text. A process
that is killed leaves at most half a line at the end, which the next one cuts off.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from el4ner.evaluation.sentence_records import EvaluationError, SentenceRecord, record_from_json, record_to_json

__all__ = ["FOLDER", "RecordStore"]

FOLDER: Final = "evaluations"
"""The folder's name inside the cache folder."""


class RecordStore:
    """The records of one pipeline: ``FOLDER/FINGERPRINT.jsonl``. Several processes may add to it at once.

    Args:
        folder: made where it is missing.
        fingerprint: of everything that decides what the pipeline says about a text.
        fresh: know nothing of what is in the file; what is added is found by later runs instead of the older records.

    Raises:
        EvaluationError: the file cannot be opened, or a whole line in it is no record.
    """

    def __init__(self, folder: Path, fingerprint: str, *, fresh: bool = False) -> None:
        self.path = folder / f"{fingerprint}.jsonl"
        self._known: dict[str, SentenceRecord] = {}
        if not fresh:
            with self._open() as file:
                self._load(file)

    def get(self, text: str) -> SentenceRecord | None:
        """What was measured for exactly this text, if anything was."""
        return self._known.get(text)

    def add(self, records: Iterable[SentenceRecord]) -> None:
        """Append; written when this returns, so nothing of it is lost when the process is killed."""
        new = list(records)
        with self._open() as file:
            file.seek(0, os.SEEK_END)
            file.write(b"".join(record_to_json(record) + b"\n" for record in new))
        self._known.update((record.text, record) for record in new)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """The file, locked, and ending with a whole line."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # "a" makes the file and never empties it; its position does not matter, since we seek.
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _cut_half_line(file)
                yield file
        except OSError as error:
            raise EvaluationError(
                f"{self.path}: cannot be used: {error.strerror}; EL4NER_CACHE_DIR names another folder"
            ) from error

    def _load(self, file: BinaryIO) -> None:
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                record = record_from_json(line)
            except ValueError as error:
                raise EvaluationError(f"{self.path}:{number}: is damaged: {error}; delete the file") from error
            self._known[record.text] = record


def _cut_half_line(file: BinaryIO) -> None:
    """What follows the last line break was being written when its process died."""
    end = size = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65_536)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end < size:
        file.truncate(end)
