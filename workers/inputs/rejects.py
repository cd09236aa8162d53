"""What becomes of records that are no documents: the end, a warning, or a file of their own.

The file has the records byte for byte, so that it can be mended and read again; beside it ``FILE.reasons.jsonl`` has a
line for each: file, line, byte, and what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import orjson

from el4ner.nearest import nearest_hint
from workers.inputs.encodings import InputError
from workers.inputs.lines import BadRecord

__all__ = ["DEAD_LETTER", "ON_ERROR", "Rejects", "parse_on_error"]

DEAD_LETTER: Final = "dead-letter"
ON_ERROR: Final = ("stop", "skip", DEAD_LETTER)


def parse_on_error(words: Sequence[str]) -> tuple[str, Path | None]:
    """``stop``, ``skip``, or ``dead-letter`` and a file.

    Raises:
        ValueError: it is none of these.
    """
    mode, *rest = words
    if mode == DEAD_LETTER and not rest:
        raise ValueError("dead-letter needs a file behind it: dead-letter FILE")
    if mode not in ON_ERROR or len(rest) != (mode == DEAD_LETTER):
        hint = nearest_hint(mode, ON_ERROR) if mode not in ON_ERROR else ""
        raise ValueError(f"{' '.join(words)!r} is none of: stop, skip, dead-letter FILE{hint}")
    return mode, Path(rest[0]).expanduser() if rest else None


class Rejects:
    """Told of each bad record.

    Args:
        mode: of :data:`ON_ERROR`. ``stop`` raises the first.
        file: where ``dead-letter`` writes them, behind what is there.
        source: the file that is read; None: standard input.
        warn: told of those that are left out.
    """

    def __init__(self, mode: str, file: Path | None, source: Path | None, warn: Callable[[str], None]) -> None:
        self.count = 0
        self.file = file
        self._mode = mode
        self._warn = warn
        self._begun = False
        if file is not None:
            self._refuse_unusable(file, source)

    def __call__(self, bad: BadRecord) -> None:
        """One more.

        Raises:
            BadRecord: itself, where it is to end the reading.
            InputError: it cannot be written down.
        """
        if self._mode == "stop":
            raise bad
        if self.file is not None:
            try:
                self._write(bad, self.file)
            except OSError as error:
                raise InputError(
                    f"{self.file}: {bad.name}:{bad.line.number} cannot be kept: {error.strerror}"
                ) from error
        self.count += 1
        self._warn(str(bad))

    def _refuse_unusable(self, file: Path, source: Path | None) -> None:
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise InputError(f"{file}: cannot be written: name a file in a folder that is there")
        if source is not None and file.exists() and source.exists() and file.samefile(source):
            raise InputError(f"{file}: is the input: what is left out of it needs a file of its own")

    def _write(self, bad: BadRecord, file: Path) -> None:
        with file.open("a+b") as records:
            if not self._begun and bad.prelude:
                records.seek(0)
                start = records.read(len(bad.prelude))
                if start and start != bad.prelude:
                    raise InputError(f"{file}: holds records of another kind: its beginning is not that of {bad.name}")
                if not start:
                    records.write(bad.prelude)
            self._begun = True
            records.write(bad.line.raw if bad.line.raw.endswith(bad.line.end) else bad.line.raw + bad.line.end)
        reason = {"file": bad.name, "line": bad.line.number, "byte": bad.line.offset, "reason": bad.reason}
        with file.with_name(f"{file.name}.reasons.jsonl").open("ab") as reasons:
            reasons.write(orjson.dumps(reason) + b"\n")
