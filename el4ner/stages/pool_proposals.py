"""The spans that members propose in a pool's own sentences, by which retrieval finds these (``retrieval.pool_spans``).

One reader's account of the paper (arXiv 2505.23038, section 3.1) has the pool's spans extracted zero-shot beforehand,
as the input's are when it comes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import orjson
from typing_extensions import override

from el4ner.engines.base import Engine
from el4ner.errors import ConfigError
from el4ner.models.files import write_atomically
from el4ner.models.locking import exclusive
from el4ner.models.progress import Progress
from el4ner.retrieval import PoolSurfaces
from el4ner.stages.context import StageContext
from el4ner.stages.extract import propose
from el4ner.types import Sentence

__all__ = ["MissingMembers", "ProposedSurfaces"]

_FORMAT: Final = "1"
_BATCH: Final = 16
log = logging.getLogger(__name__)


class ProposedSurfaces(PoolSurfaces):
    """The union of what ``engines`` propose in the sentences of a pool, zero-shot.

    What a member proposed is kept in a file in ``folder``, so that another ensemble with the same member does not ask
    it again. ``progress`` is told of each member that is asked.
    """

    def __init__(self, context: StageContext, engines: Sequence[Engine], folder: Path, progress: Progress) -> None:
        self._context = context
        self._engines = engines
        self._folder = folder
        self._progress = progress

    @cached_property
    @override
    def fingerprint(self) -> str:
        keys = " ".join(sorted(self._key(engine) for engine in self._engines))
        return f"models-{hashlib.sha256(keys.encode()).hexdigest()[:16]}"

    @override
    def by_sentence(self) -> Sequence[Sequence[str]]:
        return self._by_sentence

    @cached_property
    def _by_sentence(self) -> list[list[str]]:
        pool = self._context.pool
        union: list[dict[str, None]] = [{} for _ in pool.sentences]
        # Workers that start together would all ask about the same pool: the first one does, the others find its files.
        with exclusive(self._folder / f"{pool.fingerprint}.lock"):
            for engine in self._engines:
                for known, surfaces in zip(union, self._of_member(engine), strict=True):
                    known.update(dict.fromkeys(surfaces))
        return [list(surfaces) for surfaces in union]

    def _key(self, engine: Engine) -> str:
        """Of everything that decides what a member proposes in the pool's sentences."""
        method = self._context.settings
        said = (method.max_new_tokens, method.constrain, method.max_sentence_chars)
        content = f"{_FORMAT} {self._context.pool.fingerprint} {self._context.prompts.version} {said} "
        return hashlib.sha256(f"{content}{engine.fingerprint}".encode()).hexdigest()[:24]

    def _of_member(self, engine: Engine) -> list[list[str]]:
        path = self._folder / f"proposals-{self._key(engine)}.json"
        try:
            stored = orjson.loads(path.read_bytes())
            if _is_whole(stored, len(self._context.pool.sentences)):
                return list(stored)
            log.warning("a member's proposals are incomplete and are asked for anew", extra={"path": str(path)})
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            extra = {"path": str(path), "error": str(error)}
            log.warning("a member's proposals are damaged and are asked for anew", extra=extra)
        surfaces = self._asked(engine)
        write_atomically(path, orjson.dumps(surfaces))
        return surfaces

    def _asked(self, engine: Engine) -> list[list[str]]:
        context, longest = self._context, self._context.settings.max_sentence_chars
        surfaces: list[list[str]] = [[] for _ in context.pool.sentences]
        short = []
        for place, sentence in enumerate(context.pool.sentences):
            if len(sentence.text) > longest:
                log.warning("a pool sentence is too long to be found by its spans", extra={"where": sentence.where})
            else:
                short.append(place)
        # Sentences of similar length together, so that passes are filled evenly.
        short.sort(key=lambda place: len(context.pool.sentences[place].text))
        self._progress.start(f"asking {engine.name} for the spans of pool {context.pool.name}", len(short))
        for start in range(0, len(short), _BATCH):
            places = short[start : start + _BATCH]
            texts = [context.pool.sentences[place].text for place in places]
            proposed, _ = propose([Sentence(0, len(text), text) for text in texts], [engine], context)
            for place, found in zip(places, proposed, strict=True):
                surfaces[place] = found
            self._progress.advance(len(places))
        self._progress.done()
        return surfaces


class MissingMembers(PoolSurfaces):
    """In a process that does not retrieve, and so has not loaded the members that propose the pool's spans."""

    fingerprint = "models"

    @override
    def by_sentence(self) -> Sequence[Sequence[str]]:
        raise ConfigError(
            'retrieval.pool_spans = "models": the members that propose the spans of the pool are not loaded in this '
            'process, as it runs no extract; run extract here too, or set retrieval.pool_spans = "labelled"'
        )


def _is_whole(stored: object, sentences: int) -> bool:
    return (
        isinstance(stored, list)
        and len(stored) == sentences
        and all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in stored)
    )
