"""Where in somebody else's messages a document is: ``kafka.text_path`` and its neighbours.

A topic of change events, or of messages that have their text somewhere inside, is read as it is: nobody has to rewrite
it for el4ner. No Kafka in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from el4ner.errors import MessageError
from workers.config import PATHS, KafkaSettings
from workers.messages import json_schemas
from workers.value_path import ValuePath, described

__all__ = ["DocumentPaths"]


@dataclass(frozen=True, slots=True)
class DocumentPaths:
    """Where a message of the topic ``documents`` has what of a document.

    Without a path for it, a document's id is the message's key (or its place), and its revision 0.
    """

    text: ValuePath
    id: ValuePath | None = None
    revision: ValuePath | None = None

    @classmethod
    def of(cls, settings: KafkaSettings) -> DocumentPaths | None:
        """As the settings say; None: messages are as the topic's schema says."""
        paths = {key: ValuePath.parse(key, path) for key in PATHS if (path := getattr(settings, key)) is not None}
        text = paths.get("text_path")
        return None if text is None else cls(text, paths.get("id_path"), paths.get("revision_path"))

    def document(self, data: Any) -> dict[str, Any]:
        """A message's document as the topic's schema has it; without ``text``: null is there, so it is deleted.

        Raises:
            MessageError: ``schema``: something is not where it has to be, or not what it has to be.
        """
        return {name: value for name in ("id", "revision", "text") if (value := self._part(name, data)) is not None}

    def identity(self, data: Any) -> dict[str, Any]:
        """``id`` and ``revision`` of a message that is no document, as far as they can be told."""
        found = {}
        for name in ("id", "revision"):
            try:
                value = self._part(name, data)
            except MessageError:
                continue
            if value is not None:
                found[name] = value
        return found

    def _part(self, name: str, data: Any) -> Any:
        """None: null is there, or no path says where it is."""
        path: ValuePath | None = getattr(self, name)
        value = None if path is None else path.find(data)
        if path is None or value is None:
            return None
        # As in files: the number 7 is the id "7".
        if name == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        try:
            json_schemas.validate("documents", {"text": "", name: value})
        except MessageError as error:
            raise path.error(f"that is {described(value)}; it has to be {_NEEDED[name]}") from error
        return value


_NEEDED: Final[Mapping[str, str]] = {
    "text": "text",
    "id": "a string of 1 to 1,024 characters, or a whole number",
    "revision": "a whole number from 0 to 9007199254740991",
}
