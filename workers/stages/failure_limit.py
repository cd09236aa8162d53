"""Prevents that every document goes to the dead letters when something is broken or misconfigured.

A broken model, a wrong configuration or a producer of something else than documents makes every document fail. Those
documents are not poison: somebody mends the cause, and then they can be processed. So the worker ends when too many
documents fail in a row, or too large a share of them. It does not give up on the documents that reached the limit: they
stay in their topic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from el4ner.errors import El4nerError

__all__ = ["FailureLimit", "TooManyFailuresError"]

WINDOW: Final = 500
"""Documents that the share is taken over; it counts when so many were seen."""


class TooManyFailuresError(El4nerError):
    """Documents fail one after another: the worker stops before it gives up on more of them."""

    code = "too-many-failures"


class FailureLimit:
    """Counts results and failures in the order of their answers.

    Args:
        run: the worker stops at so many failures in a row.
        share: the worker stops when more than this share of the last :data:`WINDOW` documents failed.
    """

    def __init__(self, *, run: int, share: float) -> None:
        self._run = run
        self._share = share
        self._in_a_row = 0
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._failed = 0

    def check(self, codes: Sequence[str | None]) -> None:
        """Count answers that are about to be delivered: an error's code, or None for a result.

        Raises:
            TooManyFailuresError: none of them may be delivered.
        """
        for code in codes:
            failed = code is not None
            self._in_a_row = self._in_a_row + 1 if failed else 0
            if len(self._last) == WINDOW:
                self._failed -= self._last[0]
            self._last.append(failed)
            self._failed += failed
            self._raise_above_the_limits(code)

    def amend(self, code: str) -> None:
        """Count as a failure what was counted as a result a moment ago: its answer could not be delivered.

        Raises:
            TooManyFailuresError: the failure may not be delivered either.
        """
        for index in reversed(range(len(self._last))):
            if not self._last[index]:
                self._last[index] = True
                self._failed += 1
                break
        self._in_a_row += 1
        self._raise_above_the_limits(code)

    def _raise_above_the_limits(self, code: str | None) -> None:
        if self._in_a_row >= self._run:
            raise TooManyFailuresError(
                f"{self._in_a_row} documents in a row failed, the last one with code {code!r}: mend the cause and "
                "start the worker again (worker.max_failure_run is the limit); what was not told is tried again"
            )
        if len(self._last) == WINDOW and self._failed > self._share * WINDOW:
            raise TooManyFailuresError(
                f"{self._failed} of the last {WINDOW} documents failed, the last one with code {code!r}: mend the "
                "cause and start the worker again (worker.max_failure_share is the limit)"
            )
