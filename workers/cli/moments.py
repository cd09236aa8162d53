"""Points in time as people give them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["parse_moment", "shown_moment"]

_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_moment(text: str, *, now: datetime) -> int:
    """Milliseconds since the epoch of ``2h`` (ago; s, m, h, d) or an ISO 8601 time, which is UTC unless it says else.

    Raises:
        ValueError: it is neither.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        moment = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no time: expected 30m, 2h, 7d or 2026-11-23T14:00") from error
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def shown_moment(milliseconds: int) -> str:
    """``2026-11-23T14:00:00Z``; ``-`` for a time that is not known."""
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError):
        return "-"
    return "-" if milliseconds < 0 else moment.isoformat(timespec="seconds").replace("+00:00", "Z")
