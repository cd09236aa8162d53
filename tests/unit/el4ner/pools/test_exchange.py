"""Pools to the files of other tools and back: nothing is lost, whatever the text, and what cannot be held is said."""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import srsly
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import PoolError
from el4ner.pools import Pool, PoolSentence, Reading, load_pool
from el4ner.pools.exchange import (
    BRAT,
    EXPORT_FORMATS,
    IMPORT_FORMATS,
    ExportTally,
    ImportOptions,
    ImportTally,
    PoolWriter,
    brat_files,
    docbin,
    exported,
    imported_sentences,
)
from el4ner.pools.exchange.labelled_documents import LabelledDocument
from el4ner.types import Span

THUMB = "\U0001f44d"
FIREMAN = "\U0001f468\u200d\U0001f692"
PIECES = [
    "Zoë",
    "Ann",
    THUMB,
    FIREMAN,
    "北京",
    "a-b",
    "x\u0301",
    "O'Neil,",
    "#",
    '"',
    "\\n",
    " ",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
]
ONE_LINE = [piece for piece in PIECES if piece.strip() or set(piece) == {" "}]
SUFFIXES = {"labelstudio": ".json", "conll": ".conll"}
OFFSETS: dict[str, Any] = {"doccano": "utf-16", "labelstudio": "code-points"}
"""What each tool counts; an emoji before two equal letters leaves it open."""


@st.composite
def sentences(
    draw: st.DrawFn, pieces: Sequence[str] = PIECES, *, overlapping: bool = False, edges: bool = True
) -> PoolSentence:
    """A sentence of these pieces whose spans begin and end anywhere; without ``edges`` not with white space."""
    text = "".join(draw(st.lists(st.sampled_from(pieces), min_size=1, max_size=8).filter(lambda p: "".join(p).strip())))
    spans = set()
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        surface = text[start:end]
        taken = any(span.start < end and start < span.end for span, _ in spans)
        bare = surface == surface.strip() and "\u200d" not in (text[start], text[end : end + 1])
        if surface.strip() and (overlapping or not taken) and (edges or bare):
            spans.add((Span(start, end, surface), draw(st.sampled_from(["PER", "ip-address", "LOC_2"]))))
    return PoolSentence(text, tuple(sorted(spans)))


def write(folder: Path, tool: str, content: Iterable[PoolSentence], tally: ExportTally, suffix: str = "") -> Path:
    if tool == BRAT:
        for name, data in brat_files(list(content), ["PER"], tally):
            (folder / name).write_bytes(data)
        return folder
    path = folder / f"a{suffix or SUFFIXES.get(tool, '.jsonl')}"
    path.write_bytes(b"".join(exported(content, tool, tally, docbin=suffix == ".spacy")))
    return path


def read(path: Path, tool: str, **options: Any) -> list[PoolSentence]:
    reading = Reading(offsets=OFFSETS.get(tool, "auto"))
    chosen = ImportOptions(**{"reading": reading, "split": False, **options})
    return list(imported_sentences(path, tool, chosen, ImportTally()))


JSON = ["labelstudio", "doccano", "prodigy", "spacy", "jsonl"]


@pytest.mark.parametrize("tool", JSON)
@given(pool=st.lists(sentences(), min_size=1, max_size=3))
def test_what_is_written_as_json_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, tool: str, pool: list[PoolSentence]
) -> None:
    assert read(write(tmp_path_factory.mktemp(tool), tool, pool, ExportTally()), tool) == pool


@given(pool=st.lists(sentences(), min_size=1, max_size=3))
def test_what_is_written_as_a_docbin_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, pool: list[PoolSentence]
) -> None:
    assert read(write(tmp_path_factory.mktemp("spacy"), "spacy", pool, ExportTally(), ".spacy"), "spacy") == pool


