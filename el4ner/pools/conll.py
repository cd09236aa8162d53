"""CoNLL columns: a token and its tag a line (BIO, BIOES or BILOU), a blank line between sentences; CoNLL-U too."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from el4ner.errors import PoolError
from el4ner.pools.joining import aligned, join_of, join_tokens
from el4ner.pools.pool import PoolSentence
from el4ner.pools.read_options import Item, Join, LeftOut, Reading, lines_of, shown
from el4ner.types import Span

__all__ = ["TAGS", "Tokens", "conll_items", "sentence_of", "tag_spans", "token_error", "wrong_tag"]

TAGS: Final = "O, B-person, I-person, E-person, S-person"
_TAG: Final = re.compile(r"O|[BIESLU]-\S(?:.*\S)?")
_KEY_VALUE: Final = re.compile(r"#\s*[\w.:-]+\s*=")
_WORD_ID: Final = re.compile(r"\d+(?:[-.]\d+)?")
_CONLLU: Final = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_CONLLU_COLUMNS: Final = len(_CONLLU)
_TAG_COLUMNS: Final = frozenset({"NER", "NE", "BIO", "IOB", "IOB2"})
_NER: Final = re.compile(r"(?:^|\|)NER=([^|]+)")
_SPACE_AFTER: Final = re.compile(r"(?:^|\|)Spaces?After=")
_CONTROLS: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
_JSON: Final = re.compile(r'\s*(?:\{\s*"|\[\s*["{\[])')
_SHORT: Final = 80
_ADVICE: Final = (
    '; to leave out such sentences: on_error = "skip" in pool.toml or [pools], the variable '
    "EL4NER_POOLS__ON_ERROR=skip, or --on-error skip of pool import, pool check and eval"
)


@dataclass
class Tokens:
    """A sentence in pieces: tokens, their tags, whether each follows without a space, and its text if the file has it.

    ``where`` is ``file:line`` of its beginning, or of the first thing that is wrong with it, which ``mistake`` says.
    """

    where: str
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    glued: list[bool] = field(default_factory=list)
    text: str | None = None
    mistake: str | None = None

    def refuse(self, where: str, mistake: str) -> None:
        """Note what is wrong, the first time."""
        if self.mistake is None:
            self.where, self.mistake = where, mistake


def conll_items(path: Path, reading: Reading) -> Iterator[Item]:
    """The sentences of a file.

    A token and its tag are the first and the last column. In CoNLL-U (ten columns, the first a word's number) the token
    is the second, and the tag is ``NER=`` in the last. ``SpaceAfter=No`` in a last column says that no space follows;
    a comment ``# text = …`` says how the sentence was written. Elsewhere tokens are joined as ``reading.join`` says.

    Raises:
        PoolError: the file cannot be read.
    """
    # A look ahead: most files say in their first lines that their tokens are words.
    ahead = (sentence.tokens for sentence in _sentences(path, reading) if sentence.mistake is None)
    join = join_of(ahead, reading.join)
    for sentence in _sentences(path, reading):
        if sentence.mistake is not None:
            yield LeftOut(sentence.where, sentence.mistake, advice=_ADVICE)
        else:
            yield sentence_of(sentence, join)


def sentence_of(sentence: Tokens, join: Join) -> PoolSentence:
    """The text that the tokens make, and the spans that the tags mark."""
    offsets = aligned(sentence.tokens, sentence.text) if sentence.text is not None else None
    if offsets is None or sentence.text is None:
        text, offsets = join_tokens(sentence.tokens, join, glued=sentence.glued)
    else:
        text = sentence.text
    spans = []
    for first, last, label in tag_spans(sentence.tags):
        start, end = offsets[first][0], offsets[last][1]
        spans.append((Span(start, end, text[start:end]), label))
    return PoolSentence(text, tuple(spans), sentence.where)


def tag_spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """First token, last token and label of each entity; a tag that continues nothing begins one."""
    spans: list[tuple[int, int, str]] = []
    start: int | None = None
    label = ""
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        continues = start is not None and prefix in "IEL" and kind == label
        if start is not None and not continues:
            spans.append((start, index - 1, label))
            start = None
        if prefix != "O" and start is None:
            start, label = index, kind
        if start is not None and prefix in "ESLU":
            spans.append((start, index, label))
            start = None
    return spans


def wrong_tag(tag: str) -> str | None:
    """What is wrong with a tag; None if nothing is."""
    if _TAG.fullmatch(tag):
        return None
    return f"{_quoted(tag)} is no BIO or BIOES tag (nor BILOU) such as {TAGS}"


def token_error(token: str, join: str) -> str | None:
    """What is wrong with a token; None if nothing is. Where nothing is joined with spaces, a space may be a token."""
    if join == "none" and token and not token.strip(" \u00a0\u3000"):
        return None
    if all(unicodedata.category(char) in _CONTROLS for char in token):
        return f"the token has nothing to see: it is {shown(token)}"
    if any(unicodedata.category(char) == "Cc" for char in token):
        controls = "".join(char for char in token if unicodedata.category(char) == "Cc")
        return f"the token {_quoted(token)} has a control character: {shown(controls)}"
    return None


def _sentences(path: Path, reading: Reading) -> Iterator[Tokens]:
    comments: dict[str, str] = {}
    columns: list[str] = []
    sentence: _SentenceLines | None = None
    for number, line in enumerate(lines_of(path), start=1):
        where = f"{path}:{number}"
        if isinstance(line, UnicodeDecodeError):
            sentence = sentence or _SentenceLines(where, columns, reading.join, comments.get("text"))
            sentence.result.refuse(where, f"is not UTF-8: {line.reason} at byte {line.start}")
            continue
        line = line.rstrip("\r\n")
        if _is_boundary(line):
            if sentence is not None:
                yield sentence.finish()
            sentence, comments = None, {}
        elif sentence is None and _is_comment(line):
            key, _, value = line.lstrip("# ").partition("=")
            comments[key.strip()] = value.strip()
            columns = value.split() if key.strip() == "global.columns" else columns
        else:
            sentence = sentence or _SentenceLines(where, columns, reading.join, comments.get("text"))
            try:
                sentence.add(line)
            except PoolError as error:
                hint = "; it looks like JSON: name the file .jsonl" if _JSON.match(line) else ""
                sentence.result.refuse(where, f"{error}{hint}")
    if sentence is not None:
        yield sentence.finish()


class _SentenceLines:
    """Adds one line after the other. What is wrong with a line is raised without its place."""

    def __init__(self, where: str, columns: Sequence[str], join: str, text: str | None) -> None:
        self.result = Tokens(where, text=text)
        self._columns = list(columns)
        self._join = join
        self._space_before = True
        self._range_end = -1
        self._range_untagged = False
        self._plain_columns = 0

    def finish(self) -> Tokens:
        """The sentence, when its last line was added. A first column of numbers is no text."""
        tokens = self.result.tokens
        numbers = [[str(number + first) for number in range(len(tokens))] for first in (0, 1)]
        if self._plain_columns > 2 and len(tokens) > 2 and tokens in numbers:
            names = ["ID", "FORM", *["_"] * (self._plain_columns - 3), "NER"]
            self.result.refuse(
                self.result.where,
                f"its first column numbers the words: name the columns in the file's first line, as in "
                f"# global.columns = {' '.join(names)}",
            )
        return self.result

    def add(self, line: str) -> None:
        if "\r" in line:
            raise PoolError("holds a carriage return without a line feed: `tr '\\r' '\\n'` mends the file")
        cells = _cells(line)
        numbered = len(cells) == _CONLLU_COLUMNS and _WORD_ID.fullmatch(cells[0]) is not None and "\t" in line
        if numbered or "FORM" in self._columns:
            self._add_word(cells, self._columns or _CONLLU)
            return
        if len(cells) < 2:
            raise PoolError(f"needs a token and a tag, separated by a tab or spaces, not {_quoted(line)}")
        space_after = True
        while len(cells) > 2 and (cells[-1] == "_" or _SPACE_AFTER.search(cells[-1])):
            space_after = space_after and not _no_space(cells.pop())
        self._plain_columns = len(cells)
        self._append(cells[0], cells[-1].strip(), space_after)

    def _add_word(self, cells: Sequence[str], columns: Sequence[str]) -> None:
        """A line of CoNLL-U. A range (``1-2``) is what was written, its words are only looked at for their tags."""
        if len(cells) != len(columns):
            raise PoolError(f"has {len(cells)} columns instead of {len(columns)}: {', '.join(columns)}")
        cell = dict(zip(columns, cells, strict=True))
        number, misc = cell.get("ID", ""), cell.get("MISC", "_")
        tag = next((value for name, value in cell.items() if name.split(":")[-1] in _TAG_COLUMNS), None)
        named = _NER.search(misc)
        tag = named[1] if tag is None and named else tag
        if "." in number:  # a word that was left out when it was written
            return
        first, _, last = number.partition("-")
        if not last and first.isdecimal() and int(first) <= self._range_end:
            if self._range_untagged and tag is not None:
                self.result.tags[-1] = tag
                self._range_untagged = False
            return
        if last:
            self._range_end, self._range_untagged = int(last), tag is None
        elif tag is None:
            raise PoolError("has no tag: CoNLL-U needs NER=B-person and the like in its last column, or a column NER")
        self._append(cell["FORM"], tag or "O", not _no_space(misc))

    def _append(self, token: str, tag: str, space_after: bool) -> None:
        token = token if self._join == "none" else token.strip(" ")
        if mistake := token_error(token, self._join) or wrong_tag(tag):
            raise PoolError(mistake)
        self.result.glued.append(not self._space_before)
        self.result.tokens.append(token)
        self.result.tags.append(tag)
        self._space_before = space_after


def _is_boundary(line: str) -> bool:
    return not line.strip() or line.startswith("-DOCSTART-")


def _is_comment(line: str) -> bool:
    """``# key = value`` and ``# id 17``, before a sentence; but ``#`` with a tag is a token, as tweets have it."""
    if not line.startswith("#") or "\t" in line:
        return False
    return bool(_KEY_VALUE.match(line)) or not _TAG.fullmatch(_cells(line)[-1])


def _cells(line: str) -> list[str]:
    """Columns, by tabs or else by spaces: a no-break space separates nothing, and may be a token."""
    if "\t" in line:
        return line.split("\t")
    cells = re.split(" +", line.strip(" "))
    return ["", *cells] if len(cells) == 1 and line.startswith(" ") else cells


def _no_space(misc: str) -> bool:
    return "SpaceAfter=No" in misc.split("|")


def _quoted(line: str) -> str:
    """For a message, with what cannot be seen escaped."""
    short = line if len(line) <= _SHORT else line[:_SHORT] + "…"
    return ascii(short) if not short.isprintable() else repr(short)
