"""Short cuts that are taken for most sentences give what the long way gives."""

from __future__ import annotations

import hashlib
import math
import re
from importlib import resources
from itertools import pairwise

import jinja2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.engines.base import Prompt, ScoreItem, ScoreRequest
from el4ner.engines.instant import InstantEngine
from el4ner.prompts import PromptSet
from el4ner.stages.deciding import by_mean
from el4ner.text import atoms, lexicon, prose_chunks, prose_words
from el4ner.text.atoms import Atom
from el4ner.text.boundaries import boundaries
from el4ner.text.lexicon import Lexicon
from el4ner.text.mentions import fold
from el4ner.text.templates import Piece, Template
from el4ner.text.white_space import comparable
from el4ner.types import Span, SpanCandidate

SIGNS = "aZ9.:/\\@-_%+=?#()[] \n\u2028\u00a0é\u0301İßς中の'’\"“«‹~$"
ADDRESSES = ("www.", "x.org", "http://", "md5-", "aa-bb-cc-dd-ee-ff", "0123456789abcdef", "eyJab.cd.", "C:\\", "%A%\\")
PIECES = st.sampled_from([*SIGNS, *ADDRESSES, "Bank of England", "John's "])
TEXTS = st.lists(PIECES, max_size=25).map("".join)
ANY = re.compile("")


@given(TEXTS)
def test_atoms_and_what_is_marked_off_are_found_wherever_they_are(text: str) -> None:
    quick = atoms.atoms(text), list(prose_chunks._marked_off(text)), prose_words.words_of(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(atoms, "_MAY_BE_ATOM", ANY)
        patched.setattr(prose_chunks, "_MAY_MARK_OFF", ANY)
        assert (atoms.atoms(text), list(prose_chunks._marked_off(text)), prose_words.words_of(text)) == quick


@pytest.mark.parametrize(
    ("surface", "kind"),
    [
        ("a.b@c.de", "email"),
        ("@ada", "handle"),
        ("ftp://x", "url"),
        ("/a/b", "path"),
        ("x.org", "domain"),
        ("md5-aGVsbG8=d29ybGQ=", "hash"),
        ("aa-bb-cc-dd-ee-0f", "id"),
        ("::1a", "id"),
        ("C:\\a", "path"),
    ],
)
def test_each_kind_of_atom_is_looked_for(surface: str, kind: str) -> None:
    text = f"It says {surface} there"
    assert atoms.atoms(text) == [Atom(8, 8 + len(surface), kind)]  # type: ignore[arg-type]


@given(TEXTS)
def test_words_are_proper_by_each_of_their_characters(text: str) -> None:
    assert prose_words.is_proper(text) == any(one.isupper() or one.isdigit() for one in text)


@given(st.text(st.sampled_from("aZ9_&.'-/ \r\n%\x1c"), max_size=25))
def test_words_of_ascii_are_those_of_any_text(text: str) -> None:
    assert list(prose_words._words(text)) == [
        (*match.span(), False) for match in prose_words._WORD.finditer(text) if match.lastgroup is None
    ]


@given(st.lists(st.sampled_from(["a", "B", "Ada", " ", "'s", "\n", "-", "É", "e\u0301"]), max_size=12).map("".join))
def test_runs_are_cut_into_lines_pair_by_pair(text: str) -> None:
    words = prose_words.words_of(text)
    expected = [words[:1]]
    for before, word in pairwise(words):
        if prose_words._LINE_BREAK.search(text, before.end, word.start):
            expected.append([])
        expected[-1].append(word)
    if words:
        assert prose_words.lines_of(text, words) == expected
    for gap in ("_GAP_INSIDE_NAME", "_GAP_BETWEEN_CONTENT", "_GAP_BETWEEN_CASELESS"):
        assert getattr(prose_words, gap).fullmatch(" "), "a single space is any gap"


def plainly_found(known: Lexicon, text: str) -> list[Span]:
    """Every word on, in both tries."""
    view = comparable(text)
    tokens = list(lexicon._tokens(view.form))
    spans = []
    for first, (start, _, word) in enumerate(tokens):
        ends = set()
        for trie, change in ((known._exact, str), (known._folded, fold)):
            state: int | None = 0
            for _, end, each in tokens[first:]:
                state = trie.get((state or 0, change(each)))
                if state is None:
                    break
                if state in known._ends:
                    ends.add(end)
        places = [view.span(start, end) for end in sorted(ends, reverse=True)] if not word.isspace() else []
        spans += [Span(*place, text[slice(*place)]) for place in places if place is not None]
    return spans if text.isascii() else [span for span in spans if boundaries(text).allow(span.start, span.end)]


WORDS = st.sampled_from(["Bank", "bank", "of", "England", "ada", "Ada", "USA", "é", "e\u0301", ".", "-"])
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)