@pytest.mark.parametrize("tool", [*JSON, BRAT])
@given(sentence=sentences([piece for piece in PIECES if "\n" not in piece and piece != "\t"], overlapping=True))
def test_spans_that_overlap_are_written_where_the_format_holds_them(
    tmp_path_factory: pytest.TempPathFactory, tool: str, sentence: PoolSentence
) -> None:
    path = write(tmp_path_factory.mktemp(tool), tool, [sentence], ExportTally())
    (document,) = IMPORT_FORMATS[tool](path, Reading(offsets=OFFSETS.get(tool, "auto")))
    assert isinstance(document, LabelledDocument)
    assert (document.text, document.spans) == (sentence.text, sentence.spans)


@given(pool=st.lists(sentences(edges=False), min_size=1, max_size=3))
def test_brat_marks_what_goes_over_several_lines_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, pool: list[PoolSentence]
) -> None:
    assert read(write(tmp_path_factory.mktemp("brat"), BRAT, pool, ExportTally()), BRAT) == pool


@given(pool=st.lists(sentences(ONE_LINE, edges=False), min_size=1, max_size=3))
def test_columns_hold_a_line_and_its_spaces(tmp_path_factory: pytest.TempPathFactory, pool: list[PoolSentence]) -> None:
    pool = [sentence for sentence in pool if sentence.text == sentence.text.strip()]
    assert read(write(tmp_path_factory.mktemp("conll"), "conll", pool, ExportTally()), "conll") == pool


@given(sentence=sentences(edges=False))
def test_columns_hold_what_is_an_entity_and_count_whose_line_breaks_they_lose(
    tmp_path_factory: pytest.TempPathFactory, sentence: PoolSentence
) -> None:
    tally = ExportTally()
    (back,) = read(write(tmp_path_factory.mktemp("conll"), "conll", [sentence], tally), "conll")
    assert without_space(back) == without_space(sentence)
    assert tally.respaced or back == sentence


def without_space(sentence: PoolSentence) -> tuple[str, list[tuple[str, str]]]:
    return "".join(sentence.text.split()), [("".join(span.text.split()), label) for span, label in sentence.spans]


OVERLAP = PoolSentence(
    "Bank of England", ((Span(0, 15, "Bank of England"), "ORG"), (Span(8, 15, "England"), "LOC")), "a:7"
)
SPACED = PoolSentence("Ann ran", ((Span(0, 4, "Ann "), "PER"),), "a:7")
NAMED = PoolSentence("Ann ran", ((Span(0, 3, "Ann"), "a person"),), "a:7")
BROKEN = PoolSentence("Ann\nran", ((Span(0, 4, "Ann\n"), "PER"),), "a:7")


@pytest.mark.parametrize(
    ("tool", "suffix", "sentence", "message"),
    [
        ("conll", "", OVERLAP, "a:7: span 'England' overlaps 'Bank of England': columns have one tag for each token"),
        ("spacy", ".spacy", OVERLAP, "a:7: span 'England' overlaps 'Bank of England', which spaCy's entities cannot"),
        ("conll", "", SPACED, "a:7: span 'Ann ' begins or ends with white space"),
        ("conll", "", NAMED, "a:7: type 'a person' has white space in its name"),
        (BRAT, "", NAMED, "a:7: brat's types have letters, digits, - and _ in their names, not 'a person'"),
        (BRAT, "", BROKEN, r"a:7: span 'Ann\\n' begins or ends with a line break"),
    ],
)
def test_what_a_format_cannot_hold_is_never_written_otherwise(
    tmp_path: Path, tool: str, suffix: str, sentence: PoolSentence, message: str
) -> None:
    with pytest.raises(PoolError, match=message.replace("(", r"\(")):
        write(tmp_path, tool, [sentence], ExportTally(), suffix)
    tally = ExportTally()
    fine = PoolSentence("Bo", ((Span(0, 2, "Bo"), "PER"),))
    if tool == BRAT:
        names = [name for name, _ in brat_files([sentence, fine], ["PER"], tally, on_error="skip")]
        assert names == ["annotation.conf", "1.txt", "1.ann"]
    else:
        content = exported([sentence, fine], tool, tally, on_error="skip", docbin=bool(suffix))
        (tmp_path / f"b{suffix or '.conll'}").write_bytes(b"".join(content))
        assert read(tmp_path / f"b{suffix or '.conll'}", tool) == [fine]
    assert (tally.sentences, [out.where for out in tally.left_out]) == (1, ["a:7"])


