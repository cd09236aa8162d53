"""What every stage needs of a pool: types, demonstrations as prompts show them, and prompts that fit a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from el4ner.config import MethodSettings
from el4ner.engines.base import Engine, Prompt
from el4ner.errors import DocumentError
from el4ner.evidence import Evidence
from el4ner.pools.pool import Pool
from el4ner.prompts import PromptSet
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.text.atoms import AtomGate
from el4ner.text.chunks import chunks
from el4ner.text.lexicon import Lexicon
from el4ner.text.white_space import as_read
from el4ner.types import NONE_TYPE

__all__ = ["STOP", "StageContext"]

STOP = ("\n\n", "\nText:")
"""Where a written answer ends: a model that goes on invents further examples."""

MAX_NEGATIVES = 5
"""How many spans of a demonstration that are no entities are shown, as ``none``, in the scored mode. A small model goes
by the share of ``none`` in front of it. Of 1, 3 and 5, 5 did best on the dev splits of two data sets."""

_RENDERED = 512
"""Prompts that are kept: of some batches."""


@dataclass(frozen=True)
class StageContext:
    """One pool, the prompts and the settings. Made once per pool; cheap to call."""

    pool: Pool
    prompts: PromptSet
    settings: MethodSettings
    evidence: Evidence | None = None
    """What the scored mode classifies by; None: by the mean of the members' answers in context."""
    proposer: BoundaryProposer | None = None
    """Who proposes spans by the states of words; None: nobody does."""
    taught: Lexicon | None = None
    """The entities of what the pool was taught: candidates wherever they are, however unlikely it looks."""
    _shown: dict[int, dict[str, Any]] = field(default_factory=dict, compare=False)
    _rendered: dict[tuple[str, tuple[int, ...], str], Prompt] = field(default_factory=dict, compare=False)

    @property
    def types(self) -> list[tuple[str, str]]:
        """(name, description) in the pool's order."""
        return list(self.pool.types.items())

    @property
    def labels(self) -> list[str]:
        """What a candidate may be called: the pool's types, and none."""
        return [*self.pool.types, NONE_TYPE]

    def prompt(
        self, engine: Engine, task: str, demonstrations: Sequence[int], *, reserve: int = 0, **values: Any
    ) -> Prompt:
        """The prompt of ``task``, most similar demonstration last, next to the sentence.

        Where the whole does not fit the engine's context with ``reserve`` tokens to spare, the least similar
        demonstrations are left out.

        Raises:
            DocumentError: not even the bare sentence fits.
        """
        shown = list(demonstrations)
        while True:
            prompt = self._render(task, tuple(shown), values)
            # A token is at least one byte, so a short prompt need not be counted.
            size = len(f"{prompt.system}{prompt.user}{prompt.answer}".encode()) + 64
            if (
                size + reserve <= engine.context_length
                or engine.count_tokens(prompt) + reserve <= engine.context_length
            ):
                return prompt
            if not shown:
                raise DocumentError(
                    f"a sentence does not fit the {engine.context_length} tokens that {engine.name} reads; "
                    "lower method.max_sentence_chars",
                    code="sentence-too-long",
                )
            shown = shown[: len(shown) // 2]

    def _render(self, task: str, shown: tuple[int, ...], values: Mapping[str, Any]) -> Prompt:
        # The members are asked one after another about the same sentences, in the same words.
        key = (task, shown, values["sentence"]) if values.keys() == {"sentence"} else None
        known = None if key is None else self._rendered.get(key)
        if known is not None:
            return known
        demonstrations = [self._show(task, index) for index in reversed(shown)]
        prompt = self.prompts.render(task, types=self.types, demonstrations=demonstrations, **values)
        if key is not None:
            if len(self._rendered) >= _RENDERED:
                del self._rendered[next(iter(self._rendered))]
            self._rendered[key] = prompt
        return prompt

    def _show(self, task: str, index: int) -> dict[str, Any]:
        known = self._shown.get(index)
        if known is None:
            known = self._shown[index] = self._demonstration(index)
        return {
            "text": known["text"],
            "labels": known["scored" if task == "scored" else "gold"],
            "statements": known["statements"],
        }

    def _demonstration(self, index: int) -> dict[str, Any]:
        sentence = self.pool.sentences[index]
        gold = list(dict.fromkeys((as_read(span.text), label) for span, label in sentence.spans))
        # In the order of the text, as a reader would label it: entities, and some spans that are none.
        taken = [(span.start, span.end) for span, _ in sentence.spans]
        gate = AtomGate(sentence.text, self.pool.divisible)
        free = [
            chunk
            for chunk in chunks(sentence.text, self.pool.text_kind)
            if gate.admits(chunk.span)
            and all(chunk.span.end <= start or chunk.span.start >= end for start, end in taken)
        ]
        # Spans that look like names first: they are the harder negatives.
        chosen = sorted(free, key=lambda chunk: not chunk.proper)[:MAX_NEGATIVES]
        lines = [(span.start, span.text, label) for span, label in sentence.spans]
        lines += [(chunk.span.start, chunk.span.text, NONE_TYPE) for chunk in chosen]
        scored = list(dict.fromkeys((as_read(text), label) for _, text, label in sorted(lines)))
        return {"text": sentence.text, "gold": gold, "scored": scored, "statements": self._statements(index, gold)}

    def _statements(self, index: int, gold: list[tuple[str, str]]) -> list[tuple[str, str, bool]]:
        """True and false statements by turns: a false one names another type of the pool."""
        names = list(self.pool.types)
        if len(names) < 2:
            return [(surface, label, True) for surface, label in gold]
        statements = []
        for turn, (surface, label) in enumerate(gold[:2]):
            if (turn + index) % 2:
                others = [name for name in names if name != label]
                statements.append((surface, others[(index + turn) % len(others)], False))
            else:
                statements.append((surface, label, True))
        return statements
