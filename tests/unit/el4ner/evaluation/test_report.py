"""The page: complete, self-contained, and deaf to what texts would have it do."""

import itertools
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.evaluation import EvaluationError, EvaluationResult, SentenceRecord, compare_with, summarise
from el4ner.evaluation.marking import Mark, segments, worst
from el4ner.evaluation.report import render_report, write_report
from el4ner.evaluation.terminal_report import after_table, before_table
from tests.support.evaluation_samples import POOL, SETTINGS, considered, record, records
from tests.support.examples import examples

VOID = {"meta", "br", "link", "img", "input", "hr", "line", "rect", "circle"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}\x00\u202e"


class Page(HTMLParser):
    """Tags, attributes and text; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def result(*own: SentenceRecord) -> EvaluationResult:
    return summarise(own, pool=POOL, settings=SETTINGS, fingerprints={"pool": POOL.fingerprint})


ONE = record(
    [(0, 3, "person"), (13, 17, "place")],
    [considered((0, 3), "person", confidence=0.9), considered((13, 17), "person", votes={"a": "person", "b": "place"})],
    text="Ada slept in Rome",
)


def test_a_report_has_what_a_reader_looks_for() -> None:
    page = Page(render_report(compare_with(result(ONE), [record(ONE.gold, text=ONE.text)], name="other.jsonl")))
    for words in (
        "made/up, test split",
        "F1, strict",
        "50.0",
        "Compared with other.jsonl",
        "Where gold entities went",
        "Expected calibration error",
        "What was taken for what",
        "chunks",
        "seconds",
        "method.mode",
        POOL.fingerprint,
        "Ada",
        "is place",
        "missed",
    ):
        assert words in page.text
    assert "Compared" not in Page(render_report(result(ONE))).text


def test_nothing_is_loaded_and_nothing_runs() -> None:
    page = Page(render_report(result(ONE)))
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert not [each for each in page.attributes if each[1] in ("src", "href", "srcset") or each[1].startswith("on")]
    assert "url(" not in render_report(result(ONE))
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_it_is_readable_without_eyes_or_colours() -> None:
    html = render_report(result(ONE))
    page = Page(html)
    assert ("html", "lang", "en") in page.attributes
    headings = [int(tag[1]) for tag in page.tags if tag in ("h1", "h2", "h3")]
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    drawings = html.split("<svg")[1:]
    assert all(("<title" in each and "<desc" in each) or 'aria-hidden="true"' in each for each in drawings)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = {word for _, name, value in page.attributes if name == "aria-labelledby" for word in value.split()}
    assert named <= set(ids)
    for sign in ("✓", "○", "✗"):
        assert sign in page.text.split("The sentences with the most errors")[1]


def test_hostile_text_stays_text() -> None:
    hostile = record(
        [(0, 8, HOSTILE)],
        [considered((10, 20), HOSTILE, by=(HOSTILE,), votes={HOSTILE: HOSTILE})],
        text=HOSTILE,
    )
    found = summarise(
        [hostile],
        pool=POOL,
        settings={**SETTINGS, "dataset": HOSTILE, HOSTILE: HOSTILE},
        fingerprints={HOSTILE: HOSTILE},
    )
    html = render_report(compare_with(found, [hostile], name=HOSTILE))
    assert "<script" not in html
    assert "<img" not in html
    page = Page(html)
    assert not [each for each in page.attributes if each[1].startswith("on")]
    assert "{{ 7 * 7 }}" in page.text
    shown = page.text.split("The sentences with the most errors")[1].split("What was run")[0]
    assert "␀" in shown


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(records(), max_size=4))
def test_any_run_gives_a_page_and_lines_for_a_terminal(own: list[SentenceRecord]) -> None:
    found = result(*own)
    Page(render_report(found))
    lines = [*before_table(found), *after_table(found)]
    assert all(len(line) <= 80 for line in lines)


@given(records())
def test_marks_leave_the_text_as_it_is(made: SentenceRecord) -> None:
    marks = [Mark(*entity, "right") for entity in (*made.gold, *made.predicted)]
    pieces = segments(made.text, marks)
    assert sum(len(piece.text) for piece in pieces) == len(made.text)
    ended = [mark for piece in pieces for mark in piece.ends]
    assert sorted(ended, key=repr) == sorted(marks, key=repr), "every mark is named once"


def test_the_worst_sentences_come_first_and_good_ones_not_at_all() -> None:
    good = record([(0, 3, "person")], [considered((0, 3), "person")])
    bad = record([(0, 3, "person")])
    shown = worst([good, bad, ONE])
    assert [(each.number, each.errors) for each in shown] == [(3, 2), (2, 1)]
    assert [each.number for each in worst([bad] * 30, 20)] == list(range(1, 21))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", result(ONE))
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(EvaluationError, match="cannot be written"):
        write_report(tmp_path, result(ONE))
