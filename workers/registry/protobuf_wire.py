"""Protobuf's wire format, as far as it is counted through before anything is parsed. Pure."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["TooManyValuesError", "WireError", "needed_count", "varint"]

_VARINT, _EIGHT_BYTES, _BYTES, _GROUP, _GROUP_END, _FOUR_BYTES = range(6)
_DEEPEST: Final = 100
"""Parsers go no deeper."""
_WIDTHS: Final = {1: 8, 2: 4, 6: 8, 7: 4, 15: 4, 16: 8}
"""Bytes of the types that always take as many, by the numbers of ``FieldDescriptorProto.Type``."""


class WireError(ValueError):
    """Bytes are no Protobuf."""


class TooManyValuesError(ValueError):
    """A value is larger than it may be."""


def varint(body: bytes, place: int) -> tuple[int, int]:
    """The number that begins there, and where what follows begins.

    Raises:
        WireError: there is none.
    """
    number = shift = 0
    while place < len(body) and shift < 64:
        byte = body[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
    raise WireError


def needed_count(descriptor: Any, body: bytes, *, most: int) -> None:
    """Count what a message of the descriptor has: all fields of each message in it, and the items of lists.

    Raises:
        TooManyValuesError: there is more than ``most``.
        WireError: the bytes are no such message.
    """
    left = most - len(descriptor.fields)
    # Where messages end that are begun, and what they are; None: what nothing is known of, which is passed over.
    around: list[tuple[int, Any]] = [(len(body), descriptor)]
    place = 0
    while around:
        end, current = around[-1]
        if place == end:
            around.pop()
            continue
        tag, place = varint(body, place)
        number, wire = tag >> 3, tag & 7
        field = None if current is None else current.fields_by_number.get(number)
        left -= 1
        if wire == _BYTES:
            length, place = varint(body, place)
            inner = place + length
            if inner > end:
                raise WireError
            kind = None if field is None else field.message_type
            if kind is not None:
                left -= len(kind.fields)
                around.append((inner, kind))
            else:
                if field is not None and field.is_repeated and field.cpp_type not in (_CPP_STRING,):
                    left -= length // _WIDTHS.get(field.type, 1)
                place = inner
        elif wire == _GROUP:
            # Ends with a tag and not with a length, so it ends at the latest where what is around it does.
            kind = None if field is None else field.message_type
            left -= 0 if kind is None else len(kind.fields)
            around.append((end, kind))
        elif wire == _GROUP_END:
            around.pop()
        elif wire == _VARINT:
            _, place = varint(body, place)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if wire == _EIGHT_BYTES else 4
        else:
            raise WireError
        if place > end or len(around) > _DEEPEST + 1:
            raise WireError
        if left < 0:
            raise TooManyValuesError


_CPP_STRING: Final = 9
"""``FieldDescriptor.CPPTYPE_STRING``: strings and bytes."""
