"""Which field of a record, or column of a table, is what of a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from el4ner.errors import MessageError
from el4ner.nearest import choices, nearest, no_such
from workers import schemas

__all__ = ["OPTIONAL", "Fields"]

OPTIONAL: Final = ("pool", "revision", "metadata")


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
        if (own := row.get(self.id)) is not None:
            # The same number as CSV's digits; orjson has read one above 64 bits as a float, which is no id.
            document["id"] = str(own) if isinstance(own, int) and not isinstance(own, bool) else own
        document.update({name: row[name] for name in OPTIONAL if row.get(name) is not None})
        if unknown:
            given = document.get("metadata", {})
            if isinstance(given, Mapping):
                if twice := sorted(given.keys() & unknown.keys()):
                    raise ValueError(f"the {kind} {twice[0]!r} is in its metadata too: which one is to be handed on?")
                document["metadata"] = {**given, **unknown}
        try:
            schemas.validate("documents", document)
        except MessageError as error:
            raise ValueError(str(error)) from error
        return document

    def no_text(self, names: Iterable[str], kind: str) -> str:
        """What to say where the text is missing."""
        names = list(names)
        like = nearest(self.text, names)
        hint = f"; nearest: {like!r}" if like is not None else ""
        name = f"--text-field {like!r}" if like is not None else f"--text-field says which {kind} is the text"
        return f"there is no {kind} {self.text!r}{hint}; there are: {choices(names)}: {name}"

    def no_field(self, name: str, kind: str) -> str:
        """What to say of a field without a meaning."""
        return f"{no_such(kind, name, self.known)}; --metadata hands unknown ones on as metadata"
