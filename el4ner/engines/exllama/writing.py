"""Writing answers: as many at a time as there is room for, further ones as soon as others are finished."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from el4ner.engines.base import GenerateRequest, GenerateResult
from el4ner.engines.constraint import TokenMask
from el4ner.engines.exllama.backend import Backend, DecodeJob, JobProgress
from el4ner.engines.exllama.limits import BatchLimit, CallLimit, FaultRecovery
from el4ner.errors import El4nerError
from el4ner.types import Usage

__all__ = ["JobAnswer", "write"]

log = logging.getLogger(__name__)


class JobAnswer:
    """An answer in the making. ``mask`` makes a new mask each time that the answer is begun."""

    def __init__(
        self,
        number: int,
        request: GenerateRequest,
        prompt: tuple[int, ...],
        end_tokens: frozenset[int],
        mask: Callable[[], TokenMask] | None,
    ) -> None:
        self.number = number
        self.request = request
        self.prompt = prompt
        self._end_tokens = end_tokens
        self._mask = mask
        self._made: TokenMask | None = None
        self._tokens: list[int] = []
        self._cached = 0
        self._new = 0
        self._text = ""
        self._ended = False

    def begin(self) -> DecodeJob:
        """The job, from its beginning: what was written before is forgotten."""
        self._tokens.clear()
        self._made = self._mask() if self._mask is not None else None
        return DecodeJob(self.number, self.prompt, self.request.max_new_tokens, self._end_tokens, self._made)

    def take(self, progress: JobProgress, decode: Callable[[list[int]], str]) -> bool:
        """Take in what was written; whether a stop string or the mask ends it, so that the job is to be cancelled."""
        self._tokens += progress.tokens
        whole = self._made is not None and self._made.finished  # only the end could follow
        self._text = decode(self._tokens) if progress.finished or self.request.stop or whole else ""
        cut = self.request.cut(self._text)
        if cut is not None:
            self._text = cut
            whole = True
        self._ended = whole or progress.finished == "end"
        self._cached = progress.cached_tokens
        self._new = len(self._tokens) + (progress.finished == "end")
        return whole and progress.finished is None

    def cancelled(self, cached: int) -> None:
        """The job is gone; ``cached`` tokens of its prompt had been found."""
        self._cached = min(cached, len(self.prompt) - 1)

    def result(self) -> GenerateResult:
        """When it is finished."""
        return GenerateResult(self._text, self._ended, Usage(len(self.prompt), self._cached, self._new))


def write(
    name: str,
    answers: Sequence[JobAnswer],
    backend: Backend,
    decode: Callable[[list[int]], str],
    call_limit: CallLimit,
    batch_limit: BatchLimit,
) -> None:
    """Write all answers.

    When memory runs out, or the library fails once, the backend is started anew, and answers that are not finished are
    begun again; those that are finished, or wait, are not touched.

    Raises:
        EngineError: the call took too long, or the library failed twice.
        EngineOutOfMemoryError: there is not even memory for one answer.
    """
    waiting = deque(answers)
    running: dict[int, JobAnswer] = {}
    recovery = FaultRecovery(name, backend, batch_limit, "answer", log)
    while waiting or running:
        try:
            call_limit.check()
            while waiting and len(running) < batch_limit.now:
                answer = waiting.popleft()
                running[answer.number] = answer
                backend.enqueue(answer.begin())
            for progress in backend.step():
                answer = running[progress.number]
                if answer.take(progress, decode):
                    answer.cancelled(backend.cancel(progress.number))
                    del running[progress.number]
                elif progress.finished:
                    del running[progress.number]
        except El4nerError:
            for number in running:
                backend.cancel(number)
            raise
        except Exception as error:
            recovery.recover(error)
            waiting.extendleft(reversed(running.values()))
            running.clear()
    batch_limit.passed()
