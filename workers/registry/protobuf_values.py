"""Values that were written by a Protobuf schema: which message it is, how much is in it, and what.

A few bytes may be very many values: an empty message takes two, and has all of its fields. So the bytes are counted
through before they are parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from typing_extensions import override

from el4ner.errors import MessageError
from workers.registry.protobuf_compiler import ProtobufFile
from workers.registry.protobuf_wire import TooManyValuesError, WireError, needed_count, varint
from workers.registry.value_schema import ValueSchema

__all__ = ["MOST_VALUES", "ProtobufValues", "message_indexes"]

MOST_VALUES: Final = 1_000_000
"""Fields of all messages in a value, and items of lists."""
_MOST_INDEXES: Final = 32
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)


class ProtobufValues(ValueSchema):
    """Values of one schema. Fields have the names of the schema; what may be left out and is, is None. Whole numbers
    are numbers, enumerations their names, a ``google.protobuf.Timestamp`` milliseconds since 1970, and wrappers and
    ``Struct`` what they stand for."""

    def __init__(self, file: ProtobufFile) -> None:
        self._file = file

    @override
    def read(self, body: bytes) -> Any:
        try:
            indexes, begin = message_indexes(body)
            message_class = self._file.message_class(indexes)
        except (LookupError, WireError) as error:
            raise MessageError(
                "the value does not say which message of its Protobuf schema it is: behind the frame there have to be "
                "the message indexes, as Confluent's serializers write them",
                code="protobuf",
            ) from error
        value = body[begin:]
        try:
            # A glance that says for nearly all values that they are not that large.
            if (len(value) // 2 + 1) * (self._file.largest + 1) > MOST_VALUES:
                needed_count(message_class.DESCRIPTOR, value, most=MOST_VALUES)
            return _message(message_class.FromString(value))
        except TooManyValuesError as error:
            raise MessageError(
                f"the Protobuf value has more than {MOST_VALUES:,} fields and items", code="protobuf"
            ) from error
        except Exception as error:  # of the parser, which has no family of errors
            raise MessageError(
                f"the value is not what its Protobuf schema says ({message_class.DESCRIPTOR.full_name})",
                code="protobuf",
            ) from error


def message_indexes(body: bytes) -> tuple[list[int], int]:
    """Which message of the file a value is, and where it begins: how many indexes there are, then each, as zigzag
    varints; a single 0 is the first message.

    Raises:
        WireError: there are none.
    """
    count, place = _zigzag(body, 0)
    if count == 0:
        return [0], place
    if not 0 < count <= _MOST_INDEXES:
        raise WireError
    indexes = []
    for _ in range(count):
        index, place = _zigzag(body, place)
        indexes.append(index)
    return indexes, place


def _zigzag(body: bytes, place: int) -> tuple[int, int]:
    number, place = varint(body, place)
    return (number >> 1) ^ -(number & 1), place


def _message(message: Any) -> Any:
    descriptor = message.DESCRIPTOR
    if (known := _KNOWN.get(descriptor.full_name)) is not None:
        return known(message)
    found: dict[str, Any] = {}
    for field in descriptor.fields:
        name = field.name
        if field.is_repeated:
            values = getattr(message, name)
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                convert = _conversion(field.message_type.fields_by_name["value"])
                found[name] = {_key(key): convert(values[key]) for key in values}
            else:
                convert = _conversion(field)
                found[name] = [convert(each) for each in values]
        elif field.has_presence and not message.HasField(name):
            found[name] = None
        else:
            found[name] = _conversion(field)(getattr(message, name))
    return found


def _conversion(field: Any) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return _message
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        return lambda number: names[number].name if number in names else number
    return _same


def _same(value: Any) -> Any:
    return value


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _milliseconds(message: Any) -> int:
    if not _FIRST_SECOND <= message.seconds <= _LAST_SECOND:
        raise ValueError("a Timestamp is in the years 1 to 9999")  # others would be numbers that JSON does not write
    return int(message.seconds * 1000 + message.nanos // 1_000_000)


def _struct_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    value = getattr(message, kind)
    return _message(value) if kind in ("struct_value", "list_value") else value


_KNOWN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "google.protobuf.Timestamp": _milliseconds,
    "google.protobuf.Struct": lambda message: {key: _struct_value(message.fields[key]) for key in message.fields},
    "google.protobuf.ListValue": lambda message: [_struct_value(each) for each in message.values],
    "google.protobuf.Value": _struct_value,
    **dict.fromkeys(_WRAPPERS, lambda message: message.value),
}
