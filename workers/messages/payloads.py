"""What the bytes of a message look like that is not the expected JSON, and what can be done about it. Pure.

A format is named only where it is sure; the rest is "binary data" or "plain text". The words go into headers, logs and
terminals: they are bounded, have no control characters, and show nothing of the text, which is somebody's document.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson

__all__ = ["Payload", "describe", "describe_json"]

_LOOKED_AT: Final = 4_096
"""Bytes from the beginning that are looked at where the whole would take time."""
_MAX_ID: Final = 2**31 - 1

_PLAIN: Final = "el4ner reads a JSON object in UTF-8"
_REGISTRY: Final = (
    f"{_PLAIN}: have the producer write it without a schema registry (StringSerializer, or Kafka Connect's "
    "JsonConverter with schemas.enable=false), or convert the topic on the way"
)
_WITH_REGISTRY: Final = (
    "name the registry in kafka.registry.url, by which el4ner reads Avro and Protobuf, or have the producer write JSON"
)
_COMPRESSED: Final = f"{_PLAIN}: leave compression to Kafka (the producer's compression.type), which undoes it itself"
_RECODE: Final = f"{_PLAIN}: have the producer encode it as UTF-8, without a byte order mark"
_CONVERT: Final = f"{_PLAIN}: have the producer write that, or convert the topic on the way"
_ONE: Final = f"{_PLAIN}: send one document a message"


class Payload(NamedTuple):
    """``looks_like``: what the bytes seem to be, as in "it looks like …". ``remedy``: what can be done."""

    looks_like: str
    remedy: str

    def __str__(self) -> str:
        return f"it looks like {self.looks_like}; {self.remedy}"


_MAGIC: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"Obj\x01", "an Avro object container (a file of records)", _CONVERT),
    (b"\xc3\x01", "a single Avro object (with its schema's fingerprint)", _CONVERT),
    (b"PAR1", "a Parquet file", _CONVERT),
    (b"\x28\xb5\x2f\xfd", "data compressed with zstd", _COMPRESSED),
    (b"\x04\x22\x4d\x18", "data compressed with lz4", _COMPRESSED),
    (b"\xff\x06\x00\x00sNaPpY", "data compressed with snappy", _COMPRESSED),
    (b"\x82SNAPPY\x00", "data compressed with snappy", _COMPRESSED),
    (b"BZh", "data compressed with bzip2", _COMPRESSED),
    (b"\xfd7zXZ\x00", "data compressed with xz", _COMPRESSED),
    (b"PK\x03\x04", "a zip archive", _CONVERT),
    (b"\xac\xed\x00\x05", "a serialised Java object", _CONVERT),
    (b"%PDF-", "a PDF document", f"{_PLAIN}: extract the text first"),
    (b":)\n", "Smile (binary JSON)", _CONVERT),
    (b"\xe0\x01\x00\xea", "Amazon Ion", _CONVERT),
)

_MARKS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xfe\x00\x00", "UTF-32 (little-endian)"),
    (b"\x00\x00\xfe\xff", "UTF-32 (big-endian)"),
    (b"\xff\xfe", "UTF-16 (little-endian)"),
    (b"\xfe\xff", "UTF-16 (big-endian)"),
)
_UNMARKED: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = (
    (re.compile(rb"[\t\n\r -~]\0\0\0[\t\n\r -~]\0\0\0"), "UTF-32 (little-endian) without a byte order mark"),
    (re.compile(rb"\0\0\0[\t\n\r -~]\0\0\0[\t\n\r -~]"), "UTF-32 (big-endian) without a byte order mark"),
    (re.compile(rb"[\t\n\r -~]\0[\t\n\r -~]\0"), "UTF-16 (little-endian) without a byte order mark"),
    (re.compile(rb"\0[\t\n\r -~]\0[\t\n\r -~]"), "UTF-16 (big-endian) without a byte order mark"),
)
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}\s*\Z")
_XML: Final = re.compile(r"<(\?xml|!DOCTYPE|!--|[A-Za-z_][\w.:-]*[\s/>])")
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def describe(value: bytes) -> Payload:
    """What a value looks like. Never raises; of a value that is JSON it says what :func:`describe_json` does, if that
    says anything."""
    for look in (_empty, _marked, _unmarked, _registry, _magic, _packed):
        payload = look(value)
        if payload is not None:
            return payload
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return _not_utf8(value, error)
    return _text(text, value)


def describe_json(data: Any) -> Payload | None:
    """What JSON seems to be that its schema does not allow, where something can be said; None: nothing."""
    if isinstance(data, list):
        return Payload("a JSON array", _ONE)
    if isinstance(data, str):
        inner = _loads(data.encode("utf-8", "replace"))
        if isinstance(inner, dict | list):
            return Payload("JSON in a JSON string: it was encoded twice", f"{_PLAIN}: encode it once")
        return None
    if not isinstance(data, Mapping):
        return None
    keys = data.keys()
    if keys == {"schema", "payload"}:
        return Payload("what Kafka Connect's JsonConverter writes with schemas.enable=true", "set that to false")
    if "specversion" in keys and ("data" in keys or "data_base64" in keys):
        return Payload(
            "a CloudEvent in structured mode",
            "have the producer use the binary mode: the data as value, the rest as headers",
        )
    if {"before", "after", "op"} <= keys:
        return Payload("a change event of Debezium's", "unwrap it (ExtractNewRecordState) before it comes here")
    return None


def _empty(value: bytes) -> Payload | None:
    if not value:
        return Payload("nothing: the value is empty", "a deletion is a null value (a tombstone), not an empty one")
    if not value.strip(b" \t\r\n"):
        return Payload("nothing but white space", _CONVERT)
    return None


def _marked(value: bytes) -> Payload | None:
    for mark, name in _MARKS:
        if value.startswith(mark):
            return Payload(f"text in {name}", _RECODE)
    if value.startswith(b"\xef\xbb\xbf"):
        return Payload("UTF-8 with a byte order mark", f"{_PLAIN}: leave the mark (EF BB BF) at the beginning out")
    return None


def _unmarked(value: bytes) -> Payload | None:
    # JSON begins with two characters of ASCII, however it goes on.
    return next(
        (Payload(f"text in {name}", _RECODE) for pattern, name in _UNMARKED if pattern.match(value)),
        None,
    )


def _registry(value: bytes) -> Payload | None:
    """The framings of schema registries."""
    if value[0] == 0 and len(value) > 5:
        number, body = int.from_bytes(value[1:5], "big"), value[5:]
        if 0 < number <= _MAX_ID:
            return Payload(
                f"a schema registry's wire format (Confluent's, schema id {number}), {_body(body)}",
                _WITH_REGISTRY if _may_be_avro(body) else _CONVERT,
            )
        number = int.from_bytes(value[5:9], "big")
        if len(value) > 9 and value[1:5] == bytes(4) and 0 < number <= _MAX_ID:
            named = f"a schema registry's wire format (Apicurio's, global id {number})"
            return Payload(f"{named}, {_body(value[9:])}", _REGISTRY)
    if value[0] == 1 and len(value) > 17 and (guid := _guid(value[1:17])) is not None:
        return Payload(f"a schema registry's wire format (schema {guid}), {_body(value[17:])}", _REGISTRY)
    if value[0] == 3 and value[1:2] in (b"\x00", b"\x05") and len(value) > 18 and (guid := _guid(value[2:18])):
        rest = _body(value[18:]) if value[1] == 0 else "compressed"
        return Payload(f"the wire format of AWS Glue's schema registry (schema version {guid}), {rest}", _REGISTRY)
    return None


def _body(body: bytes) -> str:
    """What follows a framing. Protobuf has the place of its message's type in front of it."""
    if isinstance(_loads(body), dict | list):
        return "followed by JSON"
    return "followed by JSON that is broken" if body.lstrip()[:1] == b"{" else "followed by Avro or Protobuf"


