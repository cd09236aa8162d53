"""Dead letters as the page shows them, and sends them again: by the code of ``el4ner dlq``. Blocking (kafka-python)."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from workers.config import StreamSettings
from workers.dead_letters.letters import Coordinates, Letter, Wanted
from workers.dead_letters.listing import find_letter, read_letters
from workers.dead_letters.replay import Replayed, plan_named, replay
from workers.ui.shown_documents import MOST_CHARS, shown_string
from workers.ui.text_pieces import text_pieces

__all__ = ["letter_list", "replay_letters", "replay_plan", "shown_letter"]

_LISTED: Final = 200
_LATEST_A_PARTITION: Final = 5_000
_MOST_HEADERS: Final = 50
_HEX_BYTES: Final = 1_024
_HEX_ROW: Final = 16


def letter_list(
    settings: StreamSettings, *, since_ms: int | None, codes: Collection[str], stages: Collection[str]
) -> dict[str, Any]:
    """The latest letters, latest first, and how many there are of each stage and code; looks at the latest 5,000 of
    each partition.

    Raises:
        DlqError: no broker, or no topic.
    """
    kinds: Counter[tuple[str, str]] = Counter()
    wanted = Wanted(codes=codes, stages=stages)

    def matching() -> Iterator[Letter]:
        for letter in read_letters(settings, since_ms=since_ms, latest=_LATEST_A_PARTITION):
            kinds[letter.stage or "?", letter.code or "?"] += 1
            if wanted.matches(letter):
                yield letter

    rows = heapq.nlargest(
        _LISTED, ((each.timestamp_ms, each.coordinates, _row(each)) for each in matching()), key=lambda row: row[:2]
    )
    return {
        "letters": [row for _, _, row in rows],
        "kinds": [
            {"stage": shown_string(stage), "code": shown_string(code), "count": count}
            for (stage, code), count in kinds.most_common(100)
        ],
        "most_listed": _LISTED,
        "most_looked_at": _LATEST_A_PARTITION,
    }


def shown_letter(settings: StreamSettings, coordinates: Coordinates) -> dict[str, Any]:
    """All of a letter: why, where from, headers and value (as text if it is text, else in hex).

    Raises:
        DlqError: it is not there; no broker.
    """
    letter = find_letter(settings, coordinates)
    value = letter.value
    shown: dict[str, Any] = {
        **_row(letter),
        "headers": [
            [shown_string(name), None if raw is None else shown_string(raw.decode("utf-8", "backslashreplace"))]
            for name, raw in islice(letter.headers, _MOST_HEADERS)
        ],
        "pieces": None,
        "hex": None,
        "cut_chars": 0,
    }
    if value is None:
        return shown
    try:
        text = value.decode()
    except UnicodeDecodeError:
        rows = range(0, min(len(value), _HEX_BYTES), _HEX_ROW)
        shown["hex"] = [[f"{at:06x}", value[at : at + _HEX_ROW].hex(" ")] for at in rows]
    else:
        shown["pieces"] = text_pieces(text[:MOST_CHARS], [])
        shown["cut_chars"] = max(0, len(text) - MOST_CHARS)
    return shown


def replay_plan(settings: StreamSettings, letters: Sequence[Coordinates]) -> dict[str, Any]:
    """What a replay of these letters would send, and what it would leave out.

    Raises:
        DlqError: one of them is not there; no broker.
    """
    plan = plan_named(settings, letters)
    return {
        "letters": [f"{partition}-{offset}" for partition, offset in plan.letters],
        "kinds": [
            {"stage": shown_string(stage), "code": shown_string(code), "topic": shown_string(topic), "count": count}
            for stage, code, topic, count in plan.counts()
        ],
        "repeated": plan.repeated,
        "foreign": {shown_string(topic): count for topic, count in plan.foreign.items()},
    }


def replay_letters(settings: StreamSettings, letters: Sequence[Coordinates]) -> list[dict[str, Any]]:
    """Send them again; where the broker has each now.

    Raises:
        DlqError: one of them is not there, or was not taken; no broker.
    """
    sent: list[Replayed] = []
    plan = plan_named(settings, letters)
    if plan.letters:
        replay(settings, read_letters(settings, only=plan.letters), delivered=sent.append)
    return [each.to_json() for each in sent]


def _row(letter: Letter) -> dict[str, Any]:
    return {name: shown_string(value) if isinstance(value, str) else value for name, value in letter.to_json().items()}
