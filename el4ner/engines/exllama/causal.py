"""Whether a model that was just loaded reads prompts as a causal language model does.

A wrong attention path does not fail: ExLlamaV2 0.3.2 without flash-attn reads a prompt without a causal mask, every
token sees those behind it, and answers are only worse. So an engine proves itself before it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from el4ner.engines.exllama.backend import Backend, SuffixRow
from el4ner.errors import ModelError

__all__ = ["NOT_CAUSAL", "check_causal"]

NOT_CAUSAL: Final = "attention-not-causal"
"""The code of the error by which a model is refused."""

TOKENS: Final = 330
"""More than a page of the cache, which attention kernels and page tables treat differently from less."""
_CHANGED: Final = 230
"""From here on the prompt is changed, to see whether anything before it does."""
_ROW: Final = 250
"""Tokens of the prompt that are read as a row."""
_ASKED: Final = 24
"""Places at the end that are compared."""
_TYPICAL: Final = {16: 0.05, 8: 0.08, 6: 0.12, 4: 0.3}
"""How far (nats) two readings of the same prompt are apart at most, at the median of the places, by the bits of the
cache: half precision, and states that one reading takes from the cache and the other does not. Without a mask
readings are several nats apart."""
_WORST: Final = 8.0
"""At the place where they are furthest apart, times the typical."""


def check_causal(name: str, backend: Backend, encode: Callable[[str], tuple[int, ...]], cache_bits: int) -> None:
    """Read a prompt of 330 tokens in three ways, which have to agree: at once, in pieces down to single tokens
    (decoding was never wrong), and as one row behind its beginning. What is said in a row must not depend on what
    follows.

    Raises:
        ModelError: they do not agree, code :data:`NOT_CAUSAL`; the engine must not serve.
    """
    prompt = _prompt(encode)
    places = range(TOKENS - _ASKED - 1, TOKENS - 1)  # the token behind each of these is asked for
    at_once = _ends(backend, prompt, places, pieces=False)
    in_pieces = _ends(backend, prompt, places, pieces=True)
    as_row = _row(backend, prompt, places)
    changed = (*prompt[:_CHANGED], *reversed(prompt[_CHANGED:]))
    earlier = range(_CHANGED - _ASKED - 1, _CHANGED - 1)
    before, after = _row(backend, prompt, earlier), _row(backend, changed, earlier)
    backend.forget()
    for what, values, expected in (
        ("at once and in pieces", at_once, in_pieces),
        ("at once and as a row", at_once, as_row),
        ("with two different ends", before, after),
    ):
        apart = np.abs(np.asarray(values) - np.asarray(expected))
        typical = _TYPICAL[cache_bits]
        if not np.isfinite(apart).all() or np.median(apart) > typical or apart.max() > _WORST * typical:
            raise ModelError(
                f"{name}: a prompt of {len(prompt)} tokens that is read {what} is {np.nanmax(apart):.2f} nats apart "
                f"(median {np.nanmedian(apart):.3f}, allowed {typical:g}): attention does not mask what comes later. "
                "Set exllama.attention to 'torch', or install flash-attn 2.5.7 or newer",
                code=NOT_CAUSAL,
            )


def _prompt(encode: Callable[[str], tuple[int, ...]]) -> tuple[int, ...]:
    tokens: tuple[int, ...] = ()
    number = 0
    while len(tokens) < TOKENS:
        number += 1
        tokens += encode(
            f"\nEntry {number}: the train from Lisbon reached platform {number * 7 % 11} with {number * 37 % 101} "
            "passengers, and the harbour office wrote down every name."
        )
    return tokens[:TOKENS]


def _ends(backend: Backend, prompt: tuple[int, ...], places: Sequence[int], *, pieces: bool) -> list[float]:
    """Each beginning of the prompt is read anew, or each behind what is there of the one before: one token more."""
    backend.forget()
    if pieces:
        for end in (*range(50, places[0], 50), places[0]):
            backend.release(backend.hold([prompt[:end]]))
    log_probabilities: list[float] = []
    for place in places:
        if not pieces:
            backend.forget()
        held = backend.hold([prompt[: place + 1]])
        log_probabilities += backend.score([SuffixRow(held[0], (), ((0, prompt[place + 1]),))])[0]
        backend.release(held)
    return log_probabilities


def _row(backend: Backend, prompt: tuple[int, ...], places: Sequence[int]) -> list[float]:
    """The prompt's end as one row behind its beginning."""
    backend.forget()
    begin = len(prompt) - _ROW
    held = backend.hold([prompt[:begin]])
    targets = tuple((place - begin + 1, prompt[place + 1]) for place in places)
    (log_probabilities,) = backend.score([SuffixRow(held[0], prompt[begin:], targets)])
    backend.release(held)
    return log_probabilities
