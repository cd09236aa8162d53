"""What only terminals read separates words and belongs to none; offsets stay those of the original text."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.config import Settings, load_settings
from el4ner.engines.instant import InstantEngine
from el4ner.errors import PoolError
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, load_pool
from el4ner.pools.pool import PoolSentence
from el4ner.retrieval import make_retriever
from el4ner.stages.views import original_candidates, sentence_apart
from el4ner.tagger import Tagger
from el4ner.text.controls import CleanText, separators
from el4ner.types import Document, Sentence, SentenceCandidates, Span, SpanCandidate, TaggedDocument
from tests.support.examples import examples

COLOURED = "\x1b[1mdb-3.example.org\x1b[0m from \x1b[33m10.2.3.4\x1b[0m as user root"
PLAIN = "db-3.example.org from 10.2.3.4 as user root"
ESCAPES = [
    "\x1b[0m", "\x1b[m", "\x1b[1;31m", "\x1b[38;5;208m", "\x1b[38;2;10;20;30m", "\x1b[48:2::1:2:3m", "\x1b[2K",
    "\x1b[?25l", "\x1b[6 q", "\x1b]8;;https://example.org/a?b=c\x1b\\", "\x1b]8;;\x07", "\x1b]0;a title\x07",
    "\x1bPq#0\x1b\\", "\x1b(B", "\x1b)0", "\x1b%G", "\x1b#8", "\x1b7", "\x1b8", "\x1b=", "\x1b>", "\x9b1;31m",
    "\x9d8;;u\x9c",
    r"\x1b[1m", r"\x1B[0m", r"\u001b[38;5;1m", r"\u001B[0m", r"\033[31m", r"\e[0m", "^[[1m", "#033[0m", r"\\u001b[0m",
    r"\x1b(B", r"\u001b]8;;https://example.org\u0007", "\u200e", "\u2066", "\ufeff", "\u202e",
]  # fmt: skip
CONTROLS = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\t\n\r"]


def tagger(pool: str = "logs", **method: Any) -> Tagger:
    configured = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"preset": "instant"},
            "method": method,
            "pools": {"default": pool, "paths": {pool: f"shipped:{pool}"}},
        },
    )
    pools = {pool: load_pool(f"shipped:{pool}", name=pool)}
    engines = {name: InstantEngine(name) for name in configured.ensemble.members}
    return Tagger(Pipeline(configured, engines, pools, {pool: make_retriever("random", pools[pool], k=2)}))


def found(document: TaggedDocument) -> list[tuple[str, str, float]]:
    return [(entity.text, entity.type, entity.confidence) for entity in document.entities]


@pytest.mark.parametrize("escape", ESCAPES)
def test_an_escape_sequence_is_taken_out_whole(escape: str) -> None:
    assert CleanText.of(f"{escape}user {escape}root{escape} from{escape}").text == "user root from"


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_character_separates_two_words(control: str) -> None:
    view = CleanText.of(f"user{control}root")
    assert view.text == "user root"
    assert view.stretches(0, 9) == [(0, 4), (5, 9)]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("up\x1b[31", "up"),  # unfinished, at the end
        ("up \x1b", "up "),
        ("up \x1b]8;;https://example.org/a", "up https://example.org/a"),  # what can be read of it is not taken away
        ("\x1b[32mINFO\x1b[0m[0000] up", "INFO[0000] up"),  # as its plain twin
        ("[32mINFO[0m up [5m]", "INFO up [5m]"),  # the ESC was lost
        ("rate(up[5m]) [1m", "rate(up[5m]) [1m"),  # minutes
        ("\x1b[31mlate\x1b[0m by [5m 3s]", "late by [5m 3s]"),
        ("exam\x1b[31mple\x1b[0m.org", "exam ple.org"),
        ("10.2.3.4\x1b[0m:80", "10.2.3.4:80"),
        ("\u0915\u094d\u200d\u0937 \u0645\u06cc\u200c\u062e", "\u0915\u094d\u200d\u0937 \u0645\u06cc\u200c\u062e"),
        ("\u1797\u17d2\u1793\u17c6\u200b\u1796\u17c1\u1789", "\u1797\u17d2\u1793\u17c6\u200b\u1796\u17c1\u1789"),
        ("Ola\u200bRenn", "Ola Renn"),
        ('"\\x16\\x03\\x01" 400', '"\\x16\\x03\\x01" 400'),  # bytes of a request, written out
    ],
)
def test_what_is_taken_out_and_what_is_left(text: str, clean: str) -> None:
    assert CleanText.of(text).text == clean


parts = st.lists(
    st.sampled_from([*ESCAPES, *CONTROLS, "Ola", "Renn", " ", "10.2.3.4", "\n", ":", "e\u0301"]), max_size=12
)


@given(parts.map("".join))
def test_every_character_is_in_the_clean_text_or_in_a_separator(text: str) -> None:
    view = CleanText.of(text)
    outside = list(text)
    for start, end, _ in separators(text):
        outside[start:end] = [""] * (end - start)
    assert view.text.replace(" ", "") == "".join(outside).replace(" ", "")
    assert not any(unicodedata.category(character) == "Cc" for character in view.text if character not in "\t\n\r")
    for start in range(len(view.text)):
        for end in range(start + 1, len(view.text) + 1):
            for at, to in view.stretches(start, end):
                assert CleanText.of(text[at:to]).text == text[at:to]


@given(parts.map("".join), st.data())
def test_a_candidate_is_the_same_text_in_the_clean_text_and_in_the_original(text: str, data: st.DataObject) -> None:
    view = CleanText.of(text)
    if not view.text.strip():
        return
    start = data.draw(st.integers(0, len(view.text) - 1))
    end = data.draw(st.integers(start + 1, len(view.text)))
    if not view.text[start:end].strip() or view.text[start].isspace() or view.text[end - 1].isspace():
        return
    sentence = Sentence(start, end, view.text[start:end])
    clean = SentenceCandidates(sentence, (), (SpanCandidate(Span(start, end, sentence.text), ("a",)),))
    original = original_candidates(clean, view)
    for candidate in original.candidates:
        span = candidate.span
        assert text[span.start : span.end] == span.text
    again = sentence_apart(original, view)
    assert [candidate.span.text for candidate in again.candidates] == [
        candidate.span.text for candidate in original.candidates
    ]
    assert again.sentence == Sentence(0, end - start, sentence.text)
    for candidate in again.candidates:
        assert sentence.text[candidate.span.start : candidate.span.end] == candidate.span.text


def test_a_coloured_line_has_the_entities_of_its_plain_twin_with_its_own_offsets() -> None:
    plain, coloured = tagger().tag([PLAIN, COLOURED])
    assert {text for text, _, _ in found(plain)} >= {"db-3.example.org", "10.2.3.4", "root"}
    assert found(coloured) == found(plain)
    assert all(COLOURED[entity.start : entity.end] == entity.text for entity in coloured.entities)


@pytest.mark.parametrize("repeats", ["off", "exact", "templates"])
def test_a_coloured_line_is_no_new_question(repeats: str) -> None:
    made = tagger(repeats=repeats, validation="soft")
    alike = [COLOURED, f"\x1b[7m{PLAIN}", COLOURED.replace("\x1b", "\\u001b"), PLAIN.replace("from ", "from \ufeff")]
    first, *others = made.tag([PLAIN, *alike], batch_size=1)
    assert [found(other) for other in others] == [found(first)] * len(alike)
    expected = {"misses": 1, "hits": len(alike)} if repeats != "off" else {"misses": 0, "hits": 0}
    for counts in made.pipeline.repeats.values():
        assert {"misses": counts.misses, "hits": counts.hits} == expected


def test_lines_of_a_template_are_alike_with_and_without_colours() -> None:
    typed = 0
    # What the instant engine gives a type is drawn by a hash, of the pool too: with some of these users the address.
    for user in ("root", "ines", "theo", "mariam", "lotte", "oskari"):
        made = tagger(repeats="templates")
        template = PLAIN.replace("root", user)
        lines = [template.replace("10.2.3.4", f"10.2.3.{number}") for number in range(2, 9)]
        *_, plain = made.tag(lines, batch_size=1)
        asked = made.pipeline.repeats["classify"].misses
        coloured = next(made.tag([lines[-1].replace("10.2.3.8", "\x1b[33m10.9.9.9\x1b[0m")]))
        # Three lines are asked about, six where these disagree; the coloured one goes by what they agreed on.
        assert asked in (3, 6)
        assert made.pipeline.repeats["classify"].misses == asked
        assert [label for _, label, _ in found(coloured)] == [label for _, label, _ in found(plain)]
        names = [{text for text, _, _ in found(document)} for document in (plain, coloured)]
        assert ("10.2.3.8" in names[0]) is ("10.9.9.9" in names[1])
        typed += "10.9.9.9" in names[1]
    assert typed


@pytest.mark.parametrize("pool", ["logs", "news"])
@settings(deadline=None, max_examples=examples(50))
@given(text=parts.map("".join))
def test_no_entity_holds_a_separator(pool: str, text: str) -> None:
    made = TAGGERS[pool]
    (result,) = made.tag_or_error([Document("d", f"\x1b[1mOla\x1b[0m Renn{text}London", pool)])
    assert isinstance(result, TaggedDocument)
    for entity in result.entities:
        assert result.text[entity.start : entity.end] == entity.text
        assert separators(entity.text) == []


TAGGERS = {pool: tagger(pool) for pool in ("logs", "news")}


def test_words_on_both_sides_of_a_colour_are_candidates_of_their_own() -> None:
    (document,) = TAGGERS["news"].pipeline.extract([Document("d", "\x1b[1mOla\x1b[0m Renn came to Kiel.", "news")])
    assert not isinstance(document, Exception)
    surfaces = {candidate.span.text for sentence in document.sentences for candidate in sentence.candidates}
    assert {"Ola", "Renn", "Kiel"} <= surfaces


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\x1b[1mOla\x1b[0m Renn", ["Ola", "Renn"]),
        ("Ola\x1b[1mRenn", ["Ola", "Renn"]),
        ("\x1b[1mOla,\x1b[0m Renn", ["Ola", "Renn"]),
        ("db-3\x1b[0m.example", []),  # a part of a word is no name
        ("Ola db-3\x1b[0m.example\x1b[1m Renn", ["Renn"]),
        ("Ola\x00 \x00Renn", ["Ola", "Renn"]),
    ],
)
def test_a_span_is_cut_between_words_alone(text: str, words: list[str]) -> None:
    view = CleanText.of(text)
    assert [text[start:end] for start, end in view.stretches(0, len(view.text))] == words


def test_a_pool_labelled_in_coloured_lines_is_the_pool_of_the_plain_ones() -> None:
    def pool(text: str) -> Pool:
        start = text.index("db-3")
        span = Span(start, start + 16, text[start : start + 16])
        return Pool("mine", {"host": "a host"}, (PoolSentence(text, ((span, "host"),)),), "log")

    assert pool(COLOURED).sentences == pool(PLAIN).sentences
    assert pool(COLOURED).fingerprint == pool(PLAIN).fingerprint
    with pytest.raises(PoolError, match="nothing but control"):
        Pool("mine", {"host": "a host"}, (PoolSentence("a \x00 b", ((Span(2, 3, "\x00"), "host"),)),), "log")


def test_candidates_of_another_version_are_judged_as_they_are() -> None:
    text = f"{COLOURED} and more"
    span = Span(0, 24, text[:24])
    item = SentenceCandidates(Sentence(0, len(text), text), (), (SpanCandidate(span, ("a",)),))
    assert sentence_apart(item, CleanText.of(text)) == item