def test_doccano_gets_what_its_page_counts_and_label_studio_code_points() -> None:
    sentence = PoolSentence(f"{THUMB} Zoë", ((Span(2, 5, "Zoë"), "PER"),))
    (line,) = exported([sentence], "doccano", ExportTally())
    assert json.loads(line)["label"] == [[3, 6, "PER"]]
    (task,) = json.loads(b"".join(exported([sentence], "labelstudio", ExportTally())))
    assert task["annotations"][0]["result"][0]["value"] == {"start": 2, "end": 5, "text": "Zoë", "labels": ["PER"]}


def imported(path: Path, tool: str, **options: Any) -> tuple[list[PoolSentence], ImportTally]:
    tally = ImportTally()
    return list(imported_sentences(path, tool, ImportOptions(**options), tally)), tally


def lines(folder: Path, *records: Any, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def surfaces(found: Iterable[PoolSentence]) -> list[tuple[str, list[str]]]:
    return [(sentence.text, [span.text for span, _ in sentence.spans]) for sentence in found]


def test_a_document_becomes_sentences_and_offsets_stay_right(tmp_path: Path) -> None:
    text = f"{THUMB} Ann lives in Rome. It rains.\n\nBo left {THUMB} Oslo."
    spans = [[text.index(name), text.index(name) + len(name), "X"] for name in ("Ann", "Rome", "Bo", "Oslo")]
    path = lines(tmp_path, [text, {"entities": spans}])
    found, tally = imported(path, "spacy")
    assert surfaces(found) == [
        (f"{THUMB} Ann lives in Rome.", ["Ann", "Rome"]),
        ("It rains.", []),
        (f"Bo left {THUMB} Oslo.", ["Bo", "Oslo"]),
    ]
    assert all(s.text[span.start : span.end] == span.text for s in found for span, _ in s.spans)
    assert (tally.sentences, tally.entity_free, tally.mentions) == (3, 1, {"X": 4})
    assert surfaces(imported(path, "spacy", split=False)[0])[0][0] == text


def test_an_entity_across_sentences_keeps_them_together(tmp_path: Path) -> None:
    text = "It rains. Dr. No. Goldfinger came. Bye now."
    path = lines(tmp_path, [text, {"entities": [[10, 28, "FILM"]]}])
    assert ("Dr. No. Goldfinger came.", ["Dr. No. Goldfinger"]) in surfaces(imported(path, "spacy")[0])


def test_log_records_are_lines(tmp_path: Path) -> None:
    path = lines(tmp_path, ["a. b c\nd e", {"entities": [[0, 1, "X"]]}])
    assert surfaces(imported(path, "spacy", kind="log")[0]) == [("a. b c", ["a"]), ("d e", [])]


@given(sentences(overlapping=True), st.sampled_from(["prose", "log"]))
def test_whatever_the_text_every_span_is_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, sentence: PoolSentence, kind: str
) -> None:
    path = write(tmp_path_factory.mktemp("split"), "jsonl", [sentence], ExportTally())
    found, tally = imported(path, "jsonl", split=True, kind=kind, overlaps="longest")
    assert sum(len(part.spans) for part in found) + tally.overlapping == len(sentence.spans)
    assert "".join("".join(part.text for part in found).split()) == "".join(sentence.text.split())
    assert all(part.text[span.start : span.end] == span.text for part in found for span, _ in part.spans)


def test_of_spans_that_overlap_the_longest_stays_if_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "doccano", [OVERLAP, replace(OVERLAP, spans=())], ExportTally())
    with pytest.raises(PoolError, match=r"a\.jsonl:1: span 'England' at 8 overlaps .*--overlaps longest"):
        imported(path, "doccano")
    found, tally = imported(path, "doccano", overlaps="longest")
    assert surfaces(found) == [("Bank of England", ["Bank of England"]), ("Bank of England", [])]
    assert tally.overlapping == 1


