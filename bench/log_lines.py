"""Labelled log lines, made from phrasings with slots and lists of values by a seed.

    python bench/log_lines.py [--lines 4] [--seed 0] > bench/data/logs/lines.jsonl

Each phrasing of `data/logs/templates.txt` gives `--lines` lines (for a stream of repeats ask for more). Phrasings and
values are divided in two halves, `dev` and `test`, that share none of them (addresses, times and numbers are drawn): a
half says nothing of the other one but the formats, and every format is in both. A line of the output has `text`,
`spans` in the pool's types, `format`, `seen` (whether lines of that format are in the shipped pool), `half` and
`phrasing`, the number of its template.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tomllib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).parent / "data" / "logs"
HALVES = ("dev", "test")
SLOT = re.compile(r"\{([a-z][a-z0-9\-]*)\}")
PIECE = re.compile(r"\{([a-z][a-z0-9\-]*)\}|\[\[([^|\]]*)\|([a-z\-]+)\]\]")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
TYPES = {"ip": "ip-address", "ip6": "ip-address", "mac": "mac-address", "uuid": "uuid"}  # of what is drawn


class Phrasing(NamedTuple):
    number: int
    format: str
    seen: bool
    half: str
    template: str


class Values:
    """What stands in slots: one of a list's values of a half, or drawn."""

    def __init__(self, lists: dict[str, Any], half: str, rng: random.Random) -> None:
        self.rng = rng
        self.types = {name: table.get("type") for name, table in lists.items()} | TYPES
        self.lists = {name: half_of(table["values"], half) for name, table in lists.items()}
        self.drawn = drawn(rng)

    def fill(self, slot: str) -> str:
        if slot in self.drawn:
            return self.drawn[slot]()
        return SLOT.sub(lambda inner: self.fill(inner.group(1)), self.rng.choice(self.lists[slot]))


def half_of(items: list[str], half: str) -> list[str]:
    """Every other item, in an order by hash: nobody chose which."""
    return sorted(items, key=lambda item: sha256(item.encode()).digest())[HALVES.index(half) :: 2]


