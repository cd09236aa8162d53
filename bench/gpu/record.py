"""What a phase has found so far, in a file that is whole at any time: a phase that is killed leaves what it had."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["Record", "read", "write_json"]


def write_json(path: Path, value: Any) -> None:
    """Replace the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> dict[str, Any]:
    """What a phase wrote; nothing if it wrote nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


class Record:
    """``values`` by name and ``rows`` by table, written at every change.

    ``doing`` says what is being worked on: if the process dies, that was it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {"values": {}, "rows": {}, "problems": [], "doing": None}
        self._columns: dict[str, Any] = {}

    def columns(self, **columns: Any) -> None:
        """What every row from now on has as well."""
        self._columns = columns

    def put(self, **values: Any) -> None:
        self._found["values"].update(values)
        self._write()

    def row(self, table: str, **row: Any) -> None:
        self._found["rows"].setdefault(table, []).append({**self._columns, **row})
        self._write()

    def replace(self, table: str, keys: tuple[str, ...], **row: Any) -> None:
        """As :meth:`row`, in the place of the row that has the same values of ``keys``, if there is one."""
        row = {**self._columns, **row}
        rows = self._found["rows"].setdefault(table, [])
        for place, known in enumerate(rows):
            if all(known.get(key) == row.get(key) for key in (*self._columns, *keys)):
                rows[place] = row
                break
        else:
            rows.append(row)
        self._write()

    def problem(self, what: str, error: object) -> None:
        """Something that did not work while the rest goes on: its first lines."""
        said = str(error).strip() or type(error).__name__
        lines = "\n".join(said.splitlines()[:12])
        self._found["problems"].append({"what": what, "error": lines[:2000], "kind": type(error).__name__})
        self._write()

    def doing(self, what: str | None) -> None:
        self._found["doing"] = what
        self._write()

    def _write(self) -> None:
        write_json(self._path, self._found)
