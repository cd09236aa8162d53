"""An open file that grows: how far it was read, and whether it still is the file that was read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from typing import Final

from workers.inputs.follow_state import FollowState, ResumePoint
from workers.inputs.lines import LineSplitter, RawLine

__all__ = ["Notice", "OpenFile"]

_CHUNK: Final = 1 << 18
_FINGERPRINT: Final = 4096
"""Bytes at the beginning, and as many before the position, that are compared."""

Identity = tuple[int, int]
Notice = Callable[[str], None]


class OpenFile:
    """An open file, how far it was read, and by what it would be known to have been cut."""

    def __init__(
        self,
        descriptor: int,
        name: str,
        encoding: str | None,
        notice: Notice,
        origins: Counter[str],
        state: FollowState | None,
    ) -> None:
        status = os.fstat(descriptor)
        self.identity: Identity = (status.st_dev, status.st_ino)
        self._descriptor = descriptor
        self._name = name
        self._encoding = encoding
        self._notice = notice
        self._origins = origins
        self._state = state
        self._changed: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._position = 0
        self._head = b""
        self._tail = b""
        self._origin = ""
        self._hole = False
        self._splitter = LineSplitter(self._name, self._encoding)

    def holds(self, point: ResumePoint) -> bool:
        """Whether it is the file that a point is in."""
        return point.is_in(self._descriptor)

    def go_on(self, point: ResumePoint) -> None:
        """From where it was read to before this process began."""
        self._position = point.position
        self._head = os.pread(self._descriptor, min(_FINGERPRINT, point.position), 0)
        tail = min(_FINGERPRINT, point.position)
        self._tail = os.pread(self._descriptor, tail, point.position - tail)
        self._splitter.go_on(point.encoding, point.line, point.position)
        self._origin = point.origin
        if self._state is not None:
            self._state.reading(self._origin, self.identity[1], self._head)

    @property
    def unfinished(self) -> int:
        """Bytes of its last line, if that has no end yet."""
        return self._splitter.unfinished

    def put_away(self, now: float) -> None:
        """The name leads to another file from now on."""
        self._changed = now

    def quiet(self, now: float) -> float:
        """Seconds since something was read last, or since it was put away."""
        return 0.0 if self._changed is None else now - self._changed

    def read(self, now: float) -> list[RawLine]:
        """Some lines that are there; none: there are none yet."""
        while True:
            if not self._intact():
                self._cut()
            chunk = os.pread(self._descriptor, _CHUNK, self._position)
            if not chunk:
                return []
            if not self._intact():
                # Cut while it was read: nobody knows of which of the two files the bytes are.
                continue
            if self._changed is not None:
                self._changed = now
            if lines := self._take(chunk):
                return lines

    def finish(self) -> list[RawLine]:
        """Its last line, if that has no end: nobody writes it any more."""
        return self._known(self._splitter.finish())

    def close(self) -> None:
        """Done with it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _intact(self) -> bool:
        """Whether what was read is still there."""
        if os.fstat(self._descriptor).st_size < self._position:
            return False
        for expected, at in ((self._head, 0), (self._tail, self._position - len(self._tail))):
            if expected and os.pread(self._descriptor, len(expected), at) != expected:
                return False
        return True

    def _cut(self) -> None:
        lost = f"; {self.unfinished} bytes of a line without an end are lost" if self.unfinished else ""
        self._notice(f"{self._name}: was cut or written anew, and is read from its beginning{lost}")
        self._begin()
        # A program that goes on writing where it was leaves a hole before that, which reads as NULs.
        self._hole = not (self._encoding or "").startswith(("utf-16", "utf-32"))

    def _take(self, chunk: bytes) -> list[RawLine]:
        self._position += len(chunk)
        if len(self._head) < _FINGERPRINT:
            self._head += chunk[: _FINGERPRINT - len(self._head)]
        self._tail = (self._tail + chunk[-_FINGERPRINT:])[-_FINGERPRINT:]
        if self._hole:
            data = chunk.lstrip(b"\0")
            self._splitter.skip(len(chunk) - len(data))
            self._hole = not data
            chunk = data
        return self._known(self._splitter.feed(chunk))

    def _known(self, lines: list[RawLine]) -> list[RawLine]:
        if lines and not self._origin:
            # The same after a restart, and another one for another file, unless that has the same first line and inode.
            first = f"{self.identity[1]:x}-{hashlib.sha256(lines[0].raw).hexdigest()[:16]}"
            self._origin = f"{first}-{self._origins[first]}"
            self._origins[first] += 1
        if lines and self._state is not None:
            self._state.reading(self._origin, self.identity[1], self._head)
        return [line._replace(origin=self._origin) for line in lines]
