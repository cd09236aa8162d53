"""Which messages a process was working on when it died, so that a document that kills its worker costs only itself.

A process notes in a small file, its journal, which messages it works on: before each call of an engine, and before
answers are written down. Afterwards it empties the file. It holds a lock on the file for as long as it lives.

While answers are on their way to the broker nothing is noted, since a process that is ended during an outage says
nothing about them. If it ends *because of* them, they are blamed (:meth:`CrashJournal.blame`).

A process that died (killed, out of memory, crashed in native code, a bug, an engine that hung) leaves its journal
without a lock. Whoever works in the same folder next takes it over: those messages are *suspects*, and are worked on
one at a time. A message that was in the journals of several dead processes is given up.

The folder is ``worker.data_dir``. Where it does not outlive the process (another machine takes over), nothing is known
and nothing is lost: the messages come again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from workers.messages.envelope import Record

__all__ = ["CrashJournal"]

log = logging.getLogger(__name__)

_FOLDER: Final = "at-work"
_MOST_SUSPECTS: Final = 10_000
"""The journal remembers so many; the oldest are forgotten."""

Place = tuple[str, int, int]
"""Topic as the broker names it, partition, offset."""


class CrashJournal:
    """One process's journal for one stage.

    :meth:`begin` and :meth:`end` are called on the engine's thread, :meth:`blame` on any. The journal keeps three lists
    beside each other: messages at the engine, messages that are being answered, and messages that are blamed.
    """

    def __init__(self, data_dir: Path, stage: str) -> None:
        self._folder = data_dir / _FOLDER
        self._stage = stage
        self._now: list[Place] = []
        self._answering: list[Place] = []
        self._blamed: list[Place] = []
        self._has_blamed = False
        self._deaths: dict[Place, int] = {}
        self._path = self._folder
        self._file: int | None = None
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while self._file is None:
                self._file = self._create()
        except OSError as error:
            self._go_without(error)

    def take_over(self) -> None:
        """Read the journals of processes that died, and remove them when what they say is in ours."""
        with contextlib.suppress(OSError):
            for path in self._folder.glob(f"{self._stage}-*.json"):
                if path != self._path:
                    self._take(path)

    @property
    def has_suspects(self) -> bool:
        """Whether there is any message that :meth:`deaths` knows of."""
        return bool(self._deaths)

    def deaths(self, record: Record) -> int:
        """How many processes died while they worked on this message."""
        return self._deaths.get(_place(record), 0)

    def groups(self, records: Sequence[Record]) -> list[list[int]]:
        """The indices of the records in groups, none of them empty: first all over which nobody died, then each suspect
        alone, since what may have killed a process may do it again."""
        together = [index for index, record in enumerate(records) if not self.deaths(record)]
        suspects = [[index] for index, record in enumerate(records) if self.deaths(record)]
        return [together, *suspects] if together else suspects

    def settled(self, record: Record, *, given_up: bool = False) -> None:
        """The message was answered: it is no suspect any more.

        A message that was given up stays one. Until its offset is committed it may come again, here or to a successor.
        """
        if self._deaths and not given_up and self._deaths.pop(_place(record), None) is not None:
            self._write()

    def begin(self, records: Sequence[Record]) -> None:
        """An engine is called for these messages now."""
        self._now = [_place(record) for record in records]
        self._write()

    def end(self) -> None:
        """The call has come back, whatever it brought."""
        self._now = []
        self._write()

    @contextlib.contextmanager
    def answering(self, records: Sequence[Record]) -> Iterator[None]:
        """A block in which these messages' answers are written down. What is raised there is a bug that ends the
        process, and is blamed on them."""
        self._answering = [_place(record) for record in records]
        self._write()
        try:
            yield
        except Exception:
            self.blame(records)
            raise
        self._answering = []
        self._write()

    def blame(self, records: Sequence[Record]) -> None:
        """This process ends because of these messages, or of one of them. The journal says so until the process has
        ended, whatever else is worked on."""
        self._blamed += [_place(record) for record in records]
        self._has_blamed = True
        self._write()

    def close(self) -> None:
        """Remove the journal: this process ends in order. It stays if the process ends because of a message."""
        with self._lock:
            if self._file is not None and not self._has_blamed:
                with contextlib.suppress(OSError):
                    self._path.unlink()
                os.close(self._file)
                self._file = None

    def _create(self) -> int | None:
        """Our own file, locked; None if another process took the new file for a dead process's."""
        self._path = self._folder / f"{self._stage}-{secrets.token_hex(6)}.json"
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file
        os.close(file)
        return None

    def _write(self) -> None:
        # No fsync: it is the process that may die, not the machine.
        with self._lock:
            if self._file is None:
                return
            now, known = list(dict.fromkeys([*self._now, *self._answering, *self._blamed])), self._deaths
            note = {"now": now, "known": [[*place, deaths] for place, deaths in list(known.items())]}
            try:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, orjson.dumps(note) if now or known else b"", 0)
            except OSError as error:
                self._go_without(error)

    def _go_without(self, error: OSError) -> None:
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
                return  # another process was faster
            self._read(os.read(file, 1 << 24), path)
            # First into our own journal: we may die at any moment, too.
            self._write()
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        finally:
            os.close(file)

    def _read(self, note: bytes, path: Path) -> None:
        try:
            data = orjson.loads(note) if note else {"now": [], "known": []}
            known = {_read_place(place): int(deaths) for *place, deaths in data["known"]}
            died = {_read_place(place) for place in data["now"]}
        except (KeyError, TypeError, ValueError):
            log.warning("a note of what was worked on is damaged", extra={"stage": self._stage, "path": str(path)})
            return
        for place in known.keys() | died:
            self._deaths[place] = max(self._deaths.get(place, 0), known.get(place, 0) + (place in died))
        for place in list(self._deaths)[:-_MOST_SUSPECTS]:
            del self._deaths[place]
        if died:
            log.warning(
                "a worker died at work; its %d messages are tried one by one",
                len(died),
                extra={"stage": self._stage, "suspects": len(died)},
            )


def _read_place(place: Sequence[Any]) -> Place:
    topic, partition, offset = place
    return str(topic), int(partition), int(offset)


def _place(record: Record) -> Place:
    return record.source, record.partition, record.offset
