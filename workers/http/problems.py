"""What is wrong with a request, as RFC 9457 has it: ``application/problem+json``, with a stable code."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

from el4ner.errors import El4nerError
from el4ner.serialize import dumps

__all__ = ["CLIENT_GONE", "ProblemError", "problem_response"]

CLIENT_GONE: Final = 499
"""The client closed the connection: nobody reads the answer, and metrics and logs show this status."""


class ProblemError(El4nerError):
    """A request cannot be answered as asked.

    Args:
        status: of the answer.
        code: stable, kebab-case.
        detail: what is wrong, where, and how to mend it. For the client alone: it may quote the request.
        headers: of the answer.
        more: further members of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail, code=code)
        self.status = status
        self.headers = dict(headers or {})
        self.more = dict(more or {})


def problem_response(problem: ProblemError) -> Response:
    """The answer that says so."""
    title = "Client Closed Request" if problem.status == CLIENT_GONE else HTTPStatus(problem.status).phrase
    body = {"title": title, "status": problem.status, "code": problem.code, "detail": str(problem), **problem.more}
    return Response(dumps(body), problem.status, problem.headers, "application/problem+json")
