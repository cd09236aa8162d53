"""Constrained lists of spans: the language, the tokens that spell it, and the grammar that says the same."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from el4ner.config import MethodSettings
from el4ner.engines.constraint import SpanLines, State, TokenMasks, gbnf
from el4ner.engines.rendering import Renderer
from el4ner.engines.vocabulary import Vocabulary
from el4ner.errors import EngineError
from el4ner.pools import Pool, PoolSentence
from el4ner.prompts import PromptSet
from el4ner.stages import SentenceInput, StageContext, extract
from el4ner.stages.context import STOP
from el4ner.stages.extract import propose
from el4ner.text.mentions import find_mentions
from el4ner.types import Mode, Sentence, Span
from tests.support.doubles import ScriptedEngine
from tests.support.engine_conformance import ODD_TEXT, WORDLESS
from tests.support.tiny_models import TEMPLATE, byte_tokenizer

# Few characters, so that surfaces repeat, overlap and begin alike; line breaks, quotes, marks and wide characters.
TEXTS = st.text(st.sampled_from("aAb no \u0301é'\"\\-,\U0001d11e東\u200b\n\x85\x00"), max_size=14)
ENDS = 2
"""Of the tiny tokenizer: its ``<eos>``."""


def surfaces(text: str) -> set[str]:
    """By definition, one substring after the other."""
    return {
        text[start:end]
        for start in range(len(text))
        for end in range(start + 1, len(text) + 1)
        if is_surface(text[start:end], text)
    }


def is_surface(part: str, text: str) -> bool:
    one_line = len(part.splitlines()) == 1 and part.splitlines() == [part] and not {"\0", "\t"} & {*part}
    has_word = any(character.isalnum() for character in part)
    return one_line and has_word and part == part.strip() and part in {m.text for m in find_mentions(part, text)}


def is_answer(answer: str, text: str, *, repeats: bool = False) -> bool:
    """``repeats``: lines may, as often as they like. Else the last may, and a line break behind it."""
    if answer == " none" or (answer == " none\n" and "none" not in surfaces(text) and not repeats):
        return True
    over = answer.endswith("\n") and not repeats
    lines = f"\n-{answer.removesuffix(chr(10)) if over else answer}".split("\n- ")
    listed = lines[1:]
    once = listed[:-1]
    return (
        lines[0] == ""
        and bool(listed)
        and set(listed) <= surfaces(text)
        and (repeats or len(set(once)) == len(once))
        and (not over or listed[-1] in once)
    )


def accepts(lines: SpanLines, answer: str) -> bool:
    state = lines.advance(lines.start(), answer.encode())
    return state is not None and lines.may_end(state)


def steps(lines: SpanLines, state: State) -> dict[int, State]:
    """Every byte that may follow, and the state behind it."""
    behind = {byte: lines.advance(state, bytes((byte,))) for byte in lines.following(state)}
    return {byte: state for byte, state in behind.items() if state is not None}


@st.composite
def texts_and_answers(draw: st.DrawFn) -> tuple[str, str]:
    """A text, and one of its answers."""
    text = draw(TEXTS)
    found = sorted(surfaces(text))
    listed = draw(st.lists(st.sampled_from(found), max_size=4, unique=True)) if found else []
    listed += draw(st.lists(st.sampled_from(listed), max_size=1)) if listed else []
    return text, "\n-".join(f" {surface}" for surface in listed) or " none"


@st.composite
def texts_and_near_answers(draw: st.DrawFn) -> tuple[str, str]:
    """A text, and something that is an answer but for a piece here and there."""
    text, answer = draw(texts_and_answers())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(answer)))
        to = draw(st.integers(at, min(at + 2, len(answer))))
        piece = draw(st.sampled_from(["", " ", "a", "\n- ", "\n", "-", "none", "\n- none", "n", *text]))
        answer = answer[:at] + piece + answer[to:]
    return text, answer


@given(texts_and_answers(), st.randoms(use_true_random=False))
def test_every_answer_is_accepted_in_whatever_pieces_it_comes(pair: tuple[str, str], rng: random.Random) -> None:
    text, answer = pair
    lines = SpanLines(text)
    written = answer.encode()
    cuts = sorted({0, len(written), *(rng.randrange(len(written)) for _ in range(3))})
    state: State | None = lines.start()
    for begin, end in pairwise(cuts):
        assert state is not None
        state = lines.advance(state, written[begin:end])
    assert state is not None
    assert lines.may_end(state)


@given(texts_and_near_answers())
def test_nothing_else_is_accepted(pair: tuple[str, str]) -> None:
    text, answer = pair
    assert accepts(SpanLines(text), answer) == is_answer(answer, text)


@given(TEXTS)
def test_every_surface_can_be_listed_alone(text: str) -> None:
    lines = SpanLines(text)
    parts = {text[a:b] for a in range(len(text)) for b in range(a + 1, len(text) + 1)} - {"none"}
    assert {part for part in parts if accepts(lines, f" {part}")} == surfaces(text) - {"none"}
    assert accepts(lines, " none")


@given(TEXTS, st.sampled_from([(), STOP]), st.randoms(use_true_random=False))
def test_what_is_begun_can_be_finished(text: str, stop: tuple[str, ...], rng: random.Random) -> None:
    lines = SpanLines(text, stop)
    state, written = lines.start(), b""
    for _ in range(200):
        following = {} if lines.ended(state) else steps(lines, state)
        for byte in range(256):
            assert lines.advance(state, bytes((byte,))) == (state if lines.ended(state) else following.get(byte))
        assert following or lines.may_end(state), written
        assert lines.complete(state) == (
            lines.ended(state)
            or (lines.may_end(state) and all(_only_ends(lines, behind) for behind in following.values()))
        )
        if lines.may_end(state):
            answer = written.decode()
            cuts = [answer.find(one) for one in stop if one in answer]
            assert is_answer(answer[: min(cuts)] if cuts else answer, text)
        if not following:
            break
        byte = rng.choice(sorted(following))
        state, written = following[byte], written + bytes((byte,))
    else:
        assert len(surfaces(text)) > 10


def _only_ends(lines: SpanLines, state: State) -> bool:
    """Whether no line follows, wherever one goes from here."""
    if lines.ended(state):
        return True
    return state.behind is not None and all(_only_ends(lines, behind) for behind in steps(lines, state).values())


@pytest.mark.parametrize("text", [*WORDLESS, "\ud800", "\n\n\n"])
def test_a_text_without_words_has_one_answer(text: str) -> None:
    lines = SpanLines(text)
    state, written = lines.start(), b""
    while not lines.complete(state):
        ((byte, state),) = steps(lines, state).items()
        written += bytes((byte,))
    assert written == b" none"


def test_a_repeated_line_is_the_last_and_none_is_no_line_among_others() -> None:
    lines = SpanLines("Ada met Bob")
    for good in (
        " Ada",
        " Ada\n- Ada met",
        " Bob\n- Ada\n- Ada met Bob",
        " Ada\n- Bob\n- Ada",
        " Ada\n- Ada\n",
        " none\n",
    ):
        assert accepts(lines, good)
    for bad in (" Ada\n- none", " none\n- Ada", " met Bo", " Ada ", "Ada", " Ada\n", " ada", "", " Ada\n- Ada\n\n"):
        assert not accepts(lines, bad)
    assert lines.advance(lines.start(), b" Ada\n- Ada\n-") is None


def test_an_answer_is_complete_where_no_other_begins_with_it() -> None:
    lines = SpanLines("Ada Bob")
    for answer, complete in (
        (" Ada", False),
        (" Bob", False),
        (" Ada\n- Bob\n- Ada", False),  # it may become "Ada Bob"
        (" Ada\n- Bob\n- Ada\n", True),
        (" Ada\n- Bob\n- Bob", True),
        (" none", True),
    ):
        state = lines.advance(lines.start(), answer.encode())
        assert state is not None
        assert lines.complete(state) == complete


def test_stop_strings_that_begin_with_a_line_break_end_a_list() -> None:
    lines = SpanLines("Ada met Bob", ("\n\n", "\nText:", " met", "\n- x"))
    for ended in (" Ada\n\n", " Ada\nText:", " none\n\n", " none\nText: and more", " Ada\n- Bob\n\n- \xff"):
        state = lines.advance(lines.start(), ended.encode())
        assert state is not None
        assert lines.ended(state)
        assert lines.may_end(state)
    for bad in ("\n\n", " Ad\n\n", " Ada\nT\n", " Ada\n- x", " none\n- A"):
        assert lines.advance(lines.start(), bad.encode()) is None
    for half in (" Ada\nTex", " none\nTex", " Ada\n- Ada\nTex"):
        state = lines.advance(lines.start(), half.encode())
        assert state is not None
        assert not lines.may_end(state)


def test_characters_that_cannot_be_written_are_in_no_surface() -> None:
    lines = SpanLines("Ada é Bob", unwritable=frozenset("é".encode()))
    assert accepts(lines, " Ada")
    assert accepts(lines, " Bob")
    assert lines.advance(lines.start(), " Ada é".encode()) is None
    assert lines.advance(lines.start(), b" Ada \xc3") is None


@given(texts_and_near_answers())
def test_the_nearest_answer_is_the_longest_beginning_that_is_one(pair: tuple[str, str]) -> None:
    text, written = pair
    sizes = [size for size in range(len(written), 0, -1) if written[size - 1] != "\n"]
    begun = [written[:size] for size in sizes if is_answer(written[:size], text)]
    assert SpanLines(text).nearest(written) == (begun[0] if begun else " none")


# --- tokens ---------------------------------------------------------------------------------------------------------


def spaced_tokenizer(*, prefix: bool) -> PreTrainedTokenizerFast:
    """SentencePiece's way: ``▁`` for a space, bytes for what has no token. ``prefix``: a space before every text, as
    Llama 2 has it; without, as Gemma."""
    control = ["<unk>", "<bos>", "<eos>"]
    words = ["▁", "▁a", "▁b", "▁no", "ne", "▁none", "\n", "\n\n", "▁-", "\n-", "▁▁", *"abnoe-.,é'"]
    pieces = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("▁", "a"), ("▁", "b"), ("n", "e")]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=merges,
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    ends = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    replace = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    backend.decoder = decoders.Sequence([*ends, decoders.Strip(" ", 1, 0)] if prefix else ends)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


TOKENIZERS = {
    "bytes": byte_tokenizer(template=TEMPLATE),
    "spaces": spaced_tokenizer(prefix=False),
    "spaces and a prefix": spaced_tokenizer(prefix=True),
}
VOCABULARIES = {name: Vocabulary(tokenizer) for name, tokenizer in TOKENIZERS.items()}
RENDERERS = {name: Renderer(tokenizer) for name, tokenizer in TOKENIZERS.items()}
KINDS = st.sampled_from(sorted(TOKENIZERS))


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_a_vocabulary_holds_what_the_renderer_makes_of_each_token(kind: str) -> None:
    vocabulary, renderer, tokenizer = VOCABULARIES[kind], RENDERERS[kind], TOKENIZERS[kind]
    before = list(renderer.encode("b"))
    text = renderer.decode(before)
    for token in range(len(tokenizer)):
        written = vocabulary.written(token)
        shown = renderer.decode([*before, token]).removeprefix(text)
        assert shown == ("" if written is None else written.decode(errors="replace"))
    assert len(vocabulary) == len(tokenizer) - len(tokenizer.all_special_ids) - (2 if kind == "bytes" else 0)


@given(KINDS, TEXTS, st.sampled_from([(), STOP]), st.randoms(use_true_random=False))
def test_the_tokens_that_are_allowed_are_those_that_may_be_read(
    kind: str, text: str, stop: tuple[str, ...], rng: random.Random
) -> None:
    vocabulary, renderer = VOCABULARIES[kind], RENDERERS[kind]
    lines = SpanLines(text, stop, unwritable=vocabulary.unwritable)
    mask = TokenMasks(vocabulary, [ENDS]).mask(text, stop)
    state: State | None = lines.start()
    tokens: list[int] = []
    while not mask.finished and len(tokens) < 24:
        assert state is not None
        expected = [] if lines.ended(state) else _by_hand(vocabulary, lines, state)
        assert mask.allowed().tolist() == sorted([*expected, ENDS] if lines.may_end(state) else expected)
        token = rng.choice(mask.allowed().tolist())
        mask.feed(token)
        if token != ENDS:
            tokens.append(token)
            state = lines.advance(state, vocabulary.written(token) or b"")
    if mask.finished:
        answer = renderer.decode(tokens)
        cuts = [at for at in (answer.find(one) for one in stop) if at >= 0]
        assert is_answer(answer[: min(cuts)] if cuts else answer, text)
        assert mask.allowed().size


def _by_hand(vocabulary: Vocabulary, lines: SpanLines, state: State) -> list[int]:
    return [
        token
        for token in range(400)
        if (written := vocabulary.written(token)) and lines.advance(state, written) is not None
    ]


@given(KINDS, texts_and_answers())
def test_a_model_can_write_every_answer_the_way_it_reads_it(kind: str, pair: tuple[str, str]) -> None:
    text, answer = pair
    mask = TokenMasks(VOCABULARIES[kind], [ENDS]).mask(text)
    for token in RENDERERS[kind].encode(answer):
        assert not mask.finished
        assert token in mask.allowed()
        mask.feed(token)
    assert ENDS in mask.allowed()
    mask.feed(ENDS)
    assert mask.finished


def test_masks_about_the_same_text_do_not_see_each_other() -> None:
    masks = TokenMasks(VOCABULARIES["bytes"], [ENDS])
    one, other = masks.mask("Ada met Bob"), masks.mask("Ada met Bob")
    fresh = other.allowed().tolist()
    for token in RENDERERS["bytes"].encode(" Ada"):
        one.feed(token)
    assert other.allowed().tolist() == fresh
    assert ENDS in one.allowed()
    assert ENDS not in other.allowed()


def test_many_texts_after_one_another_are_answered_like_the_first() -> None:
    masks = TokenMasks(VOCABULARIES["bytes"], [ENDS])
    first = masks.mask("Ada met Bob").allowed().tolist()
    for number in range(200):
        masks.mask(f"text {number}").allowed()
    assert masks.mask("Ada met Bob").allowed().tolist() == first


def test_a_token_that_is_not_allowed_is_refused() -> None:
    mask = TokenMasks(VOCABULARIES["bytes"], [ENDS]).mask("Ada")
    (wrong,) = RENDERERS["bytes"].encode("x")
    for token in (wrong, 0, 10_000):
        with pytest.raises(ValueError, match="may not follow"):
            mask.feed(token)


def test_tokens_beyond_the_models_are_not_offered() -> None:
    tokenizer = TOKENIZERS["bytes"]
    smaller = Vocabulary(tokenizer, len(tokenizer) - 2)
    assert len(smaller) == len(VOCABULARIES["bytes"]) - 2
    assert TokenMasks(smaller, [ENDS]).mask("a panel").allowed().max() < len(tokenizer) - 2


def test_a_vocabulary_that_cannot_spell_none_is_refused() -> None:
    poor = Vocabulary(TOKENIZERS["bytes"])
    poor.unwritable = frozenset(b"e")
    with pytest.raises(EngineError, match=r"spells no list: set method\.constrain"):
        TokenMasks(poor, [ENDS])


def test_a_tokenizer_of_another_family_is_refused() -> None:
    words = {"[UNK]": 0, "ada": 1, "##m": 2}
    backend = Tokenizer(models.WordPiece(vocab=words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    for decoder in (decoders.WordPiece(), decoders.Sequence([decoders.Replace("_", " "), decoders.Fuse()]), None):
        if decoder is not None:
            backend.decoder = decoder
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
        with pytest.raises(EngineError, match=r"set method\.constrain = false"):
            Vocabulary(tokenizer)


# --- the grammar ----------------------------------------------------------------------------------------------------

Item = tuple[str, Any]
_TOKENS = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([a-z]+\d*)|([()|?*]))')


@dataclass
class Grammar:
    """A matcher for the part of GBNF that is used, which knows nothing of where grammars come from."""

    source: str

    def __post_init__(self) -> None:
        self.rules: dict[str, list[list[Item]]] = {}
        for line in self.source.splitlines():
            name, _, body = line.partition(" ::= ")
            assert re.fullmatch(r"[a-z]+\d*", name)
            assert name not in self.rules
            self.rules[name], rest = self._alternatives(self._lex(body))
            assert not rest
        self.known: dict[tuple[str, int], frozenset[int]] = {}

    @staticmethod
    def _lex(body: str) -> list[str]:
        tokens, at = [], 0
        while at < len(body):
            found = _TOKENS.match(body, at)
            assert found, body[at:]
            tokens.append(found[0].strip(" ") if found[1] is None else found[1])
            at = found.end()
        return tokens

    def _alternatives(self, tokens: list[str]) -> tuple[list[list[Item]], list[str]]:
        alternatives: list[list[Item]] = [[]]
        while tokens and tokens[0] != ")":
            token, *tokens = tokens
            if token == "|":
                alternatives.append([])
            elif token in "?*":
                alternatives[-1].append((token, alternatives[-1].pop()))
            elif token == "(":
                inner, tokens = self._alternatives(tokens)
                tokens = tokens[1:]
                alternatives[-1].append(("group", inner))
            elif token.startswith('"'):
                text = re.sub(r"\\(?:u(.{4})|U(.{8})|(.))", self._unescape, token[1:-1])
                alternatives[-1].append(("text", text))
            else:
                alternatives[-1].append(("rule", token))
        return alternatives, tokens

    @staticmethod
    def _unescape(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return chr(int(code, 16)) if code else {"n": "\n"}.get(found[3], found[3])

    def accepts(self, text: str) -> bool:
        self.text = text
        self.known.clear()
        return len(text) in self._any(self.rules["root"], 0)

    def _any(self, alternatives: list[list[Item]], at: int) -> frozenset[int]:
        reached: set[int] = set()
        for sequence in alternatives:
            places = frozenset({at})
            for item in sequence:
                places = frozenset().union(*(self._item(item, place) for place in places))
            reached |= places
        return frozenset(reached)

    def _item(self, item: Item, at: int) -> frozenset[int]:
        kind, value = item
        if kind == "text":
            return frozenset({at + len(value)}) if self.text.startswith(value, at) else frozenset()
        if kind == "group":
            return self._any(value, at)
        if kind == "rule":
            if (value, at) not in self.known:
                self.known[value, at] = self._any(self.rules[value], at)
            return self.known[value, at]
        reached, waiting = {at}, [at]
        while waiting:
            new = self._item(value, waiting.pop()) - reached
            reached |= new
            waiting += new if kind == "*" else ()
        return frozenset(reached)


@given(texts_and_near_answers())
def test_the_grammar_says_the_same_but_that_lines_may_repeat(pair: tuple[str, str]) -> None:
    text, answer = pair
    assert Grammar(gbnf(text)).accepts(answer) == is_answer(answer, text, repeats=True)


@given(texts_and_answers(), st.sampled_from(STOP))
def test_the_grammar_ends_with_stop_strings(pair: tuple[str, str], stop: str) -> None:
    text, answer = pair
    grammar = Grammar(gbnf(text, (*STOP, " met")))
    assert grammar.accepts(answer)
    assert grammar.accepts(answer + stop)
    assert not grammar.accepts(stop)
    assert not grammar.accepts(f"{answer} met" * 2)


@pytest.mark.parametrize("text", [*WORDLESS, ODD_TEXT, "\ud800 a \udfff", '\\" \\u0041 ::= | #', "\x01\x1b a\x7f\x9f"])
def test_a_grammar_is_ascii_of_one_rule_a_line(text: str) -> None:
    source = gbnf(text, STOP)
    assert source.isascii()
    assert all(character == "\n" or character.isprintable() for character in source)
    grammar = Grammar(source)
    for surface in surfaces(text.encode(errors="ignore").decode()) if "\ud800" not in text else {"a"}:
        assert grammar.accepts(f" {surface}")
    assert grammar.accepts(" none")


def test_a_grammars_size_goes_with_the_text() -> None:
    for piece in ("word and ", "$", "- , ", "\U0001f35c東"):
        once, twice = (len(gbnf((piece + "end. ") * count)) for count in (200, 400))
        assert twice < 2.2 * once


# --- the stages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constrain", [False, True])
def test_the_stages_ask_for_spans_of_the_sentence_where_constraint_is_on(constrain: bool) -> None:
    pool = Pool("p", {"person": "a human being"}, (PoolSentence("Bob left.", ((Span(0, 3, "Bob"), "person"),)),))
    context = StageContext(pool, PromptSet("v1"), MethodSettings(mode=Mode.PAPER, constrain=constrain))
    sentence = Sentence(7, 15, "Ada met.")
    engine = ScriptedEngine("one", write=lambda request: " Ada")
    extract([SentenceInput(sentence, (0,))], [engine], context)
    propose([sentence], [engine], context)
    assert [request.spans_of for request in engine.generated] == ["Ada met." if constrain else None] * 2
