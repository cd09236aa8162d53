"""The engine for models behind an address: the method's requests, put to servers.

Prompts are rendered and cut into tokens here, with the tokenizer that ``source`` names, and sent as token numbers where
the server takes them. Many requests are on their way at the same time: batching them is the server's work.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from typing_extensions import override

from el4ner.config import ModelSettings
from el4ner.engines.base import (
    GenerateRequest,
    GenerateResult,
    Interruptible,
    Prompt,
    ScoreRequest,
    ScoreResult,
)
from el4ner.engines.rendering import Renderer
from el4ner.engines.served.dialect import Body, Dialect, Written
from el4ner.engines.served.http_transport import Ask, Line, Transport
from el4ner.engines.served.probing import UNREADABLE, Probed, Prober
from el4ner.engines.served.token_scoring import Scoring
from el4ner.engines.token_engine import TokenEngine
from el4ner.errors import EngineError, ModelError
from el4ner.models.digest import sha256_of
from el4ner.models.folder import listed_end_tokens
from el4ner.models.tokenizers import load_tokenizer, tokenizer_folder
from el4ner.types import Usage

__all__ = ["ServedEngine"]

log = logging.getLogger(__name__)
R = TypeVar("R")
DRIVER: Final = 1
"""Part of every fingerprint: counted up when this driver may answer differently."""
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model")


class ServedEngine(TokenEngine, Interruptible):
    """Make one with :meth:`load`.

    Args:
        name: the member's name.
        transport: to the servers; the engine closes it.
        probed: what they are.
        tokenizer: of transformers, for the model that they serve.
        end_tokens: that end an answer, besides those that the tokenizer shows.
        fingerprint: of the tokenizer's files.
    """

    _READS = "the server reads"

    def __init__(
        self,
        name: str,
        transport: Transport,
        probed: Probed,
        tokenizer: Any,
        *,
        end_tokens: frozenset[int],
        fingerprint: str,
    ) -> None:
        super().__init__(
            name,
            tokenizer,
            identity=(DRIVER, fingerprint, probed.dialect.name, probed.model, probed.identity),
            context_length=probed.context_length,
            end_tokens=end_tokens,
        )
        self._transport = transport
        self._dialect: Dialect = probed.dialect
        self._model = probed.model
        self._scores = probed.scores
        self._constrains = probed.constrains
        self._one_at_a_time = probed.one_at_a_time
        self._control = [
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content
        ]

    @classmethod
    def load(cls, name: str, settings: ModelSettings, *, cache_dir: Path) -> ServedEngine:
        """Ask every server what it is, and whether it reads text as the tokenizer of ``settings.source`` does.

        Raises:
            EngineAwayError: no server answers.
            EngineError: a server demands another key.
            ConfigError: an address or the certificates cannot be read.
            ModelError: a server is of no known kind, the servers differ, or ``source`` names another tokenizer.
        """
        if settings.server is None:
            raise ModelError(f'models.{name}: engine "server" needs a table [models.{name}.server] with urls')
        folder = tokenizer_folder(settings.source, cache_dir)
        try:
            tokenizer = load_tokenizer(folder)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{folder}: holds no tokenizer that can be read: {error}") from error
        transport = Transport(name, settings.server)
        try:
            probed = Prober(name, settings.server, transport, Renderer(tokenizer).encode).probe()
            engine = cls(
                name,
                transport,
                probed,
                tokenizer,
                end_tokens=listed_end_tokens(folder),
                fingerprint="\n".join(
                    f"{file} {sha256_of(folder / file)}" for file in _TOKENIZER_FILES if (folder / file).is_file()
                ),
            )
        except BaseException:
            transport.close()
            raise
        log.info(
            "server-probed",
            extra={
                "engine": name,
                "kind": probed.dialect.name,
                "model": probed.model,
                "context": probed.context_length,
                "scores": probed.scores,
                "constrains": probed.constrains,
                "servers": len(transport.urls),
            },
        )
        return engine

    @property
    def kind(self) -> str:
        """What the servers are: ``llama.cpp``, ``vllm``, ``sglang`` or ``tabbyapi``."""
        return self._dialect.name

    @property
    def scores(self) -> bool:
        """Whether :meth:`score` can be asked."""
        return self._scores

    @property
    def constrains(self) -> bool:
        """Whether :meth:`generate` can keep an answer to spans of a text."""
        return self._constrains

    @property
    def healthy(self) -> list[bool]:
        """Of each server, in the order of the settings: whether it answered when it was asked last."""
        return self._transport.healthy

    @override
    def interrupt(self) -> None:
        self._transport.interrupt()

    @override
    def close(self) -> None:
        self._closed = True
        self._transport.close()

    @override
    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """
        Raises:
            EngineAwayError: no server answers.
            EngineError: as the base documents; also a constraint that this kind of server does not know.
        """
        self._check_open()
        prompts = self._prefixes(requests)
        if not self._constrains and any(request.spans_of is not None for request in requests):
            raise self._cannot("does not keep to a grammar: set method.constrain = false, or use another server")
        asked = [index for index, request in enumerate(requests) if request.max_new_tokens > 0]
        rows = [[self._writing(requests[index], prompts[index])] for index in asked]
        results = [GenerateResult("", False, Usage())] * len(requests)
        for index, (written,) in zip(asked, self._transport.ask_all(rows), strict=True):
            results[index] = self._result(written, requests[index], len(prompts[index]))
        return results

    def _writing(self, request: GenerateRequest, prompt: tuple[int, ...]) -> Ask:
        dialect = self._dialect
        sent = self._sent(prompt, request.prompt)
        return Ask(
            dialect.path,
            lambda: dialect.generate(sent, request, self._end_tokens, self._model),
            partial(self._understood, dialect.written),
            _line(request.prompt),
        )

    @override
    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """What candidates have in common is asked once.

        ``usage.prompt_tokens`` counts prompts and what was read behind them (what they share: once).

        Raises:
            EngineAwayError: no server answers.
            EngineError: as the base documents; also a kind of server that does not tell probabilities.
        """
        self._check_open()
        if not self._scores:
            raise self._cannot(
                'does not tell how likely candidates are: set method.mode = "paper", or use another server'
            )
        scorings: list[Scoring] = []
        lines: dict[tuple[int, ...], Line] = {}
        for request in requests:
            prefix, questions = self._questions(request)
            scorings.append(Scoring(prefix, questions))
            lines.setdefault(prefix, _line(request.prompt))
        places = [(scoring, node) for scoring in scorings for node in scoring.nodes]
        self._ask_in_lines(
            [
                _NextTokenQuestion(
                    scoring, node, scoring.missing(node), lines[scoring.prefix], self._dialect.next_tokens
                )
                for scoring, node in places
            ]
        )
        self._ask_in_lines(
            [
                _NextTokenQuestion(scoring, node, [token], lines[scoring.prefix], self._forced)
                for scoring, node in places
                for token in scoring.missing(node)
            ]
        )
        for scoring, node in places:
            if missing := scoring.missing(node):
                raise self._garbage(f"does not tell the probability of token {missing[0]}, which it was made to choose")
        return [scoring.result() for scoring in scorings]

    def _forced(self, prompt: Sequence[int], wanted: Collection[int], model: str) -> Body:
        (token,) = wanted
        return self._dialect.forced(prompt, token, model)

    def _ask_in_lines(self, questions: Sequence[_NextTokenQuestion]) -> None:
        """Questions with the same prompt: in turn, where a second one at the same time would have to read the prompt
        into another cache; else one ahead, and the others together when it has been read."""
        by_line: dict[int, list[_NextTokenQuestion]] = {}
        for question in questions:
            by_line.setdefault(id(question.line), []).append(question)
        rows = list(by_line.values())
        if self._one_at_a_time:
            waves = [rows]
        else:
            waves = [[row[:1] for row in rows], [[question] for row in rows for question in row[1:]]]
        for wave in waves:
            answers_of_rows = self._transport.ask_all([[self._asking(question) for question in row] for row in wave])
            for row, answers in zip(wave, answers_of_rows, strict=True):
                for question, (likelihoods, cached) in zip(row, answers, strict=True):
                    question.scoring.take(question.node, likelihoods, cached)

    def _asking(self, question: _NextTokenQuestion) -> Ask:
        return Ask(
            self._dialect.path,
            lambda: question.body(self._model),
            partial(self._understood, partial(self._dialect.likelihoods, wanted=question.wanted)),
            question.line,
        )

    def _understood(self, read: Callable[[Any], R], answer: Any) -> R:
        try:
            return read(answer)
        except UNREADABLE as error:
            raise self._garbage(f"answered in a form that is not known: {type(error).__name__}: {error}") from error

    def _result(self, written: Written, request: GenerateRequest, prompt_tokens: int) -> GenerateResult:
        text, ended = written.text, written.ended
        if written.tokens is not None:
            end = next((at for at, token in enumerate(written.tokens) if token in self._end_tokens), None)
            tokens = list(written.tokens[:end])
            decoded = self._renderer.decode(tokens)
            # A server cuts a stop string's tokens off in one answer and shows them in another: what both have counts.
            text = decoded if end is not None or (decoded.startswith(text) and not ended) else text
            ended = ended or end is not None
        if (cut := request.cut(text)) is not None:
            text, ended = cut, True
        cached = min(written.cached_tokens, prompt_tokens)
        return GenerateResult(
            text, ended, Usage(prompt_tokens, cached, min(written.new_tokens, request.max_new_tokens))
        )

    def _sent(self, tokens: tuple[int, ...], prompt: Prompt) -> Sequence[int] | str:
        if self._dialect.takes_tokens:
            return tokens
        for control in self._control:
            if any(control in text for text in (prompt.system, prompt.user, prompt.answer)):
                raise EngineError(
                    f"{self._name}: the text contains {control!r}, which a {self._dialect.name} server would read as a "
                    "control token: it takes no token numbers"
                )
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _cannot(self, what: str) -> EngineError:
        return EngineError(f"{self._name}: a {self._dialect.name} server {what}", code="engine-cannot")

    def _garbage(self, what: str) -> EngineError:
        return EngineError(f"{self._name}: the {self._dialect.name} server {what}", code="engine-garbage")


@dataclass(frozen=True, slots=True)
class _NextTokenQuestion:
    """How likely are ``wanted`` at a place behind a prompt?"""

    scoring: Scoring
    node: int
    wanted: Sequence[int]
    line: Line
    ask: Callable[[Sequence[int], Collection[int], str], Body]

    def body(self, model: str) -> Body:
        return self.ask(self.scoring.context(self.node), self.wanted, model)


def _line(prompt: Prompt) -> Line:
    """What is asked of one sentence in one stage and the next has the same hint: that server has read most of it."""
    return Line(zlib.crc32(f"{prompt.system}\0{prompt.user}".encode(errors="replace")))
