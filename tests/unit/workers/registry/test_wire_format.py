"""Confluent's wire format."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.messages.envelope import parse, peek
from workers.registry.wire_format import Frame, framed, split_frame


@given(st.integers(1, 2**31 - 1), st.binary(min_size=1, max_size=40))
def test_what_was_framed_is_split(schema_id: int, body: bytes) -> None:
    assert split_frame(framed(schema_id, body)) == Frame(schema_id, body)


@pytest.mark.parametrize(
    "value", [b"", b"\0", b"\0\0\0\0\1", b"\0\0\0\0\0{}", b"\0\xff\0\0\0{}", b"\1\0\0\0\1{}", b"{}"]
)
def test_what_has_no_frame_is_not_split(value: bytes) -> None:
    assert split_frame(value) is None


@given(st.recursive(st.text() | st.integers(-9, 9), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_is_the_same_with_a_frame_and_without(data: object) -> None:
    plain = orjson.dumps({"text": data})
    assert split_frame(plain) is None
    assert parse(framed(7, plain)) == parse(plain) == peek(framed(7, plain)) == {"text": data}
