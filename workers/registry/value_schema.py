"""How values in a registry's frame are read, whatever they are written in."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["ValueSchema"]


class ValueSchema(Protocol):
    """How the values of one schema are read."""

    def read(self, body: bytes) -> Any:
        """The value, as JSON has it. Bytes, which JSON has not, stay :class:`bytes`.

        Raises:
            MessageError: it cannot be read.
        """
        ...