def test_a_file_of_another_tool_is_named(tmp_path: Path) -> None:
    doccano = {"text": "Ann", "label": [[0, 3, "PER"]]}
    path = lines(tmp_path, doccano)
    with pytest.raises(PoolError, match=r"a\.jsonl:1: is not in Prodigy's layout \(key 'label'\), but in doccano's"):
        imported(path, "prodigy")
    with pytest.raises(PoolError, match=r"a\.jsonl:1: is not in Label Studio's JSON"):
        imported(path, "labelstudio")
    assert surfaces(imported(path, "jsonl")[0]) == [("Ann", ["Ann"])]
    with pytest.raises(PoolError, match=r"there is no key 'lable'; nearest: 'label'"):
        imported(lines(tmp_path, {"text": "Ann", "lable": []}), "doccano")


def test_what_prodigy_rejected_is_counted(tmp_path: Path) -> None:
    span = {"start": 0, "end": 3, "label": "PER"}
    records = [{"text": "Ann", "spans": [span], "answer": a} for a in ("accept", "reject", "ignore", "accept")]
    records.append({"text": "No", "tokens": [{"text": "No", "start": 0, "end": 2, "id": 0}], "spans": []})
    found, tally = imported(lines(tmp_path, *records), "prodigy")
    assert surfaces(found) == [("Ann", ["Ann"]), ("Ann", ["Ann"]), ("No", [])]
    assert (tally.skipped, tally.wrong) == (2, 0)
    assert [out.reason for out in tally.left_out] == ["rejected in Prodigy", "ignored in Prodigy"]


def test_what_is_wrong_is_left_out_if_asked_for_and_counted(tmp_path: Path) -> None:
    path = lines(
        tmp_path, *[{"text": "Ann", "label": [[0, 9, "PER"]]}] * 70, {"text": "Ann", "label": [[0, 3, "none"]]}
    )
    with pytest.raises(PoolError, match=r"a\.jsonl:1: span 0–9 is not inside the text"):
        imported(path, "doccano")
    found, tally = imported(path, "doccano", reading=Reading(on_error="skip"))
    assert (found, tally.wrong, len(tally.left_out)) == ([], 71, 50)


def test_a_type_that_means_no_entity_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"a\.jsonl:1: 'None' cannot be an entity type"):
        imported(lines(tmp_path, {"text": "Ann", "label": [[0, 3, "None"]]}), "doccano")


@pytest.mark.parametrize("label", [" PER", "PER\n", "A\nB", "A\u2028B", "A\x1b[31mB"])
def test_a_type_that_is_no_line_is_refused(tmp_path: Path, label: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "Ann ran", "label": [[0, 3, label]]}))
    with pytest.raises(PoolError, match=r"a\.jsonl:1: .* cannot be an entity type: .* rename it"):
        list(imported_sentences(path, "doccano", ImportOptions(), ImportTally()))


@pytest.mark.parametrize(
    ("name", "tool", "advice"),
    [
        ("a.csv", "labelstudio", "a table: export JSON"),
        ("a.CSV", "conll", "a table: export JSON"),
        ("a.spacy", "jsonl", "--from spacy"),
        ("a.ann", "conll", "--from brat"),
        ("-", "jsonl", "save it as a file first"),
    ],
)
def test_files_that_a_format_does_not_have_are_named(tmp_path: Path, name: str, tool: str, advice: str) -> None:
    (tmp_path / name).write_text("id,text,label\n")
    path = Path("-") if name == "-" else tmp_path / name
    with pytest.raises(PoolError, match=advice):
        list(imported_sentences(path, tool, ImportOptions(), ImportTally()))


@pytest.mark.parametrize("asked", [True, False])
def test_a_docbin_with_span_groups_alone_is_no_text_without_entities(tmp_path: Path, asked: bool) -> None:
    spacy = pytest.importorskip("spacy")
    doc = spacy.blank("xx")("Ann ran")
    doc.spans["sc"] = [doc[0:1]]
    if asked:
        doc.set_ents([], default="outside")
    path = tmp_path / "a.spacy"
    spacy.tokens.DocBin(docs=[doc]).to_disk(path)
    with pytest.raises(PoolError, match="document 1: has span groups and no entities"):
        list(imported_sentences(path, "spacy", ImportOptions(), ImportTally()))


