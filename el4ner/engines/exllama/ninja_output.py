"""How far ninja is, read from what it prints."""

from __future__ import annotations

import re
from typing import Final

from el4ner.models.progress import Progress

__all__ = ["NinjaOutput", "first_error"]

_STEP: Final = re.compile(r"\[(\d+)/(\d+)\] ")
_LOCATED: Final = re.compile(
    r": (fatal )?error\b|\b(error|fatal)\s*:|error:|: cannot find -l|: undefined reference", re.IGNORECASE
)
_KILLED: Final = re.compile(r"died due to signal 9|\bKilled\b|signal SIGKILL|cannot allocate memory", re.IGNORECASE)
_SHOWN: Final = 400


class NinjaOutput:
    """Follows the lines of ``ninja -v``: each ``[7/48] …`` is a finished step. The last step is the linking."""

    def __init__(self, label: str, progress: Progress) -> None:
        self._label = label
        self._progress = progress
        self.done = 0
        self.total = 0

    def read(self, line: str) -> None:
        """One more line."""
        match = _STEP.match(line)
        if match is None:
            return
        done, total = int(match[1]), int(match[2])
        if total != self.total:
            # ninja counts anew when it finds that less is to be done than it thought.
            self._progress.done()
            self._progress.start(self._label, total)
            self.done, self.total = 0, total
        if done > self.done:
            self._progress.advance(done - self.done)
            self.done = done

    def close(self) -> None:
        """There are no more."""
        self._progress.done()


def first_error(text: str) -> str:
    """The first complaint of a compiler in output of hundreds of lines, as one line; or its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # ninja repeats whole command lines, in which "error" may be part of a flag or of a path.
    spoken = [line for line in lines if not _STEP.match(line) and "Error building extension" not in line]
    if any(_KILLED.search(line) for line in spoken):
        return "a compiler was killed, which happens where memory runs out: set MAX_JOBS to a smaller number"
    named = [line for line in spoken if _LOCATED.search(line)] or [line for line in spoken if "error" in line.lower()]
    return (named or spoken[-1:] or lines[-1:] or ["it said nothing"])[0][:_SHOWN]