def _may_be_avro(body: bytes) -> bool:
    return body.lstrip()[:1] != b"{"


def _guid(raw: bytes) -> str | None:
    guid = uuid.UUID(bytes=raw)
    return str(guid) if guid.variant == uuid.RFC_4122 and guid.version in range(1, 9) else None


def _magic(value: bytes) -> Payload | None:
    for magic, name, remedy in _MAGIC:
        if value.startswith(magic) and (magic != b"BZh" or value[4:10] == b"1AY&SY"):
            return Payload(name, remedy)
    if value[:3] == b"\x1f\x8b\x08":
        return Payload(f"data compressed with gzip{_inside(value, 31)}", _COMPRESSED)
    if value[0] == 0x78 and len(value) > 2 and int.from_bytes(value[:2], "big") % 31 == 0 and _inside(value, 15):
        return Payload(f"data compressed with zlib{_inside(value, 15)}", _COMPRESSED)
    return None


def _inside(value: bytes, window: int) -> str:
    try:
        begin = zlib.decompressobj(window).decompress(value[:_LOOKED_AT], 64)
    except zlib.error:
        return ""
    return ", JSON inside" if begin.lstrip()[:1] in (b"{", b"[") else ", something else than JSON inside"


def _packed(value: bytes) -> Payload | None:
    """Binary forms of JSON, where the keys of a document are found at the beginning."""
    begin = value[:_LOOKED_AT]
    first = value[0]
    if (0x81 <= first <= 0x8F or first in (0xDE, 0xDF)) and any(key in begin for key in (b"\xa4text", b"\xa2id")):
        return Payload("MessagePack", _CONVERT)
    if (0xA1 <= first <= 0xBB or first == 0xBF) and any(key in begin for key in (b"\x64text", b"\x62id")):
        return Payload("CBOR", _CONVERT)
    if len(value) > 8 and int.from_bytes(value[:4], "little") == len(value) and value[-1] == 0:
        return Payload("BSON", _CONVERT)
    if first == 0x80 and value[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and value[-1:] == b".":
        return Payload("a pickled Python object", _CONVERT)
    return None


def _not_utf8(value: bytes, error: UnicodeDecodeError) -> Payload:
    begin = value[:_LOOKED_AT]
    high = sum(byte >= 0x80 for byte in begin)
    if _CONTROLS.search(begin) is not None or high > 0.9 * len(begin):
        return Payload(f"binary data, beginning {_hex(value)}", _CONVERT)
    kind = "JSON" if value.lstrip()[:1] in (b"{", b"[") else "text"
    if error.end == len(value) and "end of data" in error.reason:
        return Payload(f"{kind} in UTF-8 that was cut within a character", f"{_PLAIN}: see where it is cut off")
    broken = f"{kind} in another encoding than UTF-8 (byte 0x{value[error.start]:02X} at {error.start})"
    if high <= 0.3 * len(begin):
        broken += ", such as Latin-1 or Windows-1252"
    return Payload(broken, _RECODE)


def _text(text: str, value: bytes) -> Payload:
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return _no_json(text, value, error.pos)
    return describe_json(data) or Payload("JSON", _CONVERT)


def _no_json(text: str, value: bytes, place: int) -> Payload:
    begin = text.lstrip()
    for test, payload in _TEXTS:
        if test(begin):
            return payload
    if (packed := _base64(value)) is not None:
        return packed
    if begin.startswith(("{", "[")):
        ahead = _loads(text[:place].encode())
        if isinstance(ahead, dict | list):
            what = "several JSON values" if _begins_json(text[place:]) else "JSON with something behind it"
            return Payload(f"{what} in one message (the first one ends at character {place})", _ONE)
        if place >= len(text.rstrip()):
            return Payload(
                f"JSON that ends in the middle, after {len(value):,} bytes", f"{_PLAIN}: see where it is cut off"
            )
        return Payload(
            f"JSON with a mistake at character {place}",
            f"{_PLAIN}: have the producer write it with a JSON library",
        )
    if _CONTROLS.search(value[:_LOOKED_AT]) is not None:
        return Payload(f"binary data, beginning {_hex(value)}", _CONVERT)
    return Payload("plain text", f'{_PLAIN}, such as {{"text": "…"}}: el4ner produce makes that of text')


_TEXTS: Final[tuple[tuple[Callable[[str], bool], Payload], ...]] = (
    (lambda begin: _XML.match(begin) is not None, Payload("XML or HTML", _CONVERT)),
    (
        lambda begin: begin.startswith(("{'", "[{'")),
        Payload("what Python prints of a dict, with single quotes", f"{_PLAIN}: use json.dumps, not str"),
    ),
)


def _begins_json(rest: str) -> bool:
    return rest.lstrip(" \t\r\n,")[:1] in ("{", "[", '"')


def _base64(value: bytes) -> Payload | None:
    if _BASE64.match(value) is None:
        return None
    begin = value.strip()[:64].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        decoded = base64.b64decode(begin[: len(begin) // 4 * 4])
    except binascii.Error:
        return None
    # Much that is no base64 has its letters, too: only what JSON comes out of is taken for it.
    return Payload("base64 of JSON", f"{_PLAIN}: leave the base64 out") if decoded.lstrip()[:1] == b"{" else None


def _loads(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None


def _hex(value: bytes) -> str:
    return value[:8].hex(" ") + (" …" if len(value) > 8 else "")