def test_an_older_doccanos_numbers_are_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"id": 1, "text": "Ann", "annotations": [{"label": 3, "start_offset": 0, "end_offset": 3}]})
    )
    with pytest.raises(PoolError, match="JSONL with text labels"):
        list(imported_sentences(path, "doccano", ImportOptions(), ImportTally()))


@pytest.mark.parametrize("label", [[[0, 9_000, "X"], [5, 9_004, "X"]], [[0, 9_000, "X"], [8_000, 9_002, "Y"]]])
def test_a_message_does_not_hold_a_whole_document(tmp_path: Path, label: list[list[object]]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "Ann " * 3_000, "label": label}))
    with pytest.raises(PoolError, match="overlaps") as caught:
        list(imported_sentences(path, "doccano", ImportOptions(), ImportTally()))
    assert len(str(caught.value)) < 800


def test_spacy_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.spacy").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(PoolError, match="only spaCy can read: `pip install spacy`"):
        imported(tmp_path / "a.spacy", "spacy")
    with pytest.raises(PoolError, match="only spaCy can write: `pip install spacy`"):
        list(exported([OVERLAP], "spacy", ExportTally(), docbin=True))


def test_a_docbin_of_spacys_own_making_is_read(tmp_path: Path) -> None:
    import spacy
    from spacy.tokens import DocBin

    nlp = spacy.blank("en")
    annotated, bare = nlp(f"{THUMB} Zoë Ann lives in  Rome."), nlp("Nobody was asked.")
    annotated.ents = [annotated.char_span(2, 9, "PERSON"), annotated.char_span(20, 24, "GPE")]
    content = DocBin(docs=[annotated, bare], store_user_data=True).to_bytes()
    (tmp_path / "a.spacy").write_bytes(content)
    with pytest.raises(PoolError, match=r"a\.spacy: document 2: of its tokens, some or all have no entity annotation"):
        imported(tmp_path / "a.spacy", "spacy")
    found, tally = imported(tmp_path / "a.spacy", "spacy", reading=Reading(on_error="skip"))
    assert surfaces(found) == [(annotated.text, ["Zoë Ann", "Rome"])]
    assert tally.wrong == 1
    (tmp_path / "a.spacy").write_bytes(DocBin(attrs=["TAG"], docs=[annotated]).to_bytes())
    with pytest.raises(PoolError, match="was written without entities"):
        imported(tmp_path / "a.spacy", "spacy")


@given(content=st.binary(max_size=80), tool=st.sampled_from(EXPORT_FORMATS), compress=st.booleans())
def test_any_bytes_are_sentences_or_a_pool_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, tool: str, compress: bool
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    suffix = {"spacy": ".spacy", "brat": ".ann"}.get(tool, ".jsonl")
    (folder / f"a{suffix}").write_bytes(zlib.compress(content) if compress else content)
    (folder / "a.txt").write_bytes(content)
    for on_error in ("stop", "skip"):
        message = error_of(folder / f"a{suffix}", tool, Reading(on_error=on_error))
        assert message is None or str(folder) in message


def error_of(path: Path, tool: str, reading: Reading) -> str | None:
    try:
        imported(path, tool, reading=reading)
    except PoolError as error:
        return str(error)
    return None


KEYS = st.sampled_from(
    re.findall(
        r"\w+",
        """text spans start end type label labels entities start_offset end_offset data annotations result value answer
        tokens meta paragraphs sentences orth ner ents annotation_id was_cancelled _view_id""",
    )
)
LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats() | st.sampled_from(["Ann is here", "PER", "", "x"])
)
VALUES = st.recursive(
    LEAVES, lambda values: st.lists(values, max_size=3) | st.dictionaries(KEYS, values, max_size=5), max_leaves=12
)


