"""A large JSON array is read element by element, and says the same as one that is parsed as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import PoolError
from el4ner.pools import Reading, json_array, load_pool
from el4ner.pools.json_records import JsonRecord, json_records

LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(st.sampled_from('ab"\\[]{},:\n\r é\U0001f44d'), max_size=9)
)
VALUES = st.recursive(
    LEAVES, lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text("a[", max_size=2), values, max_size=3)
)
RECORDS = st.lists(
    st.dictionaries(st.just("a"), VALUES, max_size=2) | st.lists(VALUES, max_size=2), min_size=1, max_size=4
)


@pytest.fixture(autouse=True)
def _every_array_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "_LARGE", 0)


@given(
    records=RECORDS,
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    around=st.sampled_from([("", ""), ("\ufeff\n ", "\n\n"), (" ", " ")]),
    chunk=st.integers(9, 40),
)
def test_elements_and_their_lines_are_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[Any],
    indent: int | None,
    ascii_only: bool,
    around: tuple[str, str],
    chunk: int,
) -> None:
    path = tmp_path_factory.mktemp("array") / "a.json"
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    path.write_text(around[0] + text + around[1], encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_CHUNK", chunk)
        found = list(json_records(path))
        assert json_array.is_large_array(path)
        patch.setattr(json_array, "_LARGE", 1 << 40)
        assert found == list(json_records(path))
    assert [record.value for record in found if isinstance(record, JsonRecord)] == records


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize(
    ("opening", "closing", "record"),
    [
        ("[", "]", '{"text": "Ann", "label": []}'),
        ('{"classes": [], "annotations": [', "]}", '["Ann", {"entities": []}]'),
    ],
)
def test_elements_of_one_line_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, opening: str, closing: str, record: str
) -> None:
    monkeypatch.setattr(json_array, "_LARGE", 0 if large else 1 << 40)
    path = tmp_path / "a.json"
    path.write_text(opening + ", ".join([record] * 3) + closing)
    assert [found.where for found in json_records(path)] == [
        f"{path}:1",
        f"{path}:1, element 2",
        f"{path}:1, element 3",
    ]


GOOD = '{"text": "Ann", "spans": [{"start": 0, "end": 3, "type": "X"}]}'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (f"[{GOOD},\n{GOOD}", 2, "the array has no end"),
        (f'[{GOOD},\n{{"text": "Ann', 2, "the array has no end"),
        (f"[{GOOD},\n\n]", 3, "an element is missing at this comma"),
        (f"[{GOOD},\n\n{GOOD},,{GOOD}]", 3, "an element is missing at this comma"),
        (f'[{GOOD},\n\n{{"text": "Ann" "spans": []}}, {GOOD}]', 3, "is not JSON"),
        (f"[{GOOD},\n{GOOD}]\n[{GOOD}]", 3, "something stands behind the array"),
        (f"[{GOOD},\n{GOOD}}}\n", 2, "the array ends with }"),
    ],
)
def test_what_is_wrong_is_named_by_its_line_and_the_rest_is_read(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(PoolError, match=message) as raised:
        load_pool(path)
    assert f"{path}:{line}: " in str(raised.value)
    pool = load_pool(path, reading=Reading(on_error="skip"))
    assert {sentence.text for sentence in pool.sentences} == {"Ann"}
    assert [out.where for out in pool.left_out] == [f"{path}:{line}"]


@given(
    st.lists(
        st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"\xff", b"1", b"\n", b" ", b'"a":']), max_size=30
    )
)
def test_any_bytes_are_read_to_their_end(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_bytes(b"[{" + b"".join(pieces))
    assert len(list(json_records(path))) <= len(pieces) + 2
