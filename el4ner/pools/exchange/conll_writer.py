"""A labelled sentence as CoNLL columns: a token and its BIO tag a line, and a comment ``# text = …`` before them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import regex

from el4ner.errors import PoolError
from el4ner.pools.conll import token_error, wrong_tag
from el4ner.pools.labelled import quoted
from el4ner.pools.pool import PoolSentence

__all__ = ["conll_lines", "keeps_spaces"]

_TOKEN: Final = regex.compile(r"[\p{L}\p{M}\p{N}_\p{Cf}]+|[^\s\p{L}\p{M}\p{N}_\p{Cf}][\p{M}\p{Cf}]*")


def conll_lines(sentence: PoolSentence) -> Iterator[str]:
    """The lines of a sentence, without the blank one behind it.

    Tokens are words and single marks, cut where an entity begins or ends in one. Columns have no white space; a comment
    says how the sentence was written where :func:`keeps_spaces`, and readers join the tokens where it is missing.

    Raises:
        PoolError: spans overlap, an entity begins or ends with white space, or a type has a space in its name.
    """
    for (left, _), (right, _) in pairwise(sentence.spans):
        if right.start < left.end:
            raise PoolError(
                f"span {quoted(right.text)} overlaps {quoted(left.text)}: columns have one tag for each token"
            )
    tags: dict[int, str] = {}
    cuts: set[int] = set()
    for span, label in sentence.spans:
        if span.text != span.text.strip():
            raise PoolError(f"span {quoted(span.text)} begins or ends with white space, which no token has")
        if any(char.isspace() for char in label) or wrong_tag(f"B-{label}"):
            raise PoolError(f"type {quoted(label)} has white space in its name, which separates columns: rename it")
        cuts.update((span.start, span.end))
        tags.update(dict.fromkeys(range(span.start, span.end), f"I-{label}"))
        tags[span.start] = f"B-{label}"
    if keeps_spaces(sentence.text):
        yield f"# text = {sentence.text}"
    for start, end in _tokens(sentence.text, cuts):
        token = sentence.text[start:end]
        if mistake := token_error(token, "script"):
            raise PoolError(mistake)
        yield f"{token}\t{tags.get(start, 'O')}"


def keeps_spaces(text: str) -> bool:
    """Whether a comment can say how the sentence was written: a line, without tabs or white space around it."""
    return text == text.strip() and "\t" not in text and len(text.splitlines()) == 1


def _tokens(text: str, cuts: set[int]) -> Iterator[tuple[int, int]]:
    for match in _TOKEN.finditer(text):
        places = sorted({*match.span(), *(place for place in range(match.start() + 1, match.end()) if place in cuts)})
        yield from pairwise(places)
