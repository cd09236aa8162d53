"""Which messages a process was working on when it died, so that a document that kills its worker costs only itself.

Before each call of an engine the process notes, in a small file that it holds a lock on, which messages the call is
about; afterwards it empties it. A process that died (killed, out of memory, crashed in native code, a bug, an engine
that hung) leaves its note without a lock. Whoever works in the same folder next takes it over: those messages are
*suspects* and are worked on one at a time. One that was in the note of several dead processes is given up.

The folder is ``worker.data_dir``; where it does not outlive the process (another machine takes over) nothing is known,
and nothing is lost: the messages just come again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from workers.messages import Record

__all__ = ["AtWork"]

log = logging.getLogger(__name__)

_FOLDER: Final = "at-work"

Place = tuple[str, int, int]
"""Topic as the broker names it, partition, offset."""


class AtWork:
    """One process's note for one stage. :meth:`begin` and :meth:`end` are the engine thread's, the rest the loop's."""

    def __init__(self, data_dir: Path, stage: str) -> None:
        self._folder = data_dir / _FOLDER
        self._stage = stage
        self._deaths: dict[Place, int] = {}
        self._path = self._folder / f"{stage}-{secrets.token_hex(6)}.json"
        self._file: int | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError as error:
            self._without(error)

    def take_over(self) -> None:
        """Read the notes of processes that died, and remove them."""
        with contextlib.suppress(OSError):
            for path in self._folder.glob(f"{self._stage}-*.json"):
                if path != self._path:
                    self._take(path)

    def deaths(self, record: Record) -> int:
        """How many processes died while they worked on this message."""
        return self._deaths.get(_place(record), 0)

    def settled(self, record: Record) -> None:
        """The message was answered: it is no suspect any more."""
        self._deaths.pop(_place(record), None)

    def begin(self, records: Sequence[Record]) -> None:
        """An engine is called for these messages now."""
        self._write(orjson.dumps([[*_place(record), self.deaths(record)] for record in records]))

    def end(self) -> None:
        """The call has come back, whatever it brought."""
        self._write(b"")

    def close(self) -> None:
        """This process ends in order: nobody has to know what it worked on."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = None

    def _write(self, note: bytes) -> None:
        # No fsync: it is the process that may die, not the machine.
        if self._file is None:
            return
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, note, 0)
        except OSError as error:
            self._without(error)

    def _without(self, error: OSError) -> None:
        log.warning(
            "no notes are kept of what is worked on (a document that kills its worker is not recognised): %s",
            error,
            extra={"stage": self._stage, "path": str(self._path)},
        )
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _take(self, path: Path) -> None:
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # its process lives
            if os.fstat(file).st_nlink == 0:
                return  # somebody else was faster
            note = os.read(file, 1 << 24)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        finally:
            os.close(file)
        try:
            for topic, partition, offset, deaths in orjson.loads(note or b"[]"):
                place = (str(topic), int(partition), int(offset))
                self._deaths[place] = max(self._deaths.get(place, 0), int(deaths) + 1)
        except (ValueError, TypeError):
            log.warning("a note of what was worked on is damaged", extra={"stage": self._stage, "path": str(path)})
            return
        if note:
            log.warning(
                "a worker died at work; its %d messages are tried one by one",
                len(self._deaths),
                extra={"stage": self._stage, "suspects": len(self._deaths)},
            )


def _place(record: Record) -> Place:
    return record.source, record.partition, record.offset
