"""What the servers of a member are and can do, found out before the first document."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from el4ner.config import ServerSettings
from el4ner.engines.base import GenerateRequest, Prompt
from el4ner.engines.constraint import SpanLines
from el4ner.engines.served.dialect import Dialect, Facts
from el4ner.engines.served.http_transport import Transport
from el4ner.engines.served.kinds import KINDS
from el4ner.errors import EngineAwayError, ModelError

__all__ = ["UNREADABLE", "Probed", "Prober"]

log = logging.getLogger(__name__)
UNREADABLE: Final = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What reading an answer of an unknown form raises."""
_TEXT: Final = "Zoë's naïve café — «東京» \U0001f35c, 3.14 km from New-York:\n- none\n"
"""A text that tokenizers of different models cut differently."""
_UNLIKELY: Final = "Qx7-Zzyzx"
"""What no model writes unless it has to."""
_SAME: Final = 0.05
"""Nats that two readings of the same probability may be apart, by rounding."""
_CERTAIN: Final = -0.7
"""Above this, a token that is less likely than another cannot be: two of them would have more than 1."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Servers that are alike. ``identity`` changes with what may change their answers. ``scores``, ``constrains``: they
    tell probabilities, and keep to a grammar."""

    dialect: Dialect
    model: str
    context_length: int
    identity: str
    scores: bool
    constrains: bool
    one_at_a_time: bool
    """A server has a prompt cache for each of its slots: requests with the same prompt are best asked in turn."""


