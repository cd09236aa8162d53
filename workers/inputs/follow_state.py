"""How far a followed file was read and sent, kept in a file, so that a restart goes on from there.

A point says which file it is about by inode, its first bytes, and the line before it. It is moved when the broker has
confirmed a document, so that what was read and not sent is read again.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from el4ner.models.files import write_atomically
from workers.inputs.encodings import InputError
from workers.inputs.lines import RawLine

__all__ = ["FollowState", "ResumePoint"]

_KEPT: Final = 4
"""Files that a name has had, the latest ones: programs may still write into those that were put away."""
_SAVE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A place in a file: what is before it was sent."""

    origin: str
    inode: int
    position: int
    line: int
    """Number of the line that begins there."""
    encoding: str
    head_bytes: int
    head_sha256: str
    last_bytes: int
    last_sha256: str

    def is_in(self, descriptor: int) -> bool:
        """Whether the open file is the one that was read."""
        status = os.fstat(descriptor)
        return (
            status.st_ino == self.inode
            and status.st_size >= self.position
            and _sha256(os.pread(descriptor, self.head_bytes, 0)) == self.head_sha256
            and _sha256(os.pread(descriptor, self.last_bytes, self.position - self.last_bytes)) == self.last_sha256
        )


class FollowState:
    """The points of one followed name.

    Args:
        path: where they are kept.

    Raises:
        InputError: the file is there and holds something else.
    """

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._saved = monotonic()
        self._changed = False
        self._files: dict[str, tuple[int, bytes]] = {}
        self._points: OrderedDict[str, ResumePoint] = OrderedDict()
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: cannot be written: name a file in a folder that is there")
        try:
            raw = path.read_bytes() if path.exists() else b""
            points = orjson.loads(raw)["points"] if raw else []
            self._points.update({point.origin: point for point in map(_point, points)})
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: does not hold the state of a followed file: name another one") from error

    @property
    def points(self) -> Sequence[ResumePoint]:
        """The oldest first."""
        return tuple(self._points.values())

    def reading(self, origin: str, inode: int, head: bytes) -> None:
        """A file's lines come under this name from now on; ``head``: its first bytes."""
        self._files[origin] = (inode, head)

    def sent(self, line: RawLine) -> None:
        """Everything up to this line, and it too, was sent."""
        if line.origin not in self._files:
            return
        inode, head = self._files[line.origin]
        self._points[line.origin] = ResumePoint(
            line.origin,
            inode,
            line.offset + len(line.raw),
            line.next_number,
            line.encoding,
            len(head),
            _sha256(head),
            len(line.raw),
            _sha256(line.raw),
        )
        self._points.move_to_end(line.origin)
        while len(self._points) > _KEPT:
            self._points.popitem(last=False)
        self._changed = True
        if self._monotonic() - self._saved >= _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write them down.

        Raises:
            InputError: that is not possible.
        """
        if not self._changed:
            return
        points = orjson.dumps(
            {"points": [asdict(point) for point in self._points.values()]}, option=orjson.OPT_INDENT_2
        )
        try:
            write_atomically(self._path, points + b"\n")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._changed = False
        self._saved = self._monotonic()


def _point(values: dict[str, Any]) -> ResumePoint:
    """A point as it was written.

    Raises:
        TypeError: it was not written by us.
    """
    point = ResumePoint(**values)
    texts = (point.origin, point.encoding, point.head_sha256, point.last_sha256)
    numbers = (point.inode, point.position, point.line, point.head_bytes, point.last_bytes)
    if not all(isinstance(text, str) for text in texts) or not re.fullmatch(r".*-\d+", point.origin):
        raise TypeError("not a point's texts")
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or point.last_bytes > point.position:
        raise TypeError("not a point's numbers")
    return point


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
