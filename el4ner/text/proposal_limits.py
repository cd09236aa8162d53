"""What a sentence's proposals may be, whoever proposes: they cut no character in two, and together they cost no more
than so much for each byte of the text.

Every proposal is read by every member, so what a text costs is what its proposals cost. A token is at least one byte of
text: a member reads at most ``MAX_COST`` tokens for each byte of a sentence, whatever the text is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from el4ner.text.boundaries import boundaries
from el4ner.types import Span

__all__ = ["FREE_COST", "MAX_COST", "MAX_SPAN_CHARS", "OVERHEAD", "admitted", "cost"]

MAX_SPAN_CHARS: Final = 500
"""The most code points of a proposal: a long URL."""
OVERHEAD: Final = 4
"""Tokens that a proposal costs beside its own: the line that it stands on."""
MAX_COST: Final = 6
FREE_COST: Final = 256
"""A sentence's proposals may cost ``FREE_COST + MAX_COST * bytes``. English prose costs 2 a byte, and 5 at most in
sentences of some words; scripts without capitals, whose every stretch of some words is proposed, come near to it."""


def cost(surface: str) -> int:
    """The most tokens of one proposal."""
    return (len(surface) if surface.isascii() else len(surface.encode("utf-8", "surrogatepass"))) + OVERHEAD


def admitted(text: str, spans: Iterable[Span], *, first: Collection[Span] = ()) -> set[Span]:
    """Those of ``spans`` that are considered: offsets are the text's.

    A span that begins or ends inside a user-perceived character is left out: ``Andre`` is not what stands there where
    an accent follows. So is one that is longer than :data:`MAX_SPAN_CHARS`. Where all others cost too much the longest
    are left out, but those in ``first`` are the last to go.
    """
    characters = boundaries(text, words=False)
    whole = {
        span for span in spans if span.end - span.start <= MAX_SPAN_CHARS and characters.allow(span.start, span.end)
    }
    left = FREE_COST + MAX_COST * len(text.encode("utf-8", "surrogatepass"))
    if sum(cost(span.text) for span in whole) <= left:
        return whole
    kept = set()
    for span in sorted(whole, key=lambda span: (span not in first, cost(span.text), span)):
        left -= cost(span.text)
        if left < 0:
            break
        kept.add(span)
    return kept