@given(st.lists(NAMES, max_size=6), st.lists(st.one_of(WORDS, NAMES), max_size=12).map(" ".join))
def test_the_lexicon_finds_what_every_word_begins(surfaces: list[str], text: str) -> None:
    known = Lexicon(surfaces)
    assert known.find(text) == plainly_found(known, text)


@given(st.sampled_from(["mention", "item"]), TEXTS)
def test_simple_blocks_say_what_jinja_says(name: str, surface: str) -> None:
    source = (resources.files("el4ner") / "prompts" / "v1" / "scored.jinja").read_text()
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(source)
    rendered = "".join(template.blocks[name](template.new_context({"surface": surface})))
    assert PromptSet("v1").block("scored", name, surface=surface) == rendered
    with pytest.raises(jinja2.UndefinedError):
        PromptSet("v1").block("scored", name, other=surface)


@given(st.integers(0, 5), st.integers(1, 3), st.lists(st.floats(-40, 0, width=32), min_size=1, max_size=12))
def test_the_mean_is_that_of_each_candidate_by_itself(spans: int, count: int, values: list[float]) -> None:
    labels = ["person", "place", "none"]
    members = [f"m{number}" for number in range(count)]
    cycled = [values[index * 7 % len(values)] for index in range(spans * count * len(labels))]
    said = np.asarray(cycled, np.float32).reshape(spans, count, len(labels))
    candidates = [SpanCandidate(Span(0, 1, "a"), ("chunks",))] * spans
    for typed, scores in zip(by_mean(candidates, said, members, labels), said, strict=True):
        beliefs = [dict(zip(labels, np.exp(row).tolist(), strict=True)) for row in scores]
        mean = {label: sum(belief[label] for belief in beliefs) / count for label in labels}
        assert typed.type == max(mean, key=lambda label: mean[label])
        assert typed.confidence == min(1.0, mean[typed.type])
        assert typed.votes == {
            name: max(belief, key=lambda label: belief[label]) for name, belief in zip(members, beliefs, strict=True)
        }


@pytest.mark.parametrize("kind", ["", "num"])
def test_an_anchor_in_a_single_piece_is_found_as_in_several(kind: str) -> None:
    whole = Template("12345", [Piece(0, 5, kind)])
    for start in range(6):
        for end in range(start, 7):
            anchor = whole.anchor(start, end)
            if start == end or end > 5 or (kind and (start, end) != (0, 5)):
                assert anchor is None
            else:
                assert anchor == (0, start, 0, 5 - end)


def test_the_instant_engine_hashes_the_whole_question() -> None:
    prompt = Prompt("system", "user \udc80", "answer")
    items = (ScoreItem("- Ada:", (" person", " place", "")), ScoreItem("", (" person", " place", "")))
    (result,) = InstantEngine("a").score([ScoreRequest(prompt, items)])
    for item, scores in zip(items, result.scores, strict=True):
        for candidate, score in zip(item.candidates, scores, strict=True):
            asked = f"a\0system\0user \udc80\0answer\0{item.tail}\0{candidate}".encode("utf-8", "surrogatepass")
            share = (int.from_bytes(hashlib.sha256(asked).digest()[:6], "big") + 1) / (1 << 48)
            expected = math.log(share) - math.log(3) if candidate else 0.0
            assert (score.logprob, score.tokens) == (expected, -(-len(candidate) // 3))