@given(records=st.lists(VALUES, min_size=1, max_size=4), tool=st.sampled_from(JSON))
def test_any_json_is_sentences_or_a_pool_error(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], tool: str
) -> None:
    path = lines(tmp_path_factory.mktemp("json"), *records)
    for on_error in ("stop", "skip"):
        error = error_of(path, tool, Reading(on_error=on_error))
        assert error is None or "a.jsonl" in error


ARRAYS = st.binary(max_size=64) | st.integers() | st.lists(st.integers(-5, 2**64 - 1), max_size=4)
DOCBINS = st.fixed_dictionaries(
    {},
    optional={
        "attrs": ARRAYS | st.just([65, 77, 78]) | st.just([65, 78, 77]),
        "tokens": ARRAYS,
        "spaces": ARRAYS,
        "lengths": ARRAYS | st.just(b"\x01\0\0\0") | st.just(b"\xff\xff\xff\xff"),
        "strings": ARRAYS | st.lists(st.text(max_size=3) | st.none(), max_size=4),
        "flags": ARRAYS | st.lists(st.none() | st.dictionaries(st.just("has_unknown_spaces"), st.booleans())),
    },
)


@given(message=DOCBINS | ARRAYS)
def test_a_docbin_of_anything_is_sentences_or_a_pool_error(
    tmp_path_factory: pytest.TempPathFactory, message: Any
) -> None:
    path = tmp_path_factory.mktemp("docbin") / "a.spacy"
    try:
        path.write_bytes(zlib.compress(srsly.msgpack_dumps(message)))
    except (OverflowError, ValueError):  # numbers that msgpack does not have
        return
    for on_error in ("stop", "skip"):
        error = error_of(path, "spacy", Reading(on_error=on_error))
        assert error is None or "a.spacy" in error


def test_a_docbin_that_unpacks_to_anything_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docbin, "_LARGEST", 1000)
    (tmp_path / "a.spacy").write_bytes(zlib.compress(bytes(1001)))
    with pytest.raises(PoolError, match="unpacks to more than 0 MiB: split the file"):
        imported(tmp_path / "a.spacy", "spacy")


def test_a_pool_is_a_folder_with_its_types_or_a_file(tmp_path: Path) -> None:
    types = {'a "b" \\ \x7f': 'x "y"', "\U0001f44d": "thumb\nup"}
    sentence = PoolSentence("Ann", ((Span(0, 3, "Ann"), "\U0001f44d"),))
    with PoolWriter(tmp_path / "pool") as writer:
        writer.add(sentence)
        assert not (tmp_path / "pool").exists()
        writer.finish('the "pool"', types, "log")
    assert load_pool(tmp_path / "pool") == Pool('the "pool"', types, (sentence,), "log")
    with PoolWriter(tmp_path / "a.jsonl") as writer:
        writer.add(sentence)
        writer.finish("a", types, "log")
    assert load_pool(tmp_path / "a.jsonl").sentences == (sentence,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "pool"]


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    for output in (tmp_path / "pool", tmp_path / "a.jsonl"):
        for force in (False, True):
            with PoolWriter(output, force=force) as writer:
                writer.add(OVERLAP)
                writer.finish("a", {"X": "x"}, "prose")
        with pytest.raises(PoolError, match="already; --force writes over it"):
            PoolWriter(output)
    (tmp_path / "pool" / "notes.txt").write_text("")
    with pytest.raises(PoolError, match=r"holds notes\.txt already"):
        PoolWriter(tmp_path / "pool", force=True)
    with pytest.raises(PoolError, match="cannot be written: No such file or directory"):
        PoolWriter(tmp_path / "no" / "pool")
    with pytest.raises(PoolError, match=r"a pool is a folder, or a file that ends with \.jsonl or \.ndjson"):
        PoolWriter(tmp_path / "pool.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(PoolError, match="is a file"):
        PoolWriter(tmp_path / "file", force=True)


def test_a_pool_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with PoolWriter(tmp_path / "pool") as writer:
        writer.add(OVERLAP)
    assert list(tmp_path.iterdir()) == []