class Prober:
    """Asks the servers of one member.

    Args:
        name: the member's, for errors.
        settings: what the user says of the servers.
        transport: to them.
        encode: the tokens of plain text, as the tokenizer of ``models.NAME.source`` cuts it.
    """

    def __init__(
        self, name: str, settings: ServerSettings, transport: Transport, encode: Callable[[str], tuple[int, ...]]
    ) -> None:
        self._name = name
        self._settings = settings
        self._transport = transport
        self._encode = encode

    def probe(self) -> Probed:
        """Ask every server, and compare. One that does not answer is tried later, if another one does.

        Raises:
            EngineAwayError: none answers.
            EngineError: one demands another key.
            ModelError: one is of no known kind or has no such model, they differ, or their tokenizer is another one.
        """
        reachable: list[tuple[int, Dialect, Facts, bool, bool]] = []
        away: EngineAwayError | None = None
        for index, url in enumerate(self._transport.urls):
            try:
                dialect, facts = self._kind(index)
                self._check_tokenizer(index, dialect, facts.model)
                scores = dialect.scores and self._tells_probabilities(index, dialect, facts.model)
                constrains = self._keeps_to_a_grammar(index, dialect, facts.model)
            except EngineAwayError as error:
                away = error
                self._transport.missing(index)
                log.warning("server-away", extra={"engine": self._name, "url": url, "error": str(error)})
                continue
            if facts.slots is not None:
                self._transport.limit(index, facts.slots)
            reachable.append((index, dialect, facts, scores, constrains))
        if not reachable:
            raise away or EngineAwayError(f"{self._name}: no server")
        first, dialect, facts, scores, constrains = reachable[0]
        for index, another, theirs, they_score, they_constrain in reachable[1:]:
            if _alike(another, theirs) != _alike(dialect, facts):
                raise ModelError(
                    f"models.{self._name}.server.urls: the servers differ: {self._transport.urls[first]} is "
                    f"{_shown(dialect, facts)}, {self._transport.urls[index]} is {_shown(another, theirs)}"
                )
            scores &= they_score
            constrains &= they_constrain
        shortest = min(theirs.context_length for _, _, theirs, _, _ in reachable)
        versions = sorted({theirs.version for _, _, theirs, _, _ in reachable})
        self._transport.check_returned(partial(self._wrong, dialect, facts, shortest))
        return Probed(
            dialect=dialect,
            model=facts.model,
            context_length=shortest,
            identity="\0".join([facts.identity, *versions]),
            scores=scores,
            constrains=constrains,
            one_at_a_time=facts.slots is not None,
        )

    def _wrong(self, dialect: Dialect, facts: Facts, context_length: int, index: int) -> str | None:
        """Why a server that was away cannot go on; None if it is what the others are."""
        try:
            dialect_now, theirs = self._kind(index)
            self._check_tokenizer(index, dialect_now, theirs.model)
        except ModelError as error:
            return str(error)
        if _alike(dialect_now, theirs) != _alike(dialect, facts):
            return f"is {_shown(dialect_now, theirs)} now, it was {_shown(dialect, facts)}: start el4ner anew"
        if theirs.context_length < context_length:
            return f"reads {theirs.context_length} tokens now, it has to read {context_length}"
        if theirs.slots is not None:
            self._transport.limit(index, theirs.slots)
        return None

    def _kind(self, index: int) -> tuple[Dialect, Facts]:
        kind = self._settings.kind
        tried = list(KINDS.values()) if kind == "auto" else [KINDS[kind]]
        for dialect in tried:
            try:
                facts = dialect.facts(partial(self._transport.get, index), self._settings.model)
            except UNREADABLE:
                continue
            if facts is not None:
                return dialect, facts
        model = f"with the model {self._settings.model!r}" if self._settings.model else "with one model"
        raise ModelError(
            f"models.{self._name}.server.urls: {self._transport.urls[index]} answers, but not as "
            f"{' or '.join(dialect.name for dialect in tried)} {model} would"
        )

    def _check_tokenizer(self, index: int, dialect: Dialect, model: str) -> None:
        path, body, read = dialect.tokenize(_TEXT, model)
        url = self._transport.urls[index]
        try:
            theirs = read(self._transport.post(index, path, body))
        except UNREADABLE:
            raise ModelError(
                f"models.{self._name}: {url}{path} does not tell how the server cuts text: it cannot be made sure that "
                f"models.{self._name}.source is its tokenizer"
            ) from None
        if theirs != list(self._encode(_TEXT)):
            raise ModelError(
                f"models.{self._name}.source: {url} cuts text into other tokens than this tokenizer: name the model "
                f"that it serves ({model})"
            )

    def _tells_probabilities(self, index: int, dialect: Dialect, model: str) -> bool:
        """Whether they are the model's own: those of a token that is forced, from before it was."""
        prompt = self._encode("The capital of France is")
        likely, unlikely = self._encode(" Paris")[0], self._encode(_UNLIKELY)[0]
        wanted = sorted({likely, unlikely})
        try:
            body = dialect.next_tokens(prompt, wanted, model)
            likelihoods, _ = dialect.likelihoods(self._transport.post(index, dialect.path, body), wanted)
            for token in wanted:
                body = dialect.forced(prompt, token, model)
                forced, _ = dialect.likelihoods(self._transport.post(index, dialect.path, body), [token])
                if (
                    not math.isfinite(forced[token])
                    or abs(likelihoods.setdefault(token, forced[token]) - forced[token]) > _SAME
                ):
                    return False
        except UNREADABLE:
            return False
        return len(wanted) == 1 or min(likelihoods.values()) < _CERTAIN

    def _keeps_to_a_grammar(self, index: int, dialect: Dialect, model: str) -> bool:
        """Whether an answer about a word that no model knows is that word, or none."""
        text = "Names: Qx7\n-"
        prompt = self._encode(text) if dialect.takes_tokens else text
        request = GenerateRequest(Prompt("", text), 4, spans_of=_UNLIKELY)
        answer: Any = self._transport.post(index, dialect.path, dialect.generate(prompt, request, (), model))
        try:
            written = dialect.written(answer).text
        except UNREADABLE:
            return False
        lines = SpanLines(_UNLIKELY)
        return bool(written.strip()) and lines.advance(lines.start(), written.encode()) is not None


def _alike(dialect: Dialect, facts: Facts) -> tuple[str, str, str]:
    return dialect.name, facts.model, facts.identity


def _shown(dialect: Dialect, facts: Facts) -> str:
    return f"{dialect.name} with {facts.model} ({facts.identity})"
