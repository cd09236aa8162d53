"""Which of several servers a request goes to: one that is well and has the least to do.

A server that fails rests for a while, twice as long each time; then a single request tries it. No network here:
:mod:`.transport` says what happened.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Router"]

_FIRST_REST: Final = 0.25
_LONGEST_REST: Final = 30.0
"""Seconds that a server is left alone after its first failure, and at most; by chance half as long again, or half."""
_MOST_DOUBLINGS: Final = 16


@dataclass(slots=True)
class _Server:
    most: int
    outstanding: int = 0
    failures: int = 0
    rests_until: float = float("-inf")

    @property
    def room(self) -> int:
        """Requests that it may get at the same time: one that failed and has rested is tried by one, whatever waits."""
        return 1 if self.failures else self.most


class Router:
    """For threads.

    Args:
        servers: how many there are.
        most: requests that may be on their way to each.
        clock: seconds.
        chance: between 0 and 1, so that many clients do not come back at the same moment.
    """

    def __init__(
        self, servers: int, most: int, clock: Callable[[], float], chance: Callable[[], float] = random.random
    ) -> None:
        if servers < 1 or most < 1:
            raise ValueError("there has to be a server, and a request to it")
        self._servers = [_Server(most) for _ in range(servers)]
        self._clock = clock
        self._chance = chance
        self._changed = threading.Condition()
        self._closed = False

    def limit(self, index: int, most: int) -> None:
        """Let one server have fewer requests at a time."""
        with self._changed:
            self._servers[index].most = max(1, min(most, self._servers[index].most))

    def take(self, *, home: int | None = None, hint: int = 0, timeout: float | None = None) -> int | None:
        """The server for the next request, which counts as on its way until :meth:`done`.

        None if all rest, if none had room in ``timeout`` seconds, or after :meth:`close`.

        Args:
            home: the server that knows the prompt: it is taken if it is well and has room, however much it has to do.
            hint: of servers that have equally little to do, requests with the same hint get the same one.
            timeout: 0 does not wait; None waits while there is a server that does not rest.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._choose(home, hint) is not None or self._all_rest(), timeout
            )
            index = None if self._closed else self._choose(home, hint)
            if index is not None:
                self._servers[index].outstanding += 1
            return index

    def done(self, index: int, *, ok: bool, rest: float = 0.0) -> bool:
        """A request came back: with an answer, or with what says that the server is not well, for ``rest`` seconds at
        the least. Says whether this is a failure that was not known yet: many requests fail with a server at once."""
        with self._changed:
            self._servers[index].outstanding -= 1
            new = self._note(self._servers[index], ok, rest)
            self._changed.notify_all()
            return new

    def failed(self, index: int) -> None:
        """A server is not well, as something else than a request has shown."""
        with self._changed:
            self._note(self._servers[index], False, 0.0)

    def on_trial(self, index: int) -> bool:
        """Whether the last that was heard of a server is that it is not well."""
        with self._changed:
            return self._servers[index].failures > 0

    def rest(self) -> float:
        """Seconds until the first server may be asked again; 0 if one may be now."""
        with self._changed:
            return max(0.0, min(server.rests_until for server in self._servers) - self._clock())

    def close(self) -> None:
        """Nobody waits any more, and nobody gets a server."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _note(self, server: _Server, ok: bool, at_least: float) -> bool:
        if ok:
            server.failures, server.rests_until = 0, float("-inf")
            return False
        now = self._clock()
        new = server.rests_until <= now
        rest = min(at_least, _LONGEST_REST)
        if new:
            doubled = _FIRST_REST * 2 ** min(server.failures, _MOST_DOUBLINGS) * (0.5 + self._chance())
            rest = min(_LONGEST_REST, max(rest, doubled))
            server.failures += 1
        server.rests_until = max(server.rests_until, now + rest)
        return new

    def _all_rest(self) -> bool:
        now = self._clock()
        return all(server.rests_until > now for server in self._servers)

    def _choose(self, home: int | None, hint: int) -> int | None:
        now = self._clock()
        servers, count = self._servers, len(self._servers)
        free = [index for index, one in enumerate(servers) if one.rests_until <= now and one.outstanding < one.room]
        if home in free and not servers[home].failures:
            return home
        # Of those that have as little to do, first one that is well: a trial costs the request some time.
        return min(
            free,
            key=lambda index: (servers[index].outstanding, servers[index].failures > 0, (index - hint) % count),
            default=None,
        )
