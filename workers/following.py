"""Following a file as it grows, is rotated, cut or replaced: every complete line once.

What is watched is more than the size:

- *The name.* When it leads to another file (renamed, deleted and created anew, a symbolic link that was switched), the
  old one is read to its end and stays open: programs go on writing into it until they are told to open the new one.
  It is closed when nothing has come for a minute.
- *The beginning, and what was read last.* When they are no longer in the file as they were read, it was cut and
  written anew, also where it is longer than before by now. It is read from its beginning then.

A line without an end waits for its end. In a file that was put away it waits for some seconds, and the new file with
it.

What cannot be seen: what was written and cut away, or written into a file that came and went, between two looks; a
file that was rewritten with the same bytes at its beginning and before where the reading stands.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from workers.input_encodings import InputError
from workers.input_lines import LineSplitter, RawLine

__all__ = ["FollowedFile", "followed_lines"]

_CHUNK: Final = 1 << 18
_FINGERPRINT: Final = 4096
"""Bytes at the beginning, and as many before the position, that are compared."""
_QUIET_SECONDS: Final = 60.0
"""A file that was put away is closed when nothing has come for so long."""
_UNFINISHED_SECONDS: Final = 5.0
"""How long the new file waits for the end of the old one's last line."""
_MOST_HELD: Final = 100_000
"""Lines of it that wait."""

Identity = tuple[int, int]
Notice = Callable[[str], None]


def followed_lines(
    path: Path,
    *,
    encoding: str | None = None,
    notice: Notice = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    poll_seconds: float = 0.2,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[RawLine]:
    """The lines of a file from its beginning, and those that come, until ``stop()``.

    Raises:
        InputError: there is no such file, it cannot be read, or is no text.
    """
    with FollowedFile(path, encoding=encoding, notice=notice, monotonic=monotonic) as followed:
        while True:
            # Asked before the look, so that the last look comes after what made it true.
            last = stop()
            lines = followed.poll()
            yield from lines
            if lines:
                continue
            if last:
                yield from followed.finish()
                return
            sleep(poll_seconds)


class FollowedFile:
    """A name, the file that it leads to now, and those that it led to a moment ago.

    ``poll`` never waits. Use it in a ``with`` block.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoding: str | None = None,
        notice: Notice = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._encoding = encoding
        self._notice = notice
        self._monotonic = monotonic
        self._origins: Counter[str] = Counter()
        self._put_away: list[_OpenFile] = []
        self._held: list[RawLine] = []
        """Of the new file, while the end of the old one's last line is waited for."""
        if not path.is_file():
            raise InputError(f"{path}: there is no such file to follow")
        try:
            self._current = self._open()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error

    def poll(self) -> list[RawLine]:
        """Some lines that are there now; none: there are none yet.

        Raises:
            InputError: the file cannot be read any more, or is no text.
        """
        try:
            return self._poll()
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read: {error.strerror}") from error

    def finish(self) -> list[RawLine]:
        """After the last look: the unfinished lines of files that were put away, and what waited for them."""
        lines = []
        while True:
            for file in self._put_away:
                while more := file.read(self._monotonic()):
                    lines += more
                lines += file.finish()
                file.close()
            self._put_away = []
            more = self.poll()
            lines += more
            if not more and not self._put_away:
                return lines

    def _poll(self) -> list[RawLine]:
        now = self._monotonic()
        while True:
            lines, waiting = self._read_put_away(now)
            # Read in any case: the new file may be cut or replaced while its lines wait.
            more = self._current.read(now)
            self._held += more
            if not waiting or len(self._held) > _MOST_HELD:
                lines += self._held
                self._held = []
            if lines:
                return lines
            if not more and not self._follow_name():
                return []

    def _read_put_away(self, now: float) -> tuple[list[RawLine], bool]:
        """What has come in files that were put away; whether the end of a last line may still come there."""
        lines = []
        waiting = False
        for file in list(self._put_away):
            lines += file.read(now)
            if file.quiet(now) >= _QUIET_SECONDS:
                lines += file.finish()
                file.close()
                self._put_away.remove(file)
            elif file.unfinished and file.quiet(now) < _UNFINISHED_SECONDS:
                waiting = True
        return lines, waiting

    def _follow_name(self) -> bool:
        """Whether the name leads to another file by now, which is the current one then."""
        try:
            status = self._path.stat()
            identity = (status.st_dev, status.st_ino)
            if identity == self._current.identity:
                return False
            again = next((one for one in self._put_away if one.identity == identity), None)
            following = again or self._open()
        except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError):
            # Between the old file's renaming and the new one's creation, and its being given to whom it belongs.
            return False
        if again is not None:
            self._put_away.remove(again)
        self._notice(f"{self._path}: is another file now; the one before it is read to its end")
        self._current.put_away(self._monotonic())
        self._put_away.append(self._current)
        self._current = following
        return True

    def _open(self) -> _OpenFile:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, "is not a file", str(self._path))
        return _OpenFile(descriptor, str(self._path), self._encoding, self._notice, self._origins)

    def __enter__(self) -> FollowedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (*self._put_away, self._current):
            file.close()


class _OpenFile:
    """An open file, how far it was read, and by what it would be known to have been cut."""

    def __init__(self, descriptor: int, name: str, encoding: str | None, notice: Notice, origins: Counter[str]) -> None:
        status = os.fstat(descriptor)
        self.identity: Identity = (status.st_dev, status.st_ino)
        self._descriptor = descriptor
        self._name = name
        self._encoding = encoding
        self._notice = notice
        self._origins = origins
        self._changed: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._position = 0
        self._head = b""
        self._tail = b""
        self._origin = ""
        self._hole = False
        self._splitter = LineSplitter(self._name, self._encoding)

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
        return [line._replace(origin=self._origin) for line in lines]
