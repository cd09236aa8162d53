"""How many examples a test draws that does not leave it to the profile of Hypothesis."""

from __future__ import annotations

from hypothesis import settings


def examples(number: int) -> int:
    """``number`` where tests draw 100 by default; in proportion where the profile says otherwise, and five at least."""
    return max(number * settings().max_examples // 100, min(number, 5))
