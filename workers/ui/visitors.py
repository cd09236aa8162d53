"""Who asks: by a token, by a session that a token began, or by the word of an OpenID proxy; and what they may do."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from workers.config import UiSettings
from workers.http.refusals import is_bearer_of, is_local_host
from workers.security import bearer_token

__all__ = ["COOKIE", "Visitor", "VisitorRole", "Visitors"]

COOKIE: Final = "el4ner-session"
_SESSION_SECONDS: Final = 12 * 3600
_MOST_SESSIONS: Final = 1_000
_MOST_NAME: Final = 200


class VisitorRole(StrEnum):
    """A reader sees everything; a teacher may also change what the stream does."""

    READER = "reader"
    TEACHER = "teacher"


@dataclass(frozen=True, slots=True)
class Visitor:
    """``name``: as what they teach is signed. ``forgery_token``: what a page of ours sends with what changes anything;
    None: they show what no other site can have a browser send, so nothing can be forged."""

    name: str
    role: VisitorRole
    forgery_token: str | None


class Visitors:
    """Knows the tokens, and keeps the sessions (in memory: a restart ends them).

    Raises:
        ConfigError: a token file cannot be used.
    """

    def __init__(
        self,
        settings: UiSettings,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._key = random(32)
        self._sessions: OrderedDict[str, tuple[VisitorRole, float]] = OrderedDict()
        self._networks = [ipaddress.ip_network(network) for network in settings.proxy_addresses]
        tokens = {
            VisitorRole.TEACHER: bearer_token(settings.teacher_token, settings.teacher_token_file, "ui.teacher_token"),
            VisitorRole.READER: bearer_token(settings.reader_token, settings.reader_token_file, "ui.reader_token"),
        }
        self._tokens = {role: token for role, token in tokens.items() if token is not None}

    @property
    def takes_tokens(self) -> bool:
        """Whether people show a token, and not a proxy who they are."""
        return bool(self._tokens)

    def host_is_right(self, headers: Headers) -> bool:
        """Whether the page was asked for by a name that is its own."""
        if self._settings.hosts:
            return self._is_own_host(headers.get("host", ""))
        # Where nobody shows anything, another site's name may lead here.
        return self._tokens != {} or self._settings.proxy_user_header is not None or is_local_host(headers)

    def origin_is_right(self, headers: Headers) -> bool:
        """Whether a browser says that it sends this for our own page, and for no other site's."""
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        try:
            host = urlsplit(headers.get("origin", "")).netloc.lower()
        except ValueError:  # brackets around what is no address
            return False
        # A proxy may ask us by another name than browsers ask it.
        return host != "" and (host == headers.get("host", "").lower() or self._is_own_host(host))

    def who(self, headers: Headers, address: str) -> Visitor | None:
        """Who asks from this address; None: nobody who may."""
        if (header := self._settings.proxy_user_header) is not None:
            user = _name_in(headers.get(header, ""))
            if not user or len(user) > _MOST_NAME or len(headers.getlist(header)) != 1 or not self._is_proxy(address):
                return None
            role = VisitorRole.TEACHER if user in self._settings.teachers else VisitorRole.READER
            return Visitor(user, role, self._forgery_token(f"user:{user}"))
        if not self._tokens:
            return Visitor("local", VisitorRole.TEACHER, self._forgery_token("local"))
        for role, token in self._tokens.items():
            if is_bearer_of(headers, token):
                return Visitor(role.value, role, None)
        session = _session_of(headers)
        known = self._sessions.get(session)
        if known is None or known[1] < self._clock():
            self._sessions.pop(session, None)
            return None
        return Visitor(known[0].value, known[0], self._forgery_token(f"session:{session}"))

    def begin(self, token: str) -> str | None:
        """A session for whoever shows this token: what its cookie holds; None: it is none of ours."""
        shown = token.strip().encode()
        roles = [role for role, known in self._tokens.items() if hmac.compare_digest(shown, known.encode())]
        if not roles:
            return None
        session = self._random(32).hex()
        self._sessions[session] = (roles[0], self._clock() + _SESSION_SECONDS)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def end(self, headers: Headers) -> None:
        """The session of this request is over."""
        self._sessions.pop(_session_of(headers), None)

    def _is_own_host(self, host: str) -> bool:
        names = (host.lower(), host.lower().rpartition(":")[0])
        return any(name.lower() in names for name in self._settings.hosts)

    def _is_proxy(self, address: str) -> bool:
        try:
            client = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(client in network for network in self._networks)

    def _forgery_token(self, who: str) -> str:
        return hmac.new(self._key, who.encode(), hashlib.sha256).hexdigest()


def _name_in(header: str) -> str:
    """A proxy writes names in UTF-8; a header is read as Latin-1."""
    raw = header.strip(" \t").encode("latin-1", "replace")
    try:
        return raw.decode().strip()
    except UnicodeDecodeError:
        return header.strip()


def _session_of(headers: Headers) -> str:
    """Whatever cookies other services of this host have set beside it, well-formed or not."""
    for cookie in headers.get("cookie", "").split(";"):
        name, _, value = cookie.partition("=")
        if name.strip() == COOKIE:
            return value.strip().strip('"')
    return ""
