"""Records on disk: nothing is lost on the way, damage is named, a half-written line costs one sentence."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from el4ner.evaluation.sentence_records import (
    EvaluationError,
    SentenceRecord,
    read_records,
    record_from_json,
    record_to_json,
    write_records,
)
from el4ner.evaluation.store import RecordStore
from tests.support.evaluation_samples import considered, record, records

ONE = record([(0, 3, "person")], [considered((0, 3), "person", votes={"a": "person"})], text="Ada slept.")
TWO = record(text="Nobody slept – 👍.")


@given(records())
def test_a_record_survives_json(made: SentenceRecord) -> None:
    line = record_to_json(made)
    assert b"\n" not in line
    assert record_from_json(line) == made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records(), min_size=1, max_size=3))
def test_a_file_of_records_survives(tmp_path: Path, made: list[SentenceRecord]) -> None:
    write_records(tmp_path / "records.jsonl", made)
    assert read_records(tmp_path / "records.jsonl") == made


def test_demonstrations_of_all_pieces() -> None:
    assert record(demonstrations=(4, 2, 4)).demonstrations == (4, 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", r"records\.jsonl:2: is no evaluation record: .*JSON.*el4ner eval --records"),
        (b'{"text": "Ada"}', r"records\.jsonl:2: .*gold: Field required"),
        (record_to_json(ONE).replace(b'"format":1', b'"format":2'), r":2: .*format: Input should be 1"),
        (record_to_json(ONE).replace(b"0,3,", b"0,99,"), r":2: .*span 0–99 is not inside the text, which has 10"),
        (record_to_json(ONE).replace(b'"confidence":0.5', b'"confidence":1.5'), r":2: .*candidates\.0\.confidence"),
        (b"\xff", r":2: is no evaluation record"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_bytes(record_to_json(ONE) + b"\n" + line + b"\n")
    with pytest.raises(EvaluationError, match=said):
        read_records(file)


def test_files_that_are_not_there_or_empty_are_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"none\.jsonl: cannot be read: No such file"):
        read_records(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(EvaluationError, match=r"empty\.jsonl: holds no record"):
        read_records(tmp_path / "empty.jsonl")
    with pytest.raises(EvaluationError, match="cannot be written"):
        write_records(tmp_path, [ONE])


def test_a_store_finds_what_another_one_added(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "deep" / "er", "f" * 8)
    store.add([ONE, TWO])
    assert store.get(ONE.text) == ONE
    again = RecordStore(tmp_path / "deep" / "er", "f" * 8)
    assert (again.get(ONE.text), again.get(TWO.text), again.get("else")) == (ONE, TWO, None)
    assert RecordStore(tmp_path / "deep" / "er", "0" * 8).get(ONE.text) is None


@pytest.mark.parametrize("length", [1, 40, len(record_to_json(TWO))])
def test_a_half_written_line_is_dropped_and_what_follows_is_whole(tmp_path: Path, length: int) -> None:
    store = RecordStore(tmp_path, "f")
    store.add([ONE])
    with store.path.open("ab") as file:
        file.write(record_to_json(TWO)[:length])
    again = RecordStore(tmp_path, "f")
    assert again.get(TWO.text) is None
    again.add([TWO])
    assert read_records(store.path) == [ONE, TWO]


def test_only_half_a_line_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(b'{"text": "' + b"x" * 200_000)
    RecordStore(tmp_path, "f").add([ONE])
    assert read_records(tmp_path / "f.jsonl") == [ONE]


def test_a_process_that_dies_beside_this_one_does_not_spoil_its_line(tmp_path: Path) -> None:
    store = RecordStore(tmp_path, "f")
    with store.path.open("ab") as file:
        file.write(b'{"text": "of a process that was killed')
    store.add([ONE])
    assert read_records(store.path) == [ONE]


def test_fresh_knows_nothing_and_wins_afterwards(tmp_path: Path) -> None:
    RecordStore(tmp_path, "f").add([ONE, TWO])
    fresh = RecordStore(tmp_path, "f", fresh=True)
    assert fresh.get(ONE.text) is None
    newer = record(text=ONE.text)
    fresh.add([newer])
    later = RecordStore(tmp_path, "f")
    assert (later.get(ONE.text), later.get(TWO.text)) == (newer, TWO)


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(b"nonsense\n")
    with pytest.raises(EvaluationError, match=r"f\.jsonl:1: is damaged: .*delete the file"):
        RecordStore(tmp_path, "f")


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match=r"cannot be used: .*EL4NER_CACHE_DIR"):
        RecordStore(tmp_path / "file", "f")
