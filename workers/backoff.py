"""How long to wait before something is tried again: exponentially longer, with jitter, up to a bound."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """``first · 2ⁿ⁻¹`` seconds for the n-th retry, at most ``most``, of which a random share between a half and all is
    waited: clients that failed together do not come back together, and none comes back at once."""

    first: float = 0.1
    most: float = 10.0
    uniform: Callable[[float, float], float] = field(default=random.uniform, compare=False)

    def seconds(self, retry: int) -> float:
        """Before the ``retry``-th retry, counted from 1."""
        longest = min(self.most, self.first * 2.0 ** min(retry - 1, 32))
        return self.uniform(longest / 2, longest)
