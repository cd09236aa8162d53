"""How dead letters are shown: in tables for people, as JSON Lines for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.text import Text

from workers.cli.moments import shown_moment
from workers.cli.options import OutputFormat
from workers.cli.output import complain, results, table, tell
from workers.cli.standard_output import results_file
from workers.printable import legible

if TYPE_CHECKING:
    from workers.dead_letters.letters import Letter, ReplayPlan

__all__ = [
    "LetterCounts",
    "messages",
    "show_kinds",
    "show_left_out",
    "show_letter",
    "show_plan",
    "show_rows",
    "shown_bytes",
    "write_line",
]

_SHOWN_BYTES: Final = 16 * 1024
_SHOWN_CHARS: Final = 120


class LetterCounts:
    """How many letters of one stage and code, and when."""

    def __init__(self) -> None:
        self.letters = 0
        self.replayed = 0
        self.first = sys.maxsize
        self.last = -1

    def add(self, letter: Letter) -> None:
        """Count a letter."""
        self.letters += 1
        self.replayed += letter.replay.count > 0
        self.first = min(self.first, letter.timestamp_ms)
        self.last = max(self.last, letter.timestamp_ms)


def write_line(line: dict[str, Any], out: TextIO | None = None) -> None:
    """A line of JSON on standard output, or on ``out``."""
    from el4ner.serialize import dumps

    out = out or results_file()
    out.write(dumps(line).decode() + "\n")
    out.flush()


def show_rows(rows: list[dict[str, Any]], output: OutputFormat, all_of_them: int) -> None:
    """A row for each letter, and how many of ``all_of_them`` these are."""
    if output is OutputFormat.JSON:
        for row in rows:
            write_line(row)
        return
    shown = table("letter", "written", "stage", "code", "document", "from", "replays", "message", right=["replays"])
    for row in rows:
        shown.add_row(
            row["letter"],
            shown_moment(row["written_at"]),
            _cell(row["stage"]),
            _cell(row["code"]),
            _cell(row["document"]),
            _cell(None if row["topic"] is None else f"{row['topic']}-{row['partition']}-{row['offset']}"),
            str(row["replays"]),
            _cell(row["message"]),
        )
    if rows:
        results().print(shown)
    if len(rows) < all_of_them:
        tell(f"the latest {len(rows)} of {all_of_them}; --limit shows more")


def show_kinds(kinds: dict[tuple[str, str], LetterCounts], output: OutputFormat) -> None:
    """How many letters there are of each stage and code, the most frequent first."""
    shown = table("stage", "code", "letters", "failed again", "first", "last", right=["letters", "failed again"])
    for (stage, code), kind in sorted(kinds.items(), key=lambda item: (-item[1].letters, item[0])):
        if output is OutputFormat.JSON:
            write_line(
                {
                    "stage": stage,
                    "code": code,
                    "letters": kind.letters,
                    "failed_again": kind.replayed,
                    "first": kind.first,
                    "last": kind.last,
                }
            )
        else:
            times = (shown_moment(kind.first), shown_moment(kind.last))
            shown.add_row(_cell(stage), _cell(code), str(kind.letters), str(kind.replayed), *times)
    if output is OutputFormat.TEXT:
        results().print(shown)


def show_letter(letter: Letter) -> None:
    """All that one letter says: why, where from, and the message itself."""
    console = results()
    about = table("", "")
    about.show_header = False
    about.add_row("dead letter", letter.id)
    about.add_row("written", shown_moment(letter.timestamp_ms))
    about.add_row("first failed", shown_moment(letter.first_failed_at_ms))
    for name, value in letter.reasons.items():
        about.add_row(_cell(f"el4ner-{name}"), _cell(value, cut=False))
    about.add_row("key", _cell(shown_bytes(letter.key), cut=False))
    console.print(about)
    console.print("\noriginal headers:" if letter.headers else "\nno original headers")
    for name, raw in letter.headers:
        console.print(Text(f"  {legible(name)}: {legible(str(shown_bytes(raw)))}"))
    if letter.value is None:
        console.print("\nno value (it is a deletion)")
        return
    console.print(f"\nvalue, {len(letter.value)} bytes:")
    console.print(Text(_value_shown(letter.value)))
    if len(letter.value) > _SHOWN_BYTES:
        tell(f"the first {_SHOWN_BYTES} bytes of it; --raw writes all")


def _value_shown(value: bytes) -> str:
    """As text if all of it is, otherwise in hex, sixteen bytes a line."""
    try:
        value.decode()
    except UnicodeDecodeError:
        head = value[:_SHOWN_BYTES]
        lines = (head[at : at + 16] for at in range(0, len(head), 16))
        return "\n".join(f"{number * 16:08x}  {line.hex(' ')}" for number, line in enumerate(lines))
    # Cut between characters.
    return legible(value[:_SHOWN_BYTES].decode("utf-8", "ignore"))


def show_plan(plan: ReplayPlan, output: OutputFormat) -> None:
    """What a replay would send where."""
    shown = table("stage", "code", "back to", "messages", right=["messages"])
    for stage, code, topic, count in plan.counts():
        if output is OutputFormat.JSON:
            write_line({"stage": stage, "code": code, "topic": topic, "messages": count})
        else:
            shown.add_row(_cell(stage), _cell(code), _cell(topic), str(count))
    if output is OutputFormat.TEXT:
        results().print(shown)


def show_left_out(plan: ReplayPlan) -> None:
    """What a replay passes over, and why."""
    for count, why in (
        (plan.done, "sent before, says the journal"),
        (plan.superseded, "replayed before; the letters that came of it stand for them"),
        (plan.repeated, "about a message that a later letter is about too"),
    ):
        if count:
            tell(f"passed over: {count} {why}")
    for topic, count in plan.foreign.items():
        complain(
            f"{count} not sent: no stage of this pipeline reads {topic!r}, which they say they came from",
            severity="warning",
        )


def messages(count: int) -> str:
    """``1 message``, ``2 messages``."""
    return "1 message" if count == 1 else f"{count} messages"


def shown_bytes(raw: bytes | None) -> str | None:
    """As text; bytes that are none as escapes."""
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


def _cell(text: str | None, *, cut: bool = True) -> Text:
    """What came from anywhere, on one line."""
    if text is None:
        return Text("-")
    clean = legible(text).replace("\n", " ").replace("\t", " ")
    return Text(clean if len(clean) <= _SHOWN_CHARS or not cut else clean[: _SHOWN_CHARS - 1] + "…")
