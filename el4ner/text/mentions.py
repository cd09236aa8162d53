"""From a surface that a model wrote to the places in the text that it means."""

from __future__ import annotations

from el4ner.text.boundaries import boundaries
from el4ner.text.white_space import Comparable, comparable, may_be_a_name
from el4ner.types import Span

__all__ = ["find_mentions", "fold"]

_QUOTES = "\"'`“”‘’«»"


def find_mentions(surface: str, text: str) -> list[Span]:
    """Every mention of ``surface`` in ``text``, left to right; empty if it does not occur.

    The surface is taken without the white space and quotes around it. An exact match wins; otherwise letter case is
    ignored. How letters with marks are written (NFC or NFD) and which white space stands inside a name makes no
    difference; nothing is found over a tab, a blank line or two line breaks, which separate names. Only whole words
    match: ``Iran`` is not found in ``Iranian``. The spans' text is the text's own.
    """
    view = comparable(text)
    for wanted in dict.fromkeys((surface.strip(), surface.strip().strip(_QUOTES).strip())):
        if not wanted:
            continue
        form = comparable(wanted).form
        spans = _occurrences(form, view.form, view, text) or _occurrences(fold(form), fold(view.form), view, text)
        if spans:
            return spans
    return []


def fold(text: str) -> str:
    """Lower case, one character at a time: lower-casing a whole string may change its length (İ), or depend on
    context."""
    if text.isascii():
        return text.lower()
    return "".join([lower if len(lower := character.lower()) == 1 else character for character in text])


def _occurrences(wanted: str, form: str, view: Comparable, text: str) -> list[Span]:
    """``form`` is as long as ``view.form``."""
    spans = []
    start = form.find(wanted)
    while start >= 0:
        place = view.span(start, start + len(wanted))
        if place is not None and boundaries(text).allow(*place) and may_be_a_name(text[slice(*place)]):
            spans.append(Span(*place, text[slice(*place)]))
            start = form.find(wanted, start + len(wanted))
        else:
            start = form.find(wanted, start + 1)
    return spans
