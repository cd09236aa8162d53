"""From a surface that a model wrote to the places in the text that it means."""

from __future__ import annotations

from el4ner.types import Span

__all__ = ["find_mentions"]

_QUOTES = "\"'`“”‘’«»"


def find_mentions(surface: str, text: str) -> list[Span]:
    """Every mention of ``surface`` in ``text``, left to right; empty if it does not occur.

    The surface is taken without the white space and quotes around it. An exact match wins; otherwise letter case is
    ignored. Only whole words match: ``Iran`` is not found in ``Iranian``. The spans' text is the text's own.
    """
    for wanted in dict.fromkeys((surface.strip(), surface.strip().strip(_QUOTES).strip())):
        if not wanted:
            continue
        spans = _occurrences(wanted, text) or _occurrences_folded(wanted, text)
        if spans:
            return spans
    return []


def _occurrences(wanted: str, text: str) -> list[Span]:
    spans = []
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        if _is_whole(text, start, end):
            spans.append(Span(start, end, text[start:end]))
            start = text.find(wanted, end)
        else:
            start = text.find(wanted, start + 1)
    return spans


def _occurrences_folded(wanted: str, text: str) -> list[Span]:
    # Lower-casing may change a string's length (İ), and offsets with it: fold one character at a time.
    folded = "".join(_fold(character) for character in text)
    return [
        Span(span.start, span.end, text[span.start : span.end])
        for span in _occurrences("".join(_fold(character) for character in wanted), folded)
    ]


def _fold(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _is_whole(text: str, start: int, end: int) -> bool:
    begins = start == 0 or not (text[start - 1].isalnum() and text[start].isalnum())
    ends = end == len(text) or not (text[end - 1].isalnum() and text[end].isalnum())
    return begins and ends
