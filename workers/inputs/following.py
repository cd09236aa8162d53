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

import contextlib
import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from workers.inputs.encodings import InputError
from workers.inputs.follow_state import FollowState
from workers.inputs.lines import RawLine
from workers.inputs.open_file import Notice, OpenFile

__all__ = ["FollowedFile", "followed_lines"]

_QUIET_SECONDS: Final = 60.0
"""A file that was put away is closed when nothing has come for so long."""
_UNFINISHED_SECONDS: Final = 5.0
"""How long the new file waits for the end of the old one's last line."""
_MOST_HELD: Final = 100_000
"""Lines of it that wait."""


def followed_lines(
    path: Path,
    *,
    encoding: str | None = None,
    notice: Notice = lambda _: None,
    state: FollowState | None = None,
    stop: Callable[[], bool] = lambda: False,
    poll_seconds: float = 0.2,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[RawLine]:
    """The lines of a file from its beginning, or from where ``state`` has it, and those that come, until ``stop()``.

    Raises:
        InputError: there is no such file, it cannot be read, or is no text.
    """
    with FollowedFile(path, encoding=encoding, notice=notice, state=state, monotonic=monotonic) as followed:
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
        state: FollowState | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._encoding = encoding
        self._notice = notice
        self._state = state
        self._monotonic = monotonic
        self._origins: Counter[str] = Counter()
        self._put_away: list[OpenFile] = []
        self._held: list[RawLine] = []
        """Of the new file, while the end of the old one's last line is waited for."""
        if not path.is_file():
            raise InputError(f"{path}: there is no such file to follow")
        try:
            self._current = self._open(path)
            if state is not None:
                self._go_on(state)
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
            again = next((file for file in self._put_away if file.identity == identity), None)
            following = again or self._open(self._path)
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

    def _go_on(self, state: FollowState) -> None:
        """From where an earlier process had come to, also in files that have been put away since."""
        files = [self._current, *self._once_named()]
        for point in state.points:
            # The same first line may come again in a file that takes its place.
            first, _, count = point.origin.rpartition("-")
            self._origins[first] = max(self._origins[first], int(count) + 1)
            file = next((candidate for candidate in files if candidate.holds(point)), None)
            if file is not None:
                file.go_on(point)
                if file is not self._current and file not in self._put_away:
                    file.put_away(self._monotonic())
                    self._put_away.append(file)
            elif point is state.points[-1]:
                self._notice(
                    f"{self._path}: the file that was read to byte {point.position} is gone, or was cut: what came "
                    "into it after that is not read"
                )
        for file in files[1:]:
            if file not in self._put_away:
                file.close()

    def _once_named(self) -> Iterator[OpenFile]:
        """The other files beside it, one of which may have had its name."""
        inodes = {point.inode for point in self._state.points} if self._state is not None else set()
        for folder in {self._path.absolute().parent, self._path.resolve().parent}:
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    if path.lstat().st_ino in inodes - {self._current.identity[1]}:
                        yield self._open(path)

    def _open(self, path: Path) -> OpenFile:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, "is not a file", str(path))
        return OpenFile(descriptor, str(path), self._encoding, self._notice, self._origins, self._state)

    def __enter__(self) -> FollowedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (*self._put_away, self._current):
            file.close()