def drawn(rng: random.Random) -> dict[str, Callable[[], str]]:
    def number(low: int, high: int, form: str = "d") -> Callable[[], str]:
        return lambda: format(rng.randint(low, high), form)

    def hexadecimal(digits: int) -> str:
        return format(rng.getrandbits(4 * digits), f"0{digits}x")

    def clock(fraction: str = "") -> str:
        return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}{fraction}"

    def thousandths() -> str:
        return format(rng.randint(0, 999), "03")

    def day() -> str:
        return f"2025-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"

    def month_day(form: str = ">2") -> str:
        return f"{rng.choice(MONTHS)} {rng.randint(1, 28):{form}}"

    def ip4() -> str:
        first = rng.choice(("10.", "192.168.", "172.16.", f"{rng.randint(11, 223)}.{rng.randint(0, 255)}."))
        rest = 3 if first == "10." else 2
        return first + ".".join(str(rng.randint(1, 254)) for _ in range(rest))

    def ip6() -> str:
        return rng.choice(
            ("2001:db8:{:x}::{:x}", "fe80::{:x}:{:x}", "2001:db8:0:{:x}::{:x}", "fd00:{:x}::{:x}")
        ).format(rng.randint(1, 0xFFFF), rng.randint(1, 0xFFFF))

    def mac() -> str:
        return rng.choice(":::-").join(hexadecimal(2) for _ in range(6))

    def uuid() -> str:
        return "-".join(hexadecimal(digits) for digits in (8, 4, 4, 4, 12))

    def clf(fraction: str = "") -> str:
        return f"{rng.randint(1, 28):02}/{rng.choice(MONTHS)}/2025:{clock(fraction)}"

    return {
        "n": number(10, 99_999),
        "d": number(1, 9),
        "pid": number(300, 32_000),
        "port": number(1_024, 65_000),
        "a": number(11, 223),
        "b": number(0, 255),
        "c": number(0, 255),
        "d8": number(1, 254),
        "a3": number(11, 223, "03"),
        "b3": number(0, 255, "03"),
        "c3": number(0, 255, "03"),
        "d3": number(1, 254, "03"),
        "x": lambda: hexadecimal(2),
        "hex": lambda: hexadecimal(12),
        "blk": lambda: rng.choice(("", "-")) + str(rng.getrandbits(62)),
        "queue": lambda: hexadecimal(10).upper(),
        "eximid": lambda: f"1t{hexadecimal(4).upper()}-000{hexadecimal(3).upper()}-{hexadecimal(2).upper()}",
        "ip": ip4,
        "ip4": ip4,
        "ip6": ip6,
        "mac": mac,
        "uuid": uuid,
        "year": lambda: "2025",
        "wday": lambda: rng.choice(WEEKDAYS),
        "syslog": lambda: f"{month_day()} {clock()}",
        "iso": lambda: f"{day()}T{clock('.' + thousandths())}Z",
        "iso-space": lambda: f"{day()} {clock('.' + thousandths())}",
        "iso-space-s": lambda: f"{day()} {clock()}",
        "iso-comma": lambda: f"{day()} {clock(',' + thousandths())}",
        "hdfs": lambda: f"25{rng.randint(1, 12):02}{rng.randint(1, 28):02} {clock().replace(':', '')}",
        "clf": lambda: f"{clf()} +0{rng.randint(0, 9)}00",
        "clf-ms": lambda: clf("." + thousandths()),
        "adate": lambda: f"{rng.choice(WEEKDAYS)} {month_day('02')} {clock()} 2025",
        "ndate": lambda: f"{day().replace('-', '/')} {clock()}",
        "snort": lambda: f"{rng.randint(1, 12):02}/{rng.randint(1, 28):02}-{clock('.' + thousandths() + '000')}",
        "epoch": lambda: f"17{rng.randint(10_000_000, 59_999_999)}.{thousandths()}",
        "unix": lambda: f"17{rng.randint(10_000_000, 59_999_999)}",
    }


def phrasings(text: str) -> list[Phrasing]:
    """The templates, those of a format divided by turns in an order by hash."""
    formats: dict[tuple[str, bool], list[tuple[int, str]]] = {}
    of_format: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines()):
        if line.startswith("== "):
            _, name, seen = line.split()
            of_format = formats.setdefault((name, seen == "seen"), [])
        elif line and not line.startswith("#"):
            of_format.append((number, line))
    return [
        Phrasing(number, name, seen, half, template)
        for (name, seen), templates in formats.items()
        for half in HALVES
        for number, template in sorted(templates)
        if template in half_of([each for _, each in templates], half)
    ]


def labelled(template: str, values: Values) -> tuple[str, list[dict[str, Any]]]:
    """A line of the template: its text and its spans."""
    text, done, spans = "", 0, []
    for piece in PIECE.finditer(template):
        text += template[done : piece.start()]
        slot, literal, label = piece.groups()
        surface = literal if slot is None else values.fill(slot)
        label = label or values.types.get(slot)
        if label:
            spans.append({"start": len(text), "end": len(text) + len(surface), "type": label, "text": surface})
        text, done = text + surface, piece.end()
    return text + template[done:], spans


def lines(count: int, seed: int) -> Iterator[dict[str, Any]]:
    lists = tomllib.loads((DATA / "values.toml").read_text(encoding="utf-8"))
    texts: set[str] = set()
    for phrasing in phrasings((DATA / "templates.txt").read_text(encoding="utf-8")):
        values = Values(lists, phrasing.half, random.Random(f"{seed} {phrasing.number}"))
        for _ in range(count):
            text, spans = labelled(phrasing.template, values)
            if text not in texts:
                texts.add(text)
                yield {"text": text, "spans": spans} | {
                    name: getattr(phrasing, field)
                    for name, field in (
                        ("format", "format"),
                        ("seen", "seen"),
                        ("half", "half"),
                        ("phrasing", "number"),
                    )
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=4, help="of each phrasing")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for line in lines(options.lines, options.seed):
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
