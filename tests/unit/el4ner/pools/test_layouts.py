"""Pools in other tools' layouts: what is plain is read, and nothing becomes a sentence without entities by mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import PoolError
from el4ner.pools import Pool, Reading, load_pool

OURS = {"text": "Ann is here", "spans": [{"start": 0, "end": 3, "type": "PER"}]}
THUMB = "\U0001f44d"


def write(folder: Path, records: Sequence[Any] | str, name: str = "a.jsonl") -> Path:
    path = folder / name
    text = records if isinstance(records, str) else "\n".join(json.dumps(r, ensure_ascii=False) for r in records)
    path.write_text(text, encoding="utf-8")
    return path


def spans_of(pool: Pool) -> list[list[tuple[str, str]]]:
    return [[(span.text, label) for span, label in sentence.spans] for sentence in pool.sentences]


def label_studio(
    value: dict[str, Any], kind: str = "labels", *, text: str = "Ann is here", **more: Any
) -> dict[str, Any]:
    result = {"type": kind, "from_name": "label", "to_name": "text", "value": value}
    return {"id": 1, "data": {"text": text}, "annotations": [{"result": [result], **more}], "predictions": []}


MINIMAL: dict[str, Any] = {
    "id": 1,
    "text": "Ann is here",
    "label": [{"start": 0, "end": 3, "text": "Ann", "labels": ["PER"]}],
    "annotation_id": 4,
}
TOKEN = {"space": " ", "ner": "O"}
READ: dict[str, Any] = {
    "doccano": {"id": 1, "text": "Ann is here", "label": [[0, 3, "PER"]], "Comments": []},
    "doccano, of 2021": {"text": "Ann is here", "labels": [[0, 3, "PER"]]},
    "doccano, with another key for the text": {"id": 1, "data": "Ann is here", "label": [[0, 3, "PER"]]},
    "doccano, with relations": {
        "text": "Ann is here",
        "entities": [{"id": 7, "label": "PER", "start_offset": 0, "end_offset": 3}],
        "relations": [],
    },
    "doccano, slots": {"text": "Ann is here", "entities": [[0, 3, "PER"]], "cats": []},
    "objects": {"text": "Ann is here", "entities": [{"start": 0, "end": 3, "label": "PER"}]},
    "Prodigy": {
        "text": "Ann is here",
        "tokens": [{"text": "Ann", "start": 0, "end": 3, "id": 0, "ws": True}],
        "spans": [{"start": 0, "end": 3, "token_start": 0, "token_end": 0, "label": "PER"}],
        "answer": "accept",
        "_task_hash": 7,
        "_view_id": "ner_manual",
    },
    "Label Studio": label_studio({"start": 0, "end": 3, "text": "Ann", "labels": ["PER"]}),
    "Label Studio, minimal": {
        "id": 1,
        "text": "Ann is here",
        "label": [{"start": 0, "end": 3, "text": "Ann", "labels": ["PER"]}],
        "annotator": 1,
        "annotation_id": 2,
        "lead_time": 3.1,
    },
    "spaCy": ["Ann is here", {"entities": [[0, 3, "PER"]]}],
    "spaCy, Doc.to_json": {"text": "Ann is here", "ents": [{"start": 0, "end": 3, "label": "PER"}], "tokens": []},
    "spaCy 2": {
        "id": 0,
        "paragraphs": [
            {"sentences": [{"tokens": [{"orth": "Ann", "space": " ", "ner": "U-PER"}, {"orth": "is", **TOKEN},
                                       {"orth": "here", **TOKEN}]}]}
        ],
    },
    "Hugging Face": {"id": "0", "tokens": ["Ann", "is", "here"], "ner_tags": ["B-PER", "O", "O"]},
}  # fmt: skip


@pytest.mark.parametrize("record", READ.values(), ids=READ.keys())
@pytest.mark.parametrize("form", ["lines", "array", "pretty array"])
def test_a_layout_is_read_from_lines_and_from_arrays(tmp_path: Path, record: Any, form: str) -> None:
    indent = 1 if form == "pretty array" else None
    path = write(tmp_path, json.dumps(record) if form == "lines" else json.dumps([record], indent=indent), "a.json")
    pool = load_pool(path)
    assert [sentence.text for sentence in pool.sentences] == ["Ann is here"]
    assert spans_of(pool) == [[("Ann", "PER")]]


def test_doccano_as_reported(tmp_path: Path) -> None:
    pool = load_pool(write(tmp_path, '{"text": "He met old Ann Orff", "label": [[11, 19, "PER"]]}\n'))
    assert spans_of(pool) == [[("Ann Orff", "PER")]]


def test_what_ner_annotator_writes_is_spacys_pairs_in_a_frame(tmp_path: Path) -> None:
    record = {"classes": ["PER"], "annotations": [["Ann is here", {"entities": [[0, 3, "PER"]]}], None]}
    assert spans_of(load_pool(write(tmp_path, [record], "a.json"))) == [[("Ann", "PER")]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"text": "Ann ran", "label": [[0, 3, "PER"]]},
            r"a\.jsonl:2: is in doccano's layout \(key 'label'\), but .*:1",
        ),
        (READ["doccano, with relations"], r"a\.jsonl:2: is in doccano's layout \(key 'entities'\)"),
        (READ["Prodigy"], r"a\.jsonl:2: is in Prodigy's layout"),
        (READ["spaCy"], r"a\.jsonl:2: is in spaCy's"),
        ({"text": "Ann", "span": []}, r"a\.jsonl:2: there is no key 'span'; nearest: 'spans'; there are: text, spans"),
        ({"text": "Ann", "lables": [[0, 3, "PER"]]}, r"no key 'lables'.*'labels' is a key of doccano"),
        ({"text": "Ann", "tags": ["O"]}, r"no key 'tags'.*'tags' is a key of Hugging Face data sets"),
        ({"words": ["Ann"], "ner": ["B-PER"]}, r"no key 'words'.*\(read as el4ner's own layout\)"),
        ({"text": "Ann", "url": "x"}, r"no key 'url'.*ignore = \['url'\]"),
        ({"text": "Ann", "spans": None}, r'"spans" has to be a list \(\[\] for a text without entities\), not null'),
        ({"text": "Ann", "spans": {}}, r'"spans" has to be a list .*, not \{\}'),
        ({"text": "Ann", "spans": "none"}, r'"spans" has to be a list'),
        ({"text": "Ann", "spans": [[0, 3, "PER"]]}, r'a span needs whole numbers "start" and "end"'),
        ({"text": "Ann", "spans": [{"start": True, "end": 3, "type": "PER"}]}, "whole numbers"),
        ({"text": "Ann", "spans": [{"start": 0, "end": 3.0, "type": "PER"}]}, "whole numbers"),
        ({"text": "Ann", "spans": [{"start": 0, "end": 3, "type": " "}]}, "whole numbers"),
        ({"text": "Ann", "spans": [{"start": 0, "end": 3, "tpye": "PER"}]}, "no key 'tpye'; nearest: 'type'"),
        ({"text": "Ann  Bo", "spans": [{"start": 3, "end": 5, "type": "PER"}]}, "nothing but white space"),
        (
            {"text": "Ann", "spans": [{"start": 0, "end": 3, "type": "A"}, {"start": 1, "end": 2, "type": "B"}]},
            r"span 'n' at 1 overlaps 'Ann' at 0",
        ),
        ({"text": 7, "spans": []}, 'needs an object with a "text" that is not empty, not 7'),
        (None, 'needs an object with a "text"'),
    ],
)
def test_among_good_lines_a_wrong_one_is_no_negative_example(tmp_path: Path, bad: Any, message: str) -> None:
    with pytest.raises(PoolError, match=message) as raised:
        load_pool(write(tmp_path, [OURS, bad]))
    assert "a.jsonl:2: " in str(raised.value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "Fine", "label": "POSITIVE"}, '"label" has to be a list'),
        ({"text": "Fine", "label": ["POSITIVE"]}, "'POSITIVE' is a label of a whole text"),
        ({"text": "Ann", "label": None}, '"label" has to be a list .*, not null'),
        ({"text": "Ann", "label": [["PER", 0, 3]]}, r'\[start, end, "label"\]'),
        ({"text": "Ann", "label": [[0, 3, "PER"]], "entities": [[0, 1, "PER"]]}, "under 'label' and 'entities'"),
        ({"text": "Ann", "label": [[0, 3, "PER"]], "lang": "en"}, "no key 'lang'"),
        ({"text": "Ann", "entities": [{"start": 0, "end": 3, "type": "PER"}]}, "el4ner tag"),
        ({"tokens": ["Ann"], "ner_tags": [1]}, "numbers, whose names are in the data set's features"),
        ({"tokens": ["Ann"], "ner_tags": ["B-PER", "O"]}, 'has 1 "tokens" and 2 "ner_tags"'),
        ({"tokens": ["Ann"], "ner_tags": ["person"]}, "no BIO or BIOES tag"),
        ({"tokens": ["Ann", "\u00a0"], "ner_tags": ["B-PER", "O"]}, r"U\+00A0 \(NO-BREAK SPACE\)"),
        (label_studio({"start": 0, "end": 3, "labels": ["PER", "ORG"]}), 'exactly one of "labels"'),
        (label_studio({"start": 0, "end": 3, "text": "Bob", "labels": ["PER"]}), "is 'Ann', not 'Bob'"),
        ({"data": {"text": "Ann"}, "annotations": [], "predictions": [{}]}, "nobody has annotated this task"),
        ({"data": {"text": "Ann"}, "annotations": [{"id": 3}]}, 'an annotation has no "result"'),
        ({"data": {"text": "Ann"}, "annotations": [{"result": None}]}, '"result" has to be a list'),
        (
            label_studio({"start": "0", "end": "0", "paragraphlabels": ["PER"]}, "paragraphlabels"),
            "only labels of a Text",
        ),
        (label_studio({"x": 1, "rectanglelabels": ["PER"]}, "rectanglelabels"), "has 'rectanglelabels'"),
        (label_studio({"start": "/p[1]", "end": "/p[1]", "hypertextlabels": ["PER"]}, "hypertextlabels"), "HyperText"),
        ({**MINIMAL, "label": [{"start": 0, "end": 3, "hypertextlabels": ["PER"]}]}, "HyperText"),
        ({**MINIMAL, "label": [{"x": 1.5, "rectanglelabels": ["PER"]}]}, "only labels of a Text"),
        ({**MINIMAL, "label": [*MINIMAL["label"], {"start": 4, "end": 6, "text": "is"}]}, 'exactly one of "labels"'),
        (["Ann", {"entitis": []}], "no key 'entitis'; nearest: 'entities'"),
        ({"text": "Ann", "ents": [], "spans": {"sc": [{"start": 0, "end": 3, "label": "PER"}]}}, "set doc.ents"),
        ({"text": "Ann", "options": [{"id": "A"}], "accept": ["A"], "answer": "accept"}, "about a whole text"),
        ({"text": "Ann", "spans": [], "answer": "maybe"}, "accept, reject or ignore, not 'maybe'"),
        ({"text": "Ann", "spans": [], "answer": "accept", "_is_binary": True}, "binary"),
        ({"text": "Ann", "label": "PER", "answer": "accept"}, "no key 'label'"),
        ({"text": "Ann", "tokens": [{"text": "Ann"}], "_task_hash": 1}, "nobody has annotated it"),
    ],
)
def test_what_is_not_plain_is_named(tmp_path: Path, record: Any, message: str) -> None:
    with pytest.raises(PoolError, match=message) as raised:
        load_pool(write(tmp_path, [record]))
    assert "a.jsonl:1: " in str(raised.value)


def test_sentences_that_an_annotator_did_not_accept_are_no_negative_examples(tmp_path: Path) -> None:
    rejected = [{**READ["Prodigy"], "spans": [], "answer": answer} for answer in ("reject", "ignore")]
    pool = load_pool(write(tmp_path, [READ["Prodigy"], *rejected, {"text": "Nobody", "spans": [], "answer": "accept"}]))
    assert spans_of(pool) == [[("Ann", "PER")], []]
    assert [(out.reason, out.mistake) for out in pool.left_out] == [
        ("rejected in Prodigy", False),
        ("ignored in Prodigy", False),
    ]
    region = {"start": 0, "end": 3, "labels": ["PER"]}
    skipped = label_studio(region, was_cancelled=True)
    pool = load_pool(write(tmp_path, [label_studio(region), skipped]))
    assert [out.reason for out in pool.left_out] == ["skipped in Label Studio"]


def test_a_text_alone_has_labels_in_no_layout_but_ours(tmp_path: Path) -> None:
    assert spans_of(load_pool(write(tmp_path, [OURS, {"text": "Nobody"}]))) == [[("Ann", "PER")], []]
    for tool in ("doccano", "Prodigy", "Label Studio", "Hugging Face"):
        with pytest.raises(PoolError, match=r"a\.jsonl:1: has no labels, not even an empty list"):
            load_pool(write(tmp_path, [{"text": "Nobody"}, READ[tool]]))


def test_json_under_the_name_of_a_conll_file_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"a\.txt:1: .* it looks like JSON: name the file \.jsonl"):
        load_pool(write(tmp_path, [READ["doccano"]], "a.txt"))


def test_of_annotations_that_differ_the_ground_truth_counts(tmp_path: Path) -> None:
    task = label_studio({"start": 0, "end": 3, "labels": ["PER"]})
    task["annotations"].append({"result": [], "ground_truth": True})
    other = label_studio({"start": 0, "end": 3, "labels": ["PER"]})
    assert spans_of(load_pool(write(tmp_path, [task, other]))) == [[], [("Ann", "PER")]]
    del task["annotations"][1]["ground_truth"]
    with pytest.raises(PoolError, match="has 2 annotations that differ"):
        load_pool(write(tmp_path, [task]))


@pytest.mark.parametrize("places", [(2, 5), (3, 6)], ids=["code points", "UTF-16"])
@pytest.mark.parametrize("tool", ["doccano", "Label Studio", "Label Studio without surfaces"])
def test_offsets_after_an_emoji_are_read_in_the_unit_in_which_they_cut_no_word(
    tmp_path: Path, places: tuple[int, int], tool: str
) -> None:
    start, end = places
    value: dict[str, Any] = {"start": start, "end": end, "text": "Zoë", "labels": ["PER"]}
    if "without" in tool:
        del value["text"]
    text = f"{THUMB} Zoë spoke"
    record = {"text": text, "label": [[start, end, "PER"]]} if tool == "doccano" else label_studio(value, text=text)
    pool = load_pool(write(tmp_path, [record]))
    (span, _) = pool.sentences[0].spans[0]
    assert (span.start, span.end, span.text) == (2, 5, "Zoë")


def test_where_the_unit_cannot_be_told_other_records_or_the_user_tell_it(tmp_path: Path) -> None:
    unclear = {"text": f"{THUMB}我在北京玩", "label": [[4, 6, "LOC"]]}
    with pytest.raises(PoolError, match='offsets = "code-points" or "utf-16"'):
        load_pool(write(tmp_path, [unclear]))
    assert spans_of(load_pool(write(tmp_path, [unclear]), reading=Reading(offsets="utf-16"))) == [[("北京", "LOC")]]
    clear = {"text": f"{THUMB} Zoë spoke", "label": [[3, 6, "PER"]]}
    assert spans_of(load_pool(write(tmp_path, [clear, unclear])))[1] == [("北京", "LOC")]


@given(
    pieces=st.lists(st.sampled_from(["a", "Zoë", THUMB, " ", "\U0001f468\u200d\U0001f692", "x\u0301"]), min_size=1),
    data=st.data(),
)
def test_utf16_offsets_become_code_points(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], data: st.DataObject
) -> None:
    text = "".join(pieces)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    if not text[start:end].strip():
        return
    places = [len(text[:place].encode("utf-16-le")) // 2 for place in (start, end)]
    path = write(tmp_path_factory.mktemp("pool"), [{"text": text, "label": [[*places, "X"]]}])
    (span, _) = load_pool(path, reading=Reading(offsets="utf-16")).sentences[0].spans[0]
    assert (span.start, span.end) == (start, end)


def test_byte_order_marks_are_no_part_of_anything(tmp_path: Path) -> None:
    line = json.dumps(OURS)
    assert spans_of(load_pool(write(tmp_path, f"\ufeff{line}\n\ufeff{line}\n"))) == [[("Ann", "PER")]] * 2
    assert spans_of(load_pool(write(tmp_path, f"\ufeff[{line}]", "a.json"))) == [[("Ann", "PER")]]
    write(tmp_path, '\ufeffname = "x"\n[types]\nPER = "a human"\n', "pool.toml")
    assert load_pool(tmp_path).name == "x"


def test_records_of_an_array_are_named_by_their_lines(tmp_path: Path) -> None:
    bad = {**OURS, "text": "An"}
    text = f"[{json.dumps(OURS)},\n\n{json.dumps(OURS, indent=2)},\n {json.dumps(bad)}]"
    line = text[: text.rindex("{", 0, text.rindex('"spans"'))].count("\n") + 1
    with pytest.raises(PoolError, match=rf"a\.json:{line}: span 0–3 is not inside"):
        load_pool(write(tmp_path, text, "a.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"text": "Ann", "spans": []},\n{"text": "Bo", "spans": []},\n]', r"a\.json:2: is not JSON: trailing comma"),
        ('{\n"text": "Ann"\n}\n{\n"text": "Bo"\n}\n', r"a\.json:4: is not JSON: .*: `jq -c \.` makes a line of each"),
        ('[\n{"text": "Ann" "spans": []}\n]\n', r"a\.json:2: is not JSON"),
    ],
)
def test_of_an_array_that_is_no_json_the_right_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PoolError, match=message):
        load_pool(write(tmp_path, text, "a.json"))


def test_what_is_wrong_is_left_out_if_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, f"{json.dumps(OURS)}\n{{\n{json.dumps({**OURS, 'url': 1})}\n")
    pool = load_pool(path, reading=Reading(on_error="skip"))
    assert [(out.where, out.mistake) for out in pool.left_out] == [(f"{path}:2", True), (f"{path}:3", True)]
    assert len(pool.sentences) == 1
    assert len(load_pool(path, reading=Reading(on_error="skip", ignore=frozenset({"url"}))).sentences) == 2


def test_a_pool_toml_says_how_its_files_are_read(tmp_path: Path) -> None:
    settings = 'on_error = "skip"\nignore = ["url"]\n[types]\nPER = "a human"\n'
    write(tmp_path, settings, "pool.toml")
    write(tmp_path, [{**OURS, "url": 1}, {**OURS, "text": ""}, {**OURS, "spans": [{**OURS["spans"][0], "type": "X"}]}])
    pool = load_pool(tmp_path)
    assert [out.reason for out in pool.left_out] == [
        'needs an object with a "text" that is not empty',
        "type 'X' is not declared; there are: PER",
    ]
    for line, message in (
        ('on_eror = "skip"', "there is no setting 'on_eror'; nearest: 'on_error'; there are: name, text"),
        ('on_error = "no"', "on_error is 'stop' or 'skip', not 'no'"),
        ("on_error = []", "on_error is 'stop' or 'skip'"),
        ("ignore = 1", "ignore is a list of keys"),
        ("name = 1", "name is a text"),
        ("text = {}", "text is 'prose' or 'log'"),
    ):
        write(tmp_path, f"{line}\n[types]\nPER = 'a human'\n", "pool.toml")
        with pytest.raises(PoolError, match=message):
            load_pool(tmp_path)


def test_labels_that_are_ignored_leave_no_sentence_without_entities(tmp_path: Path) -> None:
    labelled = {"text": "Bo ran", "label": [[0, 2, "PER"]]}
    with pytest.raises(PoolError, match=r"a\.jsonl:2: ignore takes away 'label', and nothing else says which entities"):
        load_pool(write(tmp_path, [OURS, labelled]), reading=Reading(ignore=frozenset({"label"})))
    with pytest.raises(PoolError, match="ignore takes away 'spans'"):
        load_pool(write(tmp_path, [OURS]), reading=Reading(ignore=frozenset({"spans"})))
    topic = write(tmp_path, [{**OURS, "label": "sport"}])
    assert spans_of(load_pool(topic, reading=Reading(ignore=frozenset({"label"})))) == [[("Ann", "PER")]]


def test_labelled_data_that_has_to_be_converted_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "[types]\nPER = 'a human'\n", "pool.toml")
    write(tmp_path, [OURS])
    (tmp_path / "more.spacy").write_bytes(b"\x78\x9c")
    with pytest.raises(PoolError, match=r"more\.spacy: is not read, since it is spaCy's DocBin: `el4ner pool import"):
        load_pool(tmp_path)


KEYS = st.sampled_from(
    re.findall(
        r"\w+",
        """text spans start end type label labels entities start_offset end_offset data annotations result value answer
        tokens ner_tags paragraphs sentences orth ner ents classes annotation_id was_cancelled ground_truth _view_id""",
    )
)
LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats() | st.sampled_from(["Ann is here", "B-PER", "", "x"])
)
VALUES = st.recursive(
    LEAVES, lambda values: st.lists(values, max_size=3) | st.dictionaries(KEYS, values, max_size=5), max_leaves=12
)


@given(
    st.lists(VALUES | st.sampled_from(list(READ.values())), min_size=1, max_size=4), st.sampled_from(["lines", "array"])
)
def test_any_json_is_a_pool_or_a_pool_error(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], form: str
) -> None:
    text = json.dumps(records) if form == "array" else "\n".join(map(json.dumps, records))
    path = write(tmp_path_factory.mktemp("pool"), text)
    for reading in (Reading(), Reading(on_error="skip")):
        pool = pool_or_error(path, reading)
        if isinstance(pool, str):
            assert "a.jsonl" in pool
        else:
            for sentence in pool.sentences:
                assert all(sentence.text[span.start : span.end] == span.text for span, _ in sentence.spans)


def pool_or_error(path: Path, reading: Reading) -> Pool | str:
    try:
        return load_pool(path, reading=reading)
    except PoolError as error:
        return str(error)


@given(st.binary(max_size=60), st.sampled_from(["a.jsonl", "a.json", "a.conll", "pool.toml"]))
def test_any_bytes_are_a_pool_or_a_pool_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    folder = tmp_path_factory.mktemp("pool")
    (folder / name).write_bytes(content)
    pool = pool_or_error(folder if name == "pool.toml" else folder / name, Reading())
    assert not isinstance(pool, str) or str(folder) in pool
