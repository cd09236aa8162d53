"""The forms in which a name may stand in a text, and documents that have them: for the tests of redaction."""

import html
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from urllib.parse import quote, quote_plus


def _in_latin_1(name: str) -> str:
    try:
        return quote(name.encode("latin-1"))
    except UnicodeEncodeError:
        return quote(name)


def _in_json(name: str) -> str:
    return json.dumps(name)[1:-1]


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda name: name,
    "capitals": str.upper,
    "small letters": str.lower,
    "decomposed": lambda name: unicodedata.normalize("NFD", name),
    "full width": lambda name: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name),
    "no accents": lambda name: "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c)),
    "zero width": "\u200b".join,
    "soft hyphens": "\u00ad".join,
    "joiners": lambda name: "\u2060".join(name) + "\ufeff",
    "hyphenated": lambda name: f"{name[:2]}-\n{name[2:]}",
    "hyphen and space": lambda name: f"{name[:2]}- {name[2:]}",
    "broken line": lambda name: name.replace(" ", "\n    > "),
    "genitive": lambda name: f"{name}'s",
    "genitive without a mark": lambda name: f"{name}s",
    "quoted": lambda name: f"„{name}“",
    "snake case": lambda name: name.replace(" ", "_"),
    "camel case": lambda name: "".join(word[:1].upper() + word[1:] for word in name.split()),
    "address": lambda name: f"{name.replace(' ', '.').lower()}@example.org",
    "host": lambda name: f"https://www.{name.replace(' ', '').lower()}.example/about?x=1",
    "path": lambda name: f"https://example.org/{quote(name)}/index.html",
    "query": lambda name: f"https://example.org/?q={quote_plus(name)}&lang=de",
    "encoded twice": lambda name: f"https://example.org/?next={quote(quote(name))}",
    "file": lambda name: f"C:\\files\\{name.replace(' ', '-').lower()}.pdf",
    "latin-1 in a path": lambda name: f"https://example.org/{_in_latin_1(name)}",
    "markup": lambda name: html.escape(name).encode("ascii", "xmlcharrefreplace").decode(),
    "JSON": json.dumps,
    # Before these a name's first letters look like an escape's: =AD, \n.
    "value of a query": lambda name: f"/s?q={quote(name.upper())}",
    "value of a form": lambda name: f"a=1&b={quote_plus(name.upper())}",
    "value in markup": lambda name: f"<a href='/s?q={name.upper().replace(' ', '&nbsp;')}'>",
    "value in JSON": lambda name: f'{{"entry": "by={_in_json(name.upper())}"}}',
    "directory": lambda name: f"C:\\files\\{quote(name.lower())}\\a.pdf",
    "directory in JSON": lambda name: f'{{"path": "C:\\\\files\\\\{_in_json(name.lower())}"}}',
    "capitals in a directory": lambda name: f"C:\\files\\{quote(name.upper())}",
    "mail": lambda name: "".join(c if c.isascii() else quote(c).replace("%", "=") for c in name),
    "small letters in mail": lambda name: "".join(
        c if c.isascii() else quote(c).replace("%", "=").lower() for c in name
    ),
    "octets": lambda name: repr(name.encode()),
    "code points": lambda name: "".join(f"\\u{{{ord(c):x}}}" for c in name),
    "long code points": lambda name: "".join(f"\\U{ord(c):08x}" for c in name),
    "old script": lambda name: "".join(f"%u{ord(c):04X}" for c in name),
    "numbers in markup": lambda name: "".join(f"&#{ord(c):09}" for c in name),
    "markup between": lambda name: "<b>" + name.replace(" ", "</b> <i>") + "</i>",
    "broken line in markup": lambda name: name.replace(" ", "<br>"),
    "break inside in markup": lambda name: f"{name[:2]}<wbr>{name[2:]}",
    "encoded four times": lambda name: quote(quote(quote(quote(name)))),
    "struck through": lambda name: "".join(f"{c}\u0336" for c in name),
    "hash tag": lambda name: "#" + name.replace(" ", ""),
    "spelled": " ".join,
}
"""By what is done to a name."""


def _words(listed: str) -> list[str]:
    return listed.split(" ")


GIVEN = _words(
    "Ada Jürgen Søren Łucja Zoë José Mei Anna Björk Omar Иван Ὀδυσσεύς François Maximilian Tove 小明 Nguyễn Ayşe"
)
FAMILY = _words(
    "Lovelace Müller Kierkegård Wałęsa O'Brien Núñez Petrov Merkel Großmann Yılmaz Ōe Dvořák Straße Young Li 李 Świątek"
)
FILLER = _words(
    "the board said that it would meet again on Monday to vote about new rules for towns near rivers Wir haben gestern "
    "lange gesprochen und nichts davon steht im Protokoll 2024 15 % — (see below) …"
)


@dataclass(frozen=True)
class PlantedName:
    """A name, where it was detected, and how else it stands in the text."""

    name: str
    start: int
    forms: tuple[str, ...]


def document(random: Random, *, names: int = 2, forms: int = 3) -> tuple[str, list[PlantedName]]:
    """A text with some names, each detected once and written in several forms beside."""
    pieces: list[tuple[str | None, str]] = []
    chosen = list(dict.fromkeys(f"{random.choice(GIVEN)} {random.choice(FAMILY)}" for _ in range(names)))
    written = {}
    for name in chosen:
        written[name] = tuple(FORMS[random.choice(list(FORMS))](name) for _ in range(forms))
        pieces += [(name, name), *((None, form) for form in written[name])]
    pieces += [(None, random.choice(FILLER)) for _ in range(15)]
    random.shuffle(pieces)
    text, starts = "", {}
    for name, piece in pieces:
        if name is not None:
            starts[name] = len(text)
        text += piece + " "
    return text, [PlantedName(name, starts[name], written[name]) for name in chosen]
