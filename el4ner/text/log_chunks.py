"""Span proposals for log lines: what is a thing by its form or by the place it stands in.

A line is read as forms first (times, addresses, URLs, quantities: always whole, never cut at their colons), then as
fields between white space, quotes, brackets, ``=`` and commas, which are taken apart further where they are compounds
(``host:port``, ``user@host``, ``node/ip``). A plain word is proposed only where the line's structure gives it a part:
as a value, in quotes or brackets of its own, in the header, or after a word that introduces a name. The words of the
message itself are not: each proposal costs a model time.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from el4ner.text.log_patterns import IPV4, IPV6_FORM, MAC, QUANTITY, TIMESTAMP, URL, UUID, WINDOWS_PATH, is_ipv6
from el4ner.text.log_words import HEADER_TIME, METHODS, OPENING, PROTOCOL, is_name
from el4ner.text.words import Chunk, function_words
from el4ner.types import Span

__all__ = ["log_chunks"]

_REQUEST = r"(?<![^\s\"'=])/[^\s\"'<>?]*\?[^\s\"'<>]*"
_SCAN = re.compile(
    rf"(?P<time>{TIMESTAMP})|(?P<url>{URL})|(?P<windows>{WINDOWS_PATH})|(?P<mac>{MAC})|(?P<uuid>{UUID})"
    rf"|(?P<ipv6>{IPV6_FORM}(?:/\d{{1,3}}(?!\w))?)|(?P<quantity>{QUANTITY})|(?P<request>{_REQUEST})"
    # An apostrophe between letters (can't) is no quote.
    r"|(?P<field>(?:[^\s\"'`(){}<>\[\],;|=^]|(?<=[a-z])'(?=[a-z]))+)"
)
_IPV4 = re.compile(IPV4)
_PREFIX_LENGTH = re.compile(r"/\d{1,2}(?!\w)")
_URL_HOST = re.compile(r"://(?:[^/@\s]*@)?(?:\[([0-9A-Fa-f:.]+)\]|([^/:?#,\s\[\]]+))")
_QUOTED = re.compile(r"(?<=[=:])\s?([\"'])([^\"']+)\1")
_KEY_END = re.compile(r"[\"']\s?:")
_NUMBERS = re.compile(r"[\d./:\-]+")
_VERSION = re.compile(r"[vV]?\d[\w\-+]*(?:\.[\w\-+]+)+|latest")
_CAPITALISED = re.compile(r"(?<![\w./\\\-])[A-Z][a-z]+(?: [A-Z][a-z]+)+(?![\w./\\\-])")

# What no client of the protocol sent, written out: "\\x16\\x03\\x01".
_BYTES = re.compile(r"^\\x[0-9A-Fa-f]{2}|(?:\\x[0-9A-Fa-f]{2}){2}")

_EDGES = ".,:;!?*#&$%+-"
MAX_QUOTED_WORDS = 4


def log_chunks(line: str) -> list[Chunk]:
    """The proposals for one log line, in no order; a span may stand there twice."""
    return [
        Chunk(Span(start, end, line[start:end]), proper=not line[start:end].isalpha() or not line[start:end].islower())
        for start, end in _LineReader(line).spans()
    ]


class _LineReader:
    """One line, read from left to right. ``before`` is the word before a field; ``header`` holds until the message."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.before = ""
        self.header = True
        self.after_first = False  # whether the word before the field is the one behind the line's time
        self.forms: list[tuple[int, int]] = []

    def spans(self) -> Iterator[tuple[int, int]]:
        for token in _SCAN.finditer(self.line):
            start, end = token.span()
            match token.lastgroup:
                case "url":
                    yield from self.url(start, end)
                case "ipv6":
                    yield from self.ipv6(start, end)
                case "windows":
                    yield start, start + len(token.group().rstrip(".:"))
                case "field":
                    yield from self.field(start, end)
                case kind:
                    yield start, end
                    self.forms.append((start, end))
                    # What follows the time at the beginning of a line is its host, its level or its thread.
                    self.before = HEADER_TIME if kind == "time" and self.header else ""
        yield from self.phrases()

    def ipv6(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What may be an address, with its prefix length or with a colon behind it; if it is none, a field."""
        address, slash, _ = self.line[start:end].partition("/")
        if not is_ipv6(address):
            address = address.removesuffix(":")
        if not is_ipv6(address):
            yield from self.field(start, end)
            return
        if slash:
            yield start, end
        yield start, start + len(address)
        self.before = ""

    def url(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A URL without the punctuation behind it, and its host."""
        surface = self.line[start:end].rstrip(".,;:!?)]")
        if surface.count("(") > surface.count(")") and self.line.startswith(")", start + len(surface)):
            surface += ")"
        yield start, start + len(surface)
        host = _URL_HOST.search(self.line, start, start + len(surface))
        if host:
            yield host.span(host.lastindex or 0)
        self.before = ""

    def phrases(self) -> Iterator[tuple[int, int]]:
        """What is a name of several words: a short quoted value, and words with capitals one after the other."""
        for match in _QUOTED.finditer(self.line):
            if 2 <= len(match.group(2).split()) <= MAX_QUOTED_WORDS and match.group(2) == match.group(2).strip():
                yield match.span(2)
        for match in _CAPITALISED.finditer(self.line):
            start, end = match.span()
            while self.line[start:end].split(" ")[0].lower() in function_words() and " " in self.line[start:end]:
                start += self.line[start:end].index(" ") + 1
            if " " in self.line[start:end] and all(end <= first or last <= start for first, last in self.forms):
                yield start, end

    def field(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        following = self.line[end : end + 1]
        if following == "=" or self.is_key(start, end):
            self.before = self.line[start:end].lower()  # a key: names its value
            self.header = False
            return
        yield from self.part(start, end)
        self.after_first = self.before == HEADER_TIME
        word = self.line[start:end]
        self.before = word.strip(_EDGES).lower() or word
        if word.endswith(":") or following in OPENING or word.islower():
            self.header = self.header and not word.endswith(":")

    def is_key(self, start: int, end: int) -> bool:
        """Whether the field is the key of a JSON object, and not a quoted word before a colon (user "ada": failed)."""
        if not (self.line[start:end].isidentifier() and _KEY_END.match(self.line, end)):
            return False
        return self.line[max(0, start - 4) : start - 1].rstrip()[-1:] in ("", "{", ",", "[", "\\")

    def part(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A field or a piece of one, stripped and taken apart."""
        start, end = self.stripped(start, end)
        # A loop, and no recursion: there may be hundreds of addresses in a field.
        while (address := _IPV4.search(self.line, start, end)) and "@" not in self.line[start:end]:
            rest = yield from self.around(address.start(), address.end(), start, end)
            if rest >= end:
                return
            start, end = self.stripped(rest, end)
        surface = self.line[start:end]
        if surface == "/" and self.before.upper() in METHODS:
            yield start, end
        if not any(character.isalnum() for character in surface) or PROTOCOL.fullmatch(surface):
            return
        if surface.startswith(("/", "~/", "./", "../")):
            yield start, start + len(re.sub(r"(?::\d+)+$", "", surface))
        elif "@" in surface[1:]:
            yield start, end
            yield from self.split("@", start, end)
        elif _BYTES.search(surface):
            return
        elif "\\" in surface:
            yield start, end
            yield from self.split("\\", start, end)
        elif ":" in surface:
            head, _, tail = surface.rpartition(":")
            if tail.isdigit() and is_ipv6(head):  # a port that is too long to be a part of the address
                yield start, start + len(head)
                return
            if _VERSION.fullmatch(tail) or surface.count(":") > 2:
                yield start, end
            yield from self.split(":", start, end)
        elif "#" in surface:
            yield from self.split("#", start, end)
        elif "/" in surface:
            yield from self.slashes(start, end)
        elif is_name(self.line, start, end, before=self.before, in_header=self.header, after_first=self.after_first):
            yield start, end

    def around(self, start: int, end: int, first: int, last: int) -> Generator[tuple[int, int], None, int]:
        """An IPv4 address inside a field: itself, with its prefix length if it has one, and what is before it; returns
        where what is behind it begins."""
        yield start, end
        network = _PREFIX_LENGTH.match(self.line, end, last)
        if network:
            yield start, network.end()
            end = network.end()
        if first < start - 1:
            yield from self.part(first, start - (self.line[start - 1] in "/@:#="))
        return end + 1

    def slashes(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """``postfix/smtpd`` is one name, ``node/worker-3`` a kind and a name, ``a/b/c.txt`` a path."""
        surface = self.line[start:end]
        yield start, end
        if _NUMBERS.fullmatch(surface):
            return
        pieces = surface.split("/")
        if len(pieces) == 2:
            first, last = self.cuts("/", start, end)
            if not self.is_plain(*first):
                yield from self.part(*first)
                if self.line[slice(*last)].isalpha():  # "pool_a/orion"; in "postfix/smtpd" no part is a name of its own
                    yield last
            if not self.is_plain(*last):
                yield from self.part(*last)
        elif "." in pieces[0]:
            yield start, start + len(pieces[0])

    def is_plain(self, start: int, end: int) -> bool:
        return self.line[start:end].isalpha() and self.line[start:end].islower()

    def split(self, separator: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        for at, to in self.cuts(separator, start, end):
            yield from self.part(at, to)

    def cuts(self, separator: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        for piece in self.line[start:end].split(separator):
            yield start, start + len(piece)
            start += len(piece) + len(separator)

    def stripped(self, start: int, end: int) -> tuple[int, int]:
        while start < end and self.line[start] in _EDGES and not self.line.startswith(("./", "../"), start):
            start += 1
        while end > start and self.line[end - 1] in _EDGES:
            end -= 1
        return start, end
