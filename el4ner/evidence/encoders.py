"""Spans in context into vectors: what two spans are compared by.

Not in the paper. A member reads the sentence once, zero-shot, and then each proposed span behind it (``- Angela
Merkel``); its hidden states at the span's last token have seen the whole sentence and the list of types. On the
development splits of three data sets they tell types apart far better than the embeddings of a sentence-transformer do,
and better than the member's own answers in the few-shot prompt, at a tenth of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from el4ner.engines import checks
from el4ner.engines.base import LAYERS, Prompt, StateEngine, StateRequest, States
from el4ner.retrieval.embedder import SentenceTransformerEmbedder
from el4ner.text.white_space import as_read
from el4ner.types import Span, Usage

__all__ = ["EMBEDDER", "EmbedderEncoder", "MemberEncoder", "SpanEncoder"]

EMBEDDER = "embedder"
"""The name of the encoder that is no member: evidence without any language model, a baseline and a fallback."""


class SpanEncoder(Protocol):
    """``[layers, dimensions]`` numbers for each span of a sentence: of one layer, or of the :data:`LAYERS`."""

    @property
    def name(self) -> str:
        """A member's name, or :data:`EMBEDDER`."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors may."""

    @property
    def states_fingerprint(self) -> str:
        """Changes whenever the vectors may by more than rounding:
        :attr:`el4ner.engines.base.StateEngine.states_fingerprint`."""

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[list[States], Usage]:
        """For each text ``[len(its spans), layers, dimensions]``; the spans' offsets are the text's."""


class MemberEncoder:
    """A member's hidden states.

    Args:
        engine: the member.
        prompt: from a sentence to its zero-shot prompt.
        tail: from a surface to what stands behind the prompt.
        version: of the prompts.
    """

    def __init__(
        self, engine: StateEngine, prompt: Callable[[str], Prompt], tail: Callable[[str], str], *, version: str
    ) -> None:
        self._engine = engine
        self._prompt = prompt
        self._tail = tail
        self.name = engine.name
        self.fingerprint = f"{engine.fingerprint}-{version}"
        self.states_fingerprint = f"{engine.states_fingerprint}-{version}"

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[list[States], Usage]:
        """A surface that occurs twice in a sentence is read once."""
        asked = [index for index, spans_of in enumerate(spans) if spans_of]
        surfaces = [list(dict.fromkeys(span.text for span in spans[index])) for index in asked]
        results = checks.states(
            self._engine,
            [
                StateRequest(self._prompt(texts[index]), tuple(self._tail(as_read(name)) for name in names))
                for index, names in zip(asked, surfaces, strict=True)
            ],
        )
        empty = np.zeros((0, LAYERS, self._engine.hidden_size), dtype=np.float32)
        encoded: list[States] = [empty] * len(texts)
        for index, names, result in zip(asked, surfaces, results, strict=True):
            row = {name: place for place, name in enumerate(names)}
            encoded[index] = result.states[[row[span.text] for span in spans[index]]]
        return encoded, sum((result.usage for result in results), Usage())


class EmbedderEncoder:
    """A sentence-transformer: the span alone, and the mean of its tokens in its sentence."""

    def __init__(self, embedder: SentenceTransformerEmbedder) -> None:
        self._embedder = embedder
        self.name = EMBEDDER
        self.fingerprint = self.states_fingerprint = embedder.fingerprint

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[list[States], Usage]:
        """All spans are embedded in one call, and all sentences in another."""
        alone = self._embedder.embed([span.text for spans_of in spans for span in spans_of])
        places = [[(span.start, span.end) for span in spans_of] for spans_of in spans]
        inside = self._embedder.embed_in_context(texts, places)
        if not len(alone):
            return [np.zeros((0, LAYERS, alone.shape[1]), np.float32) for _ in texts], Usage()
        together: States = np.stack([alone, inside], axis=1)
        return list(np.split(together, np.cumsum([len(spans_of) for spans_of in spans])[:-1])), Usage()
