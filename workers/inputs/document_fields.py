"""Which field of a record, or column of a table, is what of a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from el4ner.errors import MessageError
from el4ner.nearest import nearest, no_such
from workers.messages import json_schemas

__all__ = ["OPTIONAL", "Fields"]

OPTIONAL: Final = ("pool", "revision", "metadata")

_NEEDED: Final[Mapping[str, str]] = {
    "text": "a string",
    "id": "a string of 1 to 1,024 characters, or a whole number (of more than 64 bits: in quotes)",
    "pool": "a name of 1 to 255 characters",
    "revision": "a whole number from 0 to 9007199254740991",
    "metadata": "an object",
}
_KINDS: Final[Mapping[type, str]] = {bool: "a boolean", type(None): "null", list: "an array", dict: "an object"}
_LONGEST_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Fields:
    """Which field (or column) is what.

    ``metadata``: fields without a meaning are handed on as the document's metadata; without it they are an error.
    """

    text: str = "text"
    id: str = "id"
    metadata: bool = False
    delimiter: str = ","

    @property
    def known(self) -> tuple[str, ...]:
        """The names that have a meaning."""
        return (self.text, self.id, *OPTIONAL)

    def document(self, row: Mapping[str, Any], kind: str = "field") -> dict[str, Any]:
        """The document that a row's fields are. A field that is null is as one that is not there, except the text.

        Raises:
            ValueError: a field is unknown, missing or not what it has to be.
        """
        if self.text not in row:
            raise ValueError(self.no_text(row, kind))
        known = self.known
        unknown = {name: value for name, value in row.items() if name not in known}
        if unknown and not self.metadata:
            raise ValueError(self.no_field(next(iter(unknown)), kind))
        document: dict[str, Any] = {"text": row[self.text]}
        if (record_id := row.get(self.id)) is not None:
            # The same number as CSV's digits; orjson has read one above 64 bits as a float, which is no id.
            document["id"] = (
                str(record_id) if isinstance(record_id, int) and not isinstance(record_id, bool) else record_id
            )
        document.update({name: row[name] for name in OPTIONAL if row.get(name) is not None})
        if unknown:
            metadata = document.get("metadata", {})
            if isinstance(metadata, Mapping):
                if twice := sorted(metadata.keys() & unknown.keys()):
                    raise ValueError(f"the {kind} {twice[0]!r} is in its metadata too: which one is to be handed on?")
                document["metadata"] = {**metadata, **unknown}
        try:
            json_schemas.validate("documents", document)
        except MessageError as error:
            raise ValueError(self._wrong_value(document, kind) or str(error)) from error
        return document

    def _wrong_value(self, document: Mapping[str, Any], kind: str) -> str | None:
        """What to say of the first value that a document cannot have, under the name that its file gives it."""
        for name, needed in _NEEDED.items():
            value = document.get(name)
            if name in document and not _is_valid(name, value):
                column = {"text": self.text, "id": self.id}.get(name, name)
                return f"the {kind} {column!r} has to be {needed}, not {_described(value)}"
        return None

    def no_text(self, names: Iterable[str], kind: str) -> str:
        """What to say where the text is missing."""
        names = list(names)
        like = nearest(self.text, names)
        advice = f"--text-field {like!r}" if like is not None else f"--text-field says which {kind} is the text"
        return f"{no_such(kind, self.text, names)}: {advice}"

    def no_field(self, name: str, kind: str) -> str:
        """What to say of a field without a meaning."""
        return f"{no_such(kind, name, self.known)}; --metadata hands unknown ones on as metadata"


def _is_valid(name: str, value: Any) -> bool:
    try:
        json_schemas.validate("documents", {"text": "", name: value})
    except MessageError:
        return False
    return True


def _described(value: Any) -> str:
    """What a value is, for a message: somebody's document does not belong there, a short value does."""
    if isinstance(value, str):
        return f"{len(value)} characters" if len(value) > _LONGEST_SHOWN else repr(value)
    return _KINDS.get(type(value), f"the number {value!r}")
