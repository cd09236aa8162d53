"""What a member has read of a pool so far, in a file: who is interrupted goes on, who edits a pool pays for the edit.

The evidence of a pool is written when all of it is read (:mod:`el4ner.evidence.span_memory`). This file grows with
every batch, and stays. It knows hidden states by everything that they depend on (the member, the prompt, the text
behind it), so that a sentence that an edit left alone is found again, whatever else has changed in the pool.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from typing_extensions import override

from el4ner.engines.base import LAYERS, Asked, Prompt, StateEngine, StateRequest, StateResult, States
from el4ner.engines.remembered_states import RememberedStates

__all__ = ["KeptStates", "last_kept"]

_TABLE: Final = "CREATE TABLE IF NOT EXISTS states (key BLOB PRIMARY KEY, numbers BLOB) WITHOUT ROWID"
_LOCKED_SECONDS: Final = 30.0
"""How long another process may write before a batch is not kept."""
Result = TypeVar("Result")
log = logging.getLogger(__name__)


def last_kept(folder: Path) -> float:
    """When a process has kept something of a pool in ``folder`` last, by its file system's clock; 0: never. Who waits
    for another process to read a pool sees by it that this one gets on."""
    times = [0.0]
    for file in folder.glob("states-*.sqlite"):
        with suppress(FileNotFoundError):
            times.append(file.stat().st_mtime)
    return max(times)


class KeptStates(RememberedStates):
    """``engine`` for reading a pool. Whoever has ``engine`` closes it.

    A file that cannot be read or written costs time, nothing else. Several processes may use it.

    Args:
        engine: what is asked about the rest.
        file: of this engine and this use of it; it need not be there.
    """

    def __init__(self, engine: StateEngine, file: Path) -> None:
        super().__init__(engine)
        self._file = file
        self._asked: set[bytes] = set()
        self._read: list[tuple[bytes, bytes]] = []
        self._grown = False
        self._warned = False

    @override
    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        self._recall(requests)
        results = super().states(requests)
        self._known.clear()
        if self._read:
            self._using(self._write)
            self._read.clear()
            self._grown = True
        return results

    def tidy(self) -> None:
        """All of a pool has been read: of what the file has, keep what was asked for since this was made. Nothing is
        done where nothing new was read."""
        if self._grown:
            self._using(self._drop_unasked)

    @override
    def _keep(self, prompt: Prompt, read: dict[Asked, States]) -> None:
        self._read += [(self._key(prompt, asked), _packed(states)) for asked, states in read.items()]

    def _recall(self, requests: Sequence[StateRequest]) -> None:
        """Whatever the file has of what is asked for."""
        wanted = {
            self._key(request.prompt, asked): (request.prompt, asked) for request in requests for asked in request.asked
        }
        self._asked.update(wanted)
        found = self._using(lambda file: [_row(file, key) for key in wanted]) if self._file.exists() else None
        if found is None:
            return
        for numbers, (prompt, asked) in zip(found, wanted.values(), strict=True):
            states = None if numbers is None else self._unpacked(numbers, len(asked[1]))
            if states is not None:
                self._known.setdefault(prompt, {})[asked] = states

    def _write(self, file: sqlite3.Connection) -> None:
        with file:
            file.executemany("INSERT OR REPLACE INTO states VALUES (?, ?)", self._read)

    def _drop_unasked(self, file: sqlite3.Connection) -> None:
        unasked = {key for (key,) in file.execute("SELECT key FROM states")} - self._asked
        with file:
            file.executemany("DELETE FROM states WHERE key = ?", [(key,) for key in unasked])
        if unasked:
            file.execute("VACUUM")

    def _using(self, use: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """What ``use`` gives; None where the file does not work. One that is damaged is begun anew."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, timeout=_LOCKED_SECONDS)) as file:
                file.execute(_TABLE)
                return use(file)
        except (OSError, sqlite3.OperationalError) as error:  # no room, no right, or locked for long
            # Once: a folder that cannot be written stays so, and there are many batches.
            level = logging.DEBUG if self._warned else logging.WARNING
            log.log(level, "what is read of a pool is not kept", extra={"path": str(self._file), "error": str(error)})
            self._warned = True
        except sqlite3.DatabaseError as error:
            log.warning("what was read of a pool is damaged", extra={"path": str(self._file), "error": str(error)})
            self._file.unlink(missing_ok=True)
        return None

    def _key(self, prompt: Prompt, asked: Asked) -> bytes:
        parts = (self.fingerprint, prompt.system, prompt.user, prompt.answer, *asked)
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()[:20]

    def _unpacked(self, numbers: bytes, places: int) -> States | None:
        """None: it is not what was packed."""
        shape = (places, LAYERS, self.hidden_size)
        if len(numbers) == 4 * np.prod(shape):
            return np.frombuffer(numbers, dtype=np.float32).reshape(shape)
        if len(numbers) == 2 * np.prod(shape):
            return (np.frombuffer(numbers, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return None


def _row(file: sqlite3.Connection, key: bytes) -> bytes | None:
    row = file.execute("SELECT numbers FROM states WHERE key = ?", (key,)).fetchone()
    return None if row is None else bytes(row[0])


def _packed(states: States) -> bytes:
    """All bits of float32; half of them where the others are zero, as they are if the model computes in bfloat16."""
    bits = np.ascontiguousarray(states, dtype=np.float32).view(np.uint32)
    return bits.tobytes() if (bits & 0xFFFF).any() else (bits >> 16).astype(np.uint16).tobytes()
