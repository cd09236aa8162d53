"""What is said of a value that is not the JSON which was expected."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import pickle
import uuid
import zlib

import orjson
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from lz4 import frame as lz4

from el4ner.errors import MessageError
from workers.messages.envelope import decode
from workers.messages.payloads import describe, describe_json
from workers.topics import Topic

DOCUMENT = {"id": "d-1", "text": "Zoë Schröder flew to Zürich with 𝔉red."}
JSON = orjson.dumps(DOCUMENT)
PLAIN = orjson.dumps({"id": "d-1", "text": "Zoë flew to Zürich"})
GUID = uuid.UUID("9f1c2e1a-6c0b-4a5e-8f00-0123456789ab")
AVRO = b"\x06d-1\x24Zo\xc3\xab flew to Paris"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        # Nothing.
        (b"", ["the value is empty", "null value"]),
        (b" \r\n\t", ["nothing but white space"]),
        # Schema registries.
        (b"\x00\x00\x00\x00\x2a" + AVRO, ["schema id 42", "Avro or Protobuf", "kafka.registry.url"]),
        (b"\x00\x00\x00\x00\x2a\x00\x0a\x03d-1\xff", ["schema id 42", "Avro or Protobuf"]),
        (b"\x00\x00\x01\x86\xa1" + JSON[:-4], ["schema id 100001", "JSON that is broken"]),
        (b"\x00" + bytes(4) + b"\x00\x00\x00\x07" + AVRO, ["Apicurio", "global id 7"]),
        (b"\x01" + GUID.bytes + AVRO, [f"schema {GUID}", "Avro or Protobuf"]),
        (b"\x03\x00" + GUID.bytes + JSON, ["AWS Glue", str(GUID), "followed by JSON;"]),
        (b"\x03\x05" + GUID.bytes + zlib.compress(AVRO), ["AWS Glue", "compressed"]),
        # Files and packed forms.
        (b"Obj\x01\x04\x14avro.codec\x08null", ["Avro object container"]),
        (b"\xc3\x01" + bytes(range(8)) + AVRO, ["single Avro object"]),
        (b"PAR1\x15\x04\x15\x10", ["Parquet"]),
        (gzip.compress(JSON, mtime=0), ["gzip, JSON inside", "compression.type"]),
        (gzip.compress(b"hello", mtime=0), ["gzip, something else than JSON inside"]),
        (zlib.compress(JSON), ["zlib, JSON inside"]),
        (zstandard.compress(JSON), ["zstd"]),
        (lz4.compress(JSON), ["lz4"]),
        (snappy.StreamCompressor().compress(JSON), ["snappy"]),
        (b"\x82SNAPPY\x00\x00\x00\x00\x01", ["snappy"]),
        (bz2.compress(JSON), ["bzip2"]),
        (lzma.compress(JSON), ["xz"]),
        (b"PK\x03\x04\x14\x00", ["zip archive"]),
        (b"\xac\xed\x00\x05sr\x00", ["Java object"]),
        (pickle.dumps(DOCUMENT), ["pickled Python object"]),
        (b"\x82\xa2id\xa3d-1\xa4text\xa5hello", ["MessagePack"]),
        (b"\xa2bidcd-1dtextehello", ["CBOR"]),
        (b"\x15\x00\x00\x00\x02text\x00\x06\x00\x00\x00hello\x00\x00", ["BSON"]),
        (b"\x0a\x03d-1\x12\x05hello\xff\xfe", ["binary data", "0a 03 64 2d 31 12 05 68 …"]),
        (b"\x00\x01\x02", ["binary data, beginning 00 01 02"]),
        # Encodings.
        (b"\xef\xbb\xbf" + JSON, ["UTF-8 with a byte order mark", "EF BB BF"]),
        (b"\xff\xfe" + JSON.decode().encode("utf-16-le"), ["UTF-16 (little-endian)", "as UTF-8"]),
        (b"\xfe\xff" + JSON.decode().encode("utf-16-be"), ["UTF-16 (big-endian)"]),
        (JSON.decode().encode("utf-16-le"), ["UTF-16 (little-endian) without a byte order mark"]),
        (JSON.decode().encode("utf-16-be"), ["UTF-16 (big-endian) without a byte order mark"]),
        (JSON.decode().encode("utf-32"), ["UTF-32 (little-endian)"]),
        (b"\x00\x00\xfe\xff" + JSON.decode().encode("utf-32-be"), ["UTF-32 (big-endian)"]),
        (JSON.decode().encode("utf-32-le"), ["UTF-32 (little-endian) without"]),
        (JSON.decode().encode("utf-32-be"), ["UTF-32 (big-endian) without"]),
        (PLAIN.decode().encode("latin-1"), ["JSON in another encoding than UTF-8 (byte 0xEB at 22)", "Latin-1"]),
        ("Zürich ist schön".encode("cp1252"), ["text in another encoding than UTF-8 (byte 0xFC at 1)", "Windows-1252"]),
        ('{"text": "Москва и Санкт-Петербург"}'.encode("cp1251"), ["JSON in another encoding than UTF-8"]),
        ("東京都渋谷区".encode("shift_jis"), ["another encoding"]),
        (JSON[: JSON.index("ë".encode()) + 1], ["JSON in UTF-8 that was cut within a character"]),
        # Text that is no JSON.
        (b"hello", ["plain text", "el4ner produce"]),
        ("Zürich".encode(), ["plain text"]),
        (b"\xc2\xa0", ["plain text"]),
        (b"id,text\n1,hello", ["plain text"]),
        (b'<?xml version="1.0"?><doc/>', ["XML or HTML"]),
        (b"<html><body>", ["XML or HTML"]),
        (b"<not a tag", ["XML or HTML"]),
        (b"< 5 apples", ["plain text"]),
        (JSON + b"\n" + JSON, ["several JSON values in one message", "one document a message"]),
        (b'{"text": "a"},\n{"text": "b"}', ["several JSON values"]),
        (b'{"text": "a"}]', ["JSON with something behind it"]),
        (JSON[:20], ["JSON that ends in the middle, after 20 bytes"]),
        (b'{"text": ', ["JSON that ends in the middle"]),
        (b'{"text": "a",}', ["JSON with a mistake at character 12", "JSON library"]),
        (b'{"text": "line\nbreak"}', ["JSON with a mistake at character 14"]),
        (b'{"text": NaN}', ["JSON with a mistake"]),
        (b"{'text': 'a'}", ["single quotes", "json.dumps"]),
        (base64.b64encode(JSON), ["base64 of JSON"]),
        (b"abcdefghijklmnopqrst", ["plain text"]),
    ],
)
def test_a_value_that_is_no_json_is_recognised(value: bytes, words: list[str]) -> None:
    with pytest.raises(MessageError) as refused:
        decode(Topic.DOCUMENTS, value)
    said = str(refused.value)
    for word in words:
        assert word in said, said
    # The codes are those that they were: what is said with them has changed.
    try:
        value.decode()
    except UnicodeDecodeError:
        assert refused.value.code == "encoding"
    else:
        assert refused.value.code == "json"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([DOCUMENT], ["a JSON array", "one document a message"]),
        (json.dumps(DOCUMENT), ["encoded twice"]),
        ({"schema": {"type": "struct"}, "payload": DOCUMENT}, ["JsonConverter", "schemas.enable=true"]),
        ({"specversion": "1.0", "id": "1", "data": DOCUMENT}, ["CloudEvent in structured mode", "binary mode"]),
        ({"before": None, "after": DOCUMENT, "op": "c"}, ["Debezium"]),
    ],
)
def test_json_of_another_kind_is_recognised_beside_what_its_schema_says(data: object, words: list[str]) -> None:
    with pytest.raises(MessageError, match="not a documents message") as refused:
        decode(Topic.DOCUMENTS, orjson.dumps(data))
    assert refused.value.code == "schema"
    for word in words:
        assert word in str(refused.value)


def test_json_of_which_nothing_can_be_said_is_left_to_its_schema() -> None:
    for data in (5, None, "hello", {"title": "no text"}):
        assert describe_json(data) is None
    with pytest.raises(MessageError) as refused:
        decode(Topic.DOCUMENTS, b'{"title": "no text"}')
    assert "looks like" not in str(refused.value)


BEGINNINGS = st.sampled_from(
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x00",
        b"\x01",
        b"\x03\x00",
        b"\x1f\x8b\x08",
        b"\x78\x9c",
        b"{",
        b"[",
        b"\xff\xfe",
        b"<",
        b"\x82",
    ]
)


@given(BEGINNINGS, st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_whatever_the_bytes_are_something_short_and_printable_is_said(begin: bytes, rest: bytes) -> None:
    said = str(describe(begin + rest))
    assert said.isprintable()
    assert len(said) < 500
    assert said.startswith("it looks like ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_the_json_is_it_is_described_or_left_alone(data: object) -> None:
    said = describe_json(data)
    assert said is None or str(said).isprintable()


@given(st.text(alphabet="abcdefgh \n", min_size=20), st.integers(1, 5))
def test_nothing_of_a_text_is_shown(text: str, cut: int) -> None:
    secret = f"sec{text}ret"
    value = json.dumps({"text": secret}).encode()[:-cut]
    assert secret[:12] not in str(describe(value))
    assert secret[:12] not in str(describe(secret.encode()))


def test_deep_and_large_values_are_described_too() -> None:
    assert "JSON" in str(describe(b"[" * 100_000))
    assert "JSON that ends in the middle" in str(describe(b'{"text": "' + b"a" * 5_000_000))
    assert "several JSON values" in str(describe(b'{"text": "' + b"a" * 5_000_000 + b'"}{}'))
