"""A place in a JSON value, as somebody writes it in a setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from el4ner.errors import MessageError
from el4ner.nearest import nearest

__all__ = ["ValuePath", "described"]

_SHOWN_NAMES: Final = 8
_COMPARED_NAMES: Final = 1_000
"""More are not looked through for a name that is meant."""
_KINDS: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
    bytes: "bytes",
}


@dataclass(frozen=True, slots=True)
class ValuePath:
    """A place in a JSON value: names of fields with dots between them (``payload.after.body``; of an array, numbers
    from 0), or a JSON Pointer (RFC 6901) where it begins with a slash, for names with dots (``/payload/body.text``)."""

    setting: str
    """What the path is called, for messages."""
    written: str
    steps: tuple[str, ...]

    @classmethod
    def parse(cls, setting: str, written: str) -> ValuePath:
        """The path that is written so.

        Raises:
            ValueError: a name in it is empty.
        """
        if written.startswith("/"):
            steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in written[1:].split("/"))
        else:
            steps = tuple(written.split("."))
        if not all(steps):
            raise ValueError(
                f"{written!r} has a name that is empty: write names with dots between them, as in payload.after.body, "
                "or a JSON Pointer, as in /payload/after.body"
            )
        return cls(setting, written, steps)

    def find(self, data: Any) -> Any:
        """What is there; None where it is null, or something on the way to it is.

        Raises:
            MessageError: ``schema``: the message has no such place; says where the path leaves it.
        """
        for number, step in enumerate(self.steps):
            if data is None:
                return None
            if isinstance(data, Mapping) and step in data:
                data = data[step]
            elif isinstance(data, list) and step.isdecimal() and int(step) < len(data):
                data = data[int(step)]
            else:
                raise self.error(self._nothing(data, number))
        return data

    def error(self, what: str) -> MessageError:
        """What is wrong at this place of a message."""
        return MessageError(f"kafka.{self.setting} is {self.written!r}: {what}", code="schema")

    def _nothing(self, data: Any, number: int) -> str:
        place = "the value" if number == 0 else f"{'.'.join(self.steps[:number])!r}"
        step = self.steps[number]
        if isinstance(data, list):
            return f"{place} is an array of {len(data)}, which has no {step!r}"
        if not isinstance(data, Mapping):
            return f"{place} is {described(data)}, which has no {step!r} in it"
        names = list(islice(data, _COMPARED_NAMES))
        like = nearest(step, names)
        if like is not None:
            return f"{place} has no {step!r}: did you mean {like!r}?"
        shown = ", ".join(repr(name) for name in names[:_SHOWN_NAMES]) or "nothing"
        more = f" and {len(data) - _SHOWN_NAMES} more" if len(data) > _SHOWN_NAMES else ""
        return f"{place} has no {step!r}; it has {shown}{more}"


def described(value: Any) -> str:
    """What kind of JSON a value is."""
    return "text" if isinstance(value, str) else _KINDS.get(type(value), "null")
