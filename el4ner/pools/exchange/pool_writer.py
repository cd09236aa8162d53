"""A pool as a folder: ``pool.toml`` and ``sentences.jsonl``. Or its sentences alone, as a file of JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

import orjson

from el4ner.errors import PoolError
from el4ner.pools.exchange.draft import Draft, unwritable
from el4ner.pools.exchange.json_writers import our_record
from el4ner.pools.pool import PoolSentence
from el4ner.text.segment import TextKind

__all__ = ["LINES", "PoolWriter", "write_file", "write_folder"]

LINES: Final = (".jsonl", ".ndjson")
"""How the name of a file of sentences ends; everything else is a folder."""
_NO_FOLDERS: Final = (".json", ".toml", ".txt", ".conll", ".csv")
"""How names of files end: whoever writes one means no folder."""
_DESCRIPTION: Final = "pool.toml"
_SENTENCES: Final = "sentences.jsonl"


class PoolWriter:
    """Takes one sentence after the other; inside a ``with`` block. Nothing is at ``output`` before :meth:`finish`.

    Raises:
        PoolError: something is there already, and ``force`` is not set; or nothing can be written there.
    """

    def __init__(self, output: Path, *, force: bool = False) -> None:
        self._output = output
        self._is_file = output.suffix.lower() in LINES
        if self._is_file:
            _refuse_to_overwrite_file(output, force=force)
        else:
            if output.suffix.lower() in _NO_FOLDERS and not output.is_dir():
                raise PoolError(f"{output}: a pool is a folder, or a file that ends with {' or '.join(LINES)}")
            _refuse_to_overwrite_folder(output, (_SENTENCES, _DESCRIPTION), force=force)
        self._draft = Draft(output, folder=not self._is_file)
        try:
            path = self._draft.path if self._is_file else self._draft.path / _SENTENCES
            self._sentences: BinaryIO = path.open("wb")
        except OSError as error:
            raise unwritable(output, error) from error

    def add(self, sentence: PoolSentence) -> None:
        """One more sentence."""
        try:
            self._sentences.write(orjson.dumps(our_record(sentence), option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise unwritable(self._output, error) from error

    def finish(self, name: str, types: Mapping[str, str], kind: TextKind) -> None:
        """The pool takes its place. A file has no names and types in it."""
        try:
            self._sentences.close()
            if not self._is_file:
                (self._draft.path / _DESCRIPTION).write_text(_description(name, types, kind), encoding="utf-8")
        except OSError as error:
            raise unwritable(self._output, error) from error
        self._draft.finish()

    def __enter__(self) -> PoolWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sentences.close()
        self._draft.__exit__(kind, error, trace)


def write_file(output: Path, content: Iterable[bytes], *, force: bool = False) -> None:
    """Write a file, piece by piece, that is there when it is whole; into a device or a pipe as it comes.

    Raises:
        PoolError: there is one already, and ``force`` is not set; or it cannot be written.
    """
    _refuse_to_overwrite_file(output, force=force)
    try:
        if output.exists() and not output.is_file():
            with output.open("wb") as file:
                file.writelines(content)
            return
        with Draft(output) as draft:
            with draft.path.open("wb") as file:
                file.writelines(content)
            draft.finish()
    except OSError as error:
        raise unwritable(output, error) from error


def write_folder(output: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a new folder of files, which is there when it is whole.

    Raises:
        PoolError: the folder is not empty, or cannot be written.
    """
    _refuse_to_overwrite_folder(output)
    with Draft(output, folder=True) as draft:
        try:
            for name, content in files:
                (draft.path / name).write_bytes(content)
        except OSError as error:
            raise unwritable(output, error) from error
        draft.finish()


def _refuse_to_overwrite_file(output: Path, *, force: bool) -> None:
    if output.is_dir():
        raise PoolError(f"{output}: is a folder, and this is written into a file")
    if output.is_file() and not force:
        raise PoolError(f"{output}: is there already; --force writes over it")


def _refuse_to_overwrite_folder(output: Path, files: Collection[str] = (), *, force: bool = False) -> None:
    """``files``: those that may be written over."""
    if not output.is_dir():
        if output.exists():
            raise PoolError(f"{output}: is a file, and this is written into a folder")
        return
    try:
        there = sorted(file.name for file in output.iterdir())
    except OSError as error:
        raise unwritable(output, error) from error
    if foreign := [name for name in there if name not in files]:
        raise PoolError(f"{output}: holds {foreign[0]} already: name a folder that is new or empty")
    if there and not force:
        raise PoolError(f"{output}: there is a pool already; --force writes over it")


def _description(name: str, types: Mapping[str, str], kind: TextKind) -> str:
    lines = [f"name = {_quoted(name)}", f"text = {_quoted(kind)}", "", "[types]"]
    lines += [f"{_quoted(label)} = {_quoted(line)}" for label, line in types.items()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML is one of JSON, but for DEL, which has to be escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
