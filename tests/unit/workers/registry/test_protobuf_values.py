"""Values as a registered Protobuf schema says, and schemas and values that mean no good."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import MessageError
from tests.support.paths import ROOT
from workers.registry.protobuf_compiler import ProtobufFile, compiled
from workers.registry.protobuf_values import MOST_VALUES, ProtobufValues
from workers.registry.registered_schema import RegisteredSchema, SchemaReference
from workers.registry.value_schemas import value_schema

CITY = 'syntax = "proto3"; package geo; message City { string name = 1; }'
ARTICLES = """
syntax = "proto3";
package shop.articles;
import "geo/city.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Kind { NEWS = 0; LETTER = 1; }
message Envelope {
  message Row {
    string id = 1;
    string body = 2;
    optional string note = 3;
    repeated string tags = 4;
    map<int32, geo.City> cities = 5;
    Kind kind = 6;
    bytes raw = 7;
    oneof more { string link = 8; uint64 number = 9; }
  }
  Row before = 1;
  Row after = 2;
  int64 ts_ms = 3;
  google.protobuf.Timestamp written = 4;
  google.protobuf.Struct extra = 5;
  google.protobuf.StringValue source = 6;
  Envelope inner = 7;
}
message Other { int32 a = 1; }
"""
OLD = """
syntax = "proto2";
message Old {
  required string text = 1;
  optional int32 count = 2 [default = 5];
  repeated group Part = 3 { optional string p = 4; }
}
"""
EMPTY_ROW = {
    "id": "",
    "body": "",
    "note": None,
    "tags": [],
    "cities": {},
    "kind": "NEWS",
    "raw": b"",
    "link": None,
    "number": None,
}


def registered(text: str, *references: tuple[str, str]) -> RegisteredSchema:
    return RegisteredSchema("PROTOBUF", text, tuple(SchemaReference(*each) for each in references))


@cache
def articles() -> ProtobufFile:
    return compiled(registered(ARTICLES, ("geo/city.proto", CITY)))


@cache
def old() -> ProtobufFile:
    return compiled(registered(OLD))


def refused(values: Any, body: bytes) -> str:
    with pytest.raises(MessageError) as error:
        values.read(body)
    return f"{error.value.code}: {error.value}"


def test_a_change_event_is_read_with_all_that_it_says() -> None:
    row = {
        "id": "a",
        "body": "Zoe\0 lives in Oslo \U0001f600",
        "tags": ["x", ""],
        "cities": {-7: {"name": "Oslo"}},
        "kind": 1,
        "raw": b"\xff",
        "number": 2**64 - 1,
    }
    message = articles().message_class([0])(after=row, ts_ms=1_700_000_000_123)
    message.written.FromMilliseconds(1_700_000_000_456)
    message.extra.update({"a": [1, None, {"b": True}]})
    message.source.value = "db"
    value = ProtobufValues(articles()).read(b"\0" + message.SerializeToString())
    assert value == {
        "before": None,
        "after": EMPTY_ROW | row | {"cities": {"-7": {"name": "Oslo"}}, "kind": "LETTER"},
        "ts_ms": 1_700_000_000_123,
        "written": 1_700_000_000_456,
        "extra": {"a": [1.0, None, {"b": True}]},
        "source": "db",
        "inner": None,
    }


@pytest.mark.parametrize(
    ("indexes", "path"),
    [(b"\x00", [0]), (b"\x02\x00", [0]), (b"\x02\x02", [1]), (b"\x04\x00\x00", [0, 0])],
)
def test_message_indexes_say_which_message_it_is(indexes: bytes, path: list[int]) -> None:
    file = articles()
    empty = ProtobufValues(file).read(indexes)
    assert empty.keys() == {field.name for field in file.message_class(path).DESCRIPTOR.fields}


@pytest.mark.parametrize(
    "indexes", [b"", b"\x02", b"\x02\x06", b"\x01", b"\x02\x01", b"\x80\x80", b"\xff" * 12, b"\x7e" * 99]
)
def test_other_indexes_are_refused(indexes: bytes) -> None:
    assert "protobuf: the value does not say which message" in refused(ProtobufValues(articles()), indexes)


def test_proto2_is_read_too() -> None:
    message = old().message_class([0])(text="Ada")
    message.part.add(p="x")
    value = ProtobufValues(old()).read(b"\0" + message.SerializeToString())
    assert value == {"text": "Ada", "count": None, "part": [{"p": "x"}]}


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_they_are_read_or_refused(body: bytes) -> None:
    for file in (articles(), old()):
        with suppress(MessageError):
            ProtobufValues(file).read(b"\0" + body)


@pytest.mark.parametrize(
    "change", [lambda body: body[:-3], lambda body: body + b"\xff", lambda body: b"\x12\xff" + body]
)
def test_what_another_schema_has_written_is_refused(change: Any) -> None:
    body = articles().message_class([0])(after={"body": "Ada wrote"}).SerializeToString()
    said = refused(ProtobufValues(articles()), b"\0" + change(body))
    assert said == "protobuf: the value is not what its Protobuf schema says (shop.articles.Envelope)"


def delimited(number: int, body: bytes) -> bytes:
    length, size = len(body), b""
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + body


def test_a_value_of_very_many_values_is_refused_before_it_fills_the_memory() -> None:
    wide = "message Wide { " + " ".join(f"string f{number} = {number};" for number in range(1, 2_000)) + " }"
    file = compiled(
        registered(f'syntax = "proto3"; message Many {{ repeated Wide wide = 1; repeated bool flag = 2; }} {wide}')
    )
    values = ProtobufValues(file)
    began = time.process_time()
    for body in (b"\x0a\x00" * 4_000_000, delimited(2, b"\x01" * (MOST_VALUES + 1))):
        assert f"more than {MOST_VALUES:,} fields and items" in refused(values, b"\0" + body)
    assert time.process_time() - began < 10
    assert values.read(b"\0" + b"\x0a\x00" * 3)["wide"][2]["f7"] == ""


def test_extensions_take_no_memory() -> None:
    """What is read has none, so that a value of two bytes each must not make them."""
    wide = "message Wide { " + " ".join(f"optional int64 f{number} = {number};" for number in range(1, 5_000)) + " }"
    extended = "message M { optional string a = 1; extensions 5 to 9; } extend M { repeated Wide wide = 5; }"
    file = compiled(
        registered(f'syntax = "proto2"; {wide} {extended} message N {{ extend M {{ optional M m = 6; }} }}')
    )
    message_class = file.message_class([1])
    assert not file.message_class([0]).DESCRIPTOR.file.extensions_by_name
    assert ProtobufValues(file).read(b"\x02\x02" + b"\x0a\x01x" + b"\x2a\x00" * 1_000) == {"a": "x"}
    assert message_class.FromString(b"\x2a\x00").ListFields() == []


def test_a_moment_is_a_number_that_json_can_write() -> None:
    for seconds in (-(2**63), 2**63 - 1, 253_402_300_800):
        message = articles().message_class([0])()
        message.written.seconds = seconds
        assert "protobuf: " in refused(ProtobufValues(articles()), b"\0" + message.SerializeToString())


def test_protoc_may_say_as_much_as_it_likes() -> None:
    """Each of the lines has a long name in it: some 40 MB in all, of which the worker reads the beginning."""
    name = "N" * 20_000
    schema = registered(PROTO + f"message {name} {{" + "int32 a=1;" * 2_000 + "}")
    assert "is refused by protoc: line 1:" in refused(value_schema(7, schema), b"\0")


def test_a_value_that_is_nested_too_deep_is_refused() -> None:
    body = b""
    for _ in range(2_000):
        body = delimited(7, body)
    assert "protobuf: " in refused(ProtobufValues(articles()), b"\0" + body)


def test_a_large_text_is_no_large_number_of_values() -> None:
    body = articles().message_class([0])(after={"body": "x" * 8_000_000}).SerializeToString()
    assert len(ProtobufValues(articles()).read(b"\0" + body)["after"]["body"]) == 8_000_000


PROTO = 'syntax = "proto3"; '


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (registered("message {"), "is refused by protoc: line 1:"),
        (registered(PROTO + 'import "geo/city.proto"; message A { geo.City c = 1; }'), "geo/city.proto"),
        (registered(PROTO + 'import "/etc/passwd"; message A {}'), "is refused by protoc"),
        (registered(PROTO, ("../a.proto", PROTO)), "refers to '../a.proto', which is no name of a .proto file"),
        (registered(PROTO, ("/tmp/a.proto", PROTO)), "which is no name of a .proto file"),
        (registered(PROTO, ("a/../../a.proto", PROTO)), "which is no name of a .proto file"),
        (registered(PROTO, ("a.proto", PROTO), ("a.proto/b.proto", PROTO)), "as a file and as a folder"),
        (registered(PROTO, ("a.proto", PROTO), ("a.proto", PROTO + " ")), "two files that are called 'a.proto'"),
        (registered(PROTO + "// " + "x" * 1_000_000), "more than 1,000,000 characters"),
        (
            registered(PROTO + "message A {" + "".join(f"int32 f{n}=1{n:05};" for n in range(10_001)) + "}"),
            "has more than 10,000 fields",
        ),
        (registered(PROTO + "message A {" * 5_000 + "}" * 5_000), "is refused by protoc"),
        (registered(PROTO + f"message A {{ message B {{ int32 {'f' * 256} = 1; }} }}"), "a name of more than 255"),
        (registered(PROTO + f"message A {{ enum E {{ {'E' * 256} = 0; }} }}"), "a name of more than 255"),
    ],
)
def test_schemas_that_are_none_or_mean_no_good_are_refused(schema: RegisteredSchema, said: str) -> None:
    reason = refused(value_schema(7, schema), b"\0")
    assert reason.startswith("schema-type: the Protobuf schema of the value (id 7) ")
    assert said in reason


def test_protoc_is_found_where_this_process_has_found_it(tmp_path: Path) -> None:
    """As of an installation that PYTHONPATH names, or one of a user's own."""
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False)
    code = (
        "from workers.registry.protobuf_compiler import compiled\n"
        "from workers.registry.registered_schema import RegisteredSchema\n"
        f"print(*compiled(RegisteredSchema('PROTOBUF', {CITY!r})).message_classes())"
    )
    path = os.pathsep.join([str(ROOT), *(each for each in sys.path if "site-packages" in each)])
    environ = {**os.environ, "PYTHONPATH": path}
    said = subprocess.run(
        [bare / "bin" / "python", "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert (said.stdout, said.stderr) == ("City\n", "")


def test_a_schema_without_messages_has_no_values() -> None:
    assert "which message" in refused(value_schema(7, registered(PROTO)), b"\0")
