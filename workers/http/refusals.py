"""What of a request is refused before anything else is looked at, whatever it asks for."""

from __future__ import annotations

import hmac
import re
from typing import Final

from starlette.datastructures import Headers

from workers.http.problems import ProblemError

__all__ = ["framing_problem", "is_bearer_of", "is_local_host"]

_LOCAL_HOST: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)


def framing_problem(headers: Headers) -> ProblemError | None:
    """A proxy that goes by the other one of the two would see other requests in what follows."""
    if "transfer-encoding" not in headers or "content-length" not in headers:
        return None
    detail = "the request has both Content-Length and Transfer-Encoding: send one of the two"
    return ProblemError(400, "framing", detail, headers={"Connection": "close"})


def is_local_host(headers: Headers) -> bool:
    """Whether the request was made to this machine's own name. A page of another site can have its own name lead to
    this machine, and ask in a browser's name."""
    return _LOCAL_HOST.fullmatch(headers.get("host", "")) is not None


def is_bearer_of(headers: Headers, token: str) -> bool:
    """Whether the request shows this token (RFC 6750)."""
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(shown.strip().encode("latin-1", "replace"), token.encode())
    return scheme.lower() == "bearer" and right
