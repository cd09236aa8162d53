"""brat's pairs of files: which marks are entities, where they are, and what is said of those that no pool can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from el4ner.errors import PoolError
from el4ner.pools import PoolSentence, Reading
from el4ner.pools.exchange import ExportTally, ImportOptions, ImportTally, brat_files, imported_sentences

THUMB = "\U0001f44d"


def pair(folder: Path, text: str, *annotations: str, name: str = "a") -> Path:
    (folder / f"{name}.txt").write_bytes(text.encode())
    (folder / f"{name}.ann").write_text("".join(f"{line}\n" for line in annotations), encoding="utf-8")
    return folder / f"{name}.ann"


def imported(path: Path, *, skip: bool = False) -> tuple[list[PoolSentence], ImportTally]:
    tally = ImportTally()
    reading = Reading(on_error="skip" if skip else "stop")
    return list(imported_sentences(path, "brat", ImportOptions(reading), tally)), tally


def labelled(found: list[PoolSentence]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(sentence.text, [(span.text, label) for span, label in sentence.spans]) for sentence in found]


def test_entities_are_read_and_what_says_something_about_them_is_passed_over(tmp_path: Path) -> None:
    path = pair(
        tmp_path,
        "Ann founded Acme.\nBo left.\n",
        "T1\tPER 0 3\tAnn",
        "T2\tFounding 4 11\tfounded",
        "E1\tFounding:T2 Agent:T1 Theme:T3",
        "T3\tORG 12 16\tAcme",
        "R1\tBoss Arg1:T1 Arg2:T3",
        "*\tEquiv T1 T3",
        "A1\tCertain E1",
        "#1\tAnnotatorNotes T1\tnot sure",
        "N1\tReference T1 Wikipedia:1\tAnn",
        "T4\tPER 18 20\tBo",
    )
    expected = [("Ann founded Acme.", [("Ann", "PER"), ("Acme", "ORG")]), ("Bo left.", [("Bo", "PER")])]
    assert labelled(imported(path)[0]) == expected
    assert labelled(imported(path.with_suffix(".txt"))[0]) == expected
    assert labelled(imported(tmp_path)[0]) == expected


def test_a_folder_has_documents_and_those_that_nobody_annotated_are_counted(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    pair(tmp_path / "deep", "Bo left.", "T1\tPER 0 2\tBo")
    pair(tmp_path, "It rains.", name="b")
    (tmp_path / "c.txt").write_text("Cy came.")
    found, tally = imported(tmp_path)
    assert labelled(found) == [("It rains.", []), ("Bo left.", [("Bo", "PER")])]
    assert (tally.skipped, tally.left_out[0].where) == (1, str(tmp_path / "c.txt"))
    assert "nobody has annotated it" in tally.left_out[0].reason


def test_pieces_at_line_ends_are_one_entity_and_pieces_with_words_between_leave_their_sentence_out(
    tmp_path: Path,
) -> None:
    path = pair(
        tmp_path,
        "New\n  York won. North and South America lost. Ann cried.",
        "T1\tLOC 0 3;6 10\tNew York",
        "T2\tLOC 16 21;32 39\tNorth America",
        "T3\tLOC 26 39\tSouth America",
        "T4\tPER 46 49\tAnn",
    )
    found, tally = imported(path)
    assert labelled(found) == [("New\n  York won.", [("New\n  York", "LOC")]), ("Ann cried.", [("Ann", "PER")])]
    assert (tally.skipped, tally.wrong) == (1, 0)
    assert tally.left_out[0].where == f"{path}:2"
    assert "LOC 'North America' is in 2 pieces with other words between them" in tally.left_out[0].reason


@pytest.mark.parametrize(("start", "end"), [(2, 5), (3, 6)], ids=["code points", "UTF-16"])
def test_offsets_behind_an_emoji_are_found_out_by_the_text_that_the_line_has(
    tmp_path: Path, start: int, end: int
) -> None:
    (sentence,) = imported(pair(tmp_path, f"{THUMB} Zoë ran.", f"T1\tPER {start} {end}\tZoë"))[0]
    (span, _) = sentence.spans[0]
    assert (span.start, span.end, span.text) == (2, 5, "Zoë")


def test_carriage_returns_and_byte_order_marks_count(tmp_path: Path) -> None:
    found, _ = imported(pair(tmp_path, "\ufeffOne.\r\nAnn ran.", "T1\tPER 7 10\tAnn"))
    assert labelled(found)[-1] == ("Ann ran.", [("Ann", "PER")])
    with pytest.raises(PoolError, match=r"a\.ann:1: T1: 6–9 .* is '\\nAn', not 'Ann'; its lines end with CR LF"):
        imported(pair(tmp_path, "One..\r\nAnn ran.", "T1\tPER 6 9\tAnn"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1\tPER 0 3", r'a\.ann:1: needs to be "T1<tab>TYPE START END<tab>TEXT"'),
        ("T1\tPER 0\t3\tAnn", "needs to be"),
        ("T1\tPER 3 3\t", "'3 3' is no place of a text"),
        ("T1\tPER 0 30\tAnn", "T1: span 0–30 is not inside the text, which has 8 characters"),
        ("T1\tPER 0 99999999999999\tAnn", "is no place of a text"),
        ("T1\tPER 0 2\tAnn", "T1: 0–2 of the text is 'An', not 'Ann'"),
        ("Ann is a person", "is no annotation of brat: 'Ann is a person'"),
        ("T1\tPER 0 3\tAnn\nT1\tPER 4 7\tran", r"a\.ann:2: there is another T1 at .*a\.ann:1"),
        ("T1\tPER 0 3\tAnn\nT2\tLOC 0 3\tAnn", r"a\.txt:1: span 'Ann' at 0 overlaps 'Ann' at 0"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = pair(tmp_path, "Ann ran.", line)
    pair(tmp_path, "Bo left.", "T1\tPER 0 2\tBo", name="b")
    with pytest.raises(PoolError, match=message):
        imported(path)
    found, tally = imported(tmp_path, skip=True)
    assert (labelled(found), tally.wrong) == ([("Bo left.", [("Bo", "PER")])], 1)


def test_a_sentence_is_named_by_its_line_in_the_text(tmp_path: Path) -> None:
    path = pair(tmp_path, "One.\n\nTwo.\nAnn Bo.", "T1\tPER 11 17\tAnn Bo", "T2\tPER 15 17\tBo")
    with pytest.raises(PoolError, match=r"a\.txt:4: span 'Bo' at 4 overlaps 'Ann Bo' at 0"):
        imported(path)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"holds no \.ann file"):
        imported(tmp_path)
    with pytest.raises(PoolError, match="there is no such file"):
        imported(tmp_path / "a.ann")
    (tmp_path / "a.txt").write_text("Ann")
    with pytest.raises(PoolError, match=r"a\.ann: there is no such file: brat has what was marked there"):
        imported(tmp_path / "a.txt")
    pair(tmp_path, "Ann").with_suffix(".txt").unlink()
    with pytest.raises(PoolError, match=r"a\.ann: its text, a\.txt, is not beside it"):
        imported(tmp_path)
    (tmp_path / "a.pdf").write_text("")
    with pytest.raises(PoolError, match="name one of them, or their folder"):
        imported(tmp_path / "a.pdf")


def test_the_configuration_that_is_written_names_the_types_that_brat_takes() -> None:
    (name, content), *documents = brat_files([PoolSentence("It rains.", ())], ["PER", "a person"], ExportTally())
    assert (name, content.split(b"\n")[:3]) == ("annotation.conf", [b"[entities]", b"PER", b""])
    assert documents == [("1.txt", b"It rains."), ("1.ann", b"")]


def test_suffixes_in_capitals_are_read_and_hidden_files_are_none(tmp_path: Path) -> None:
    (tmp_path / ".checkpoints").mkdir()
    for name in ("._1", ".checkpoints/1"):
        (tmp_path / f"{name}.ann").write_bytes(b"\x00\xff")
        (tmp_path / f"{name}.txt").write_bytes(b"\x00\xff")
    (tmp_path / "folder.ann").mkdir()
    (tmp_path / "1.TXT").write_text("Ann ran.")
    (tmp_path / "1.ANN").write_text("T1\tPER 0 3\tAnn\n")
    (tmp_path / "2.TXT").write_text("Bob ran.")
    tally = ImportTally()
    for path in (tmp_path, tmp_path / "1.TXT", tmp_path / "1.ANN"):
        sentences = list(imported_sentences(path, "brat", ImportOptions(), tally))
        assert [(sentence.text, len(sentence.spans)) for sentence in sentences] == [("Ann ran.", 1)]
    assert [item.where for item in tally.left_out] == [str(tmp_path / "2.TXT")]


def test_a_byte_order_mark_that_was_not_counted_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("\ufeffAnn ran.", encoding="utf-8")
    (tmp_path / "1.ann").write_text("T1\tPER 0 3\tAnn\n")
    with pytest.raises(PoolError, match="begins with a byte order mark"):
        list(imported_sentences(tmp_path, "brat", ImportOptions(), ImportTally()))


def test_offsets_of_pieces_are_found_out_by_the_text_that_the_line_has(tmp_path: Path) -> None:
    text = f"{THUMB}{THUMB} O'Neil,#\nZoë"
    found, tally = imported(pair(tmp_path, text, "T1\tPER 0 11;12 13\t" + f"{THUMB}{THUMB} O'Neil,# Z"))
    assert (labelled(found), tally.left_out) == ([(text, [(f"{THUMB}{THUMB} O'Neil,#\nZ", "PER")])], [])
