"""What is one token whatever stands in it: addresses on the web, e-mail addresses, paths, hashes, ids.

A name inside is no mention (``London`` in ``https://example.org/London?q=1``), so nobody may propose a part of one; the
whole may be an entity. But pools of log lines label such parts, and where a pool does, parts of that kind may be
proposed for it (:func:`divisible`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from el4ner.text.log_patterns import IPV6_FORM, MAC, URL, UUID, WINDOWS_PATH, is_ipv6
from el4ner.types import Span

__all__ = ["Atom", "AtomGate", "AtomKind", "address_end", "atoms", "divisible", "without_closing"]

AtomKind = Literal["url", "bare-url", "email", "domain", "path", "handle", "hash", "id"]
"""``bare-url``: a domain with a path and no scheme, which in logs may be a host and something else."""

SHARE: Final = 0.05
"""The least share of a kind's atoms in the labelled sentences of a pool with a labelled part inside for its parts to be
labelled on purpose: a pool of thousands of sentences has slips."""

# A host in front of a path or a port, and one on its own. Without a list of all top-level domains a word with a dot may
# be the end of a sentence without a space ("in London.It was"): a name on its own is in lower case.
_LABEL = r"[^\W_](?:[\w\-]{0,62})"
_TOP = (
    r"(?:com|org|net|edu|gov|mil|int|info|biz|name|pro|app|dev|cloud|online|shop|site|blog|news|tech|xyz|lan|local|localhost"
    r"|localdomain|internal|intranet|corp|home|test|example|invalid|onion|eu|uk|co|us|de|fr|nl|be|ch|at|it|es|pt|pl|cz|sk"
    r"|hu|ro|bg|gr|tr|ru|ua|by|kz|cn|jp|kr|tw|hk|sg|my|id|th|vn|in|pk|bd|lk|au|nz|za|ng|ke|eg|il|ir|sa|ae|br|ar|cl|mx|pe|ca"
    r"|no|se|dk|fi|is|ie|ee|lv|lt|lu|io|ai|me|tv|cc|ly|gg|fm|am|to|ws)"
)
_DOMAIN = rf"(?:{_LABEL}\.){{1,8}}{_TOP}(?![\w\-]|\.\w)"
_QUOTES = r"\"'`\u00ab\u00bb\u2018-\u201f\u2039\u203a"
_NO_SPACE = rf"[^\s{_QUOTES}<>{{}}|\\^]"
# Identifiers without "//" (RFC 3986), of which a text may be full.
_OPAQUE = (
    rf"(?<![\w+.\-])(?:mailto:|data:\w+/[\w.+\-]+[;,]|urn:\w[\w\-]*:|magnet:\?|(?:sips?|xmpp|im):(?={_NO_SPACE}*@)|tel:[+\d]"
    rf"|doi:10\.|arn:\w[\w\-]*:){_NO_SPACE}+"
)
_ENDS_PATH = rf"\s{_QUOTES}<>|:;,()\[\]{{}}"
_PATH_END = rf"[^{_ENDS_PATH}]"
# Also where a file is on another machine: git@example.org:team/tools.git.
_EMAIL = rf"(?<![\w.+\-%@/])(?:mailto:)?[\w.+\-%]{{1,64}}@(?:{_LABEL}\.?){{1,8}}(?::(?:~\w*|[\w.+\-]*)/{_PATH_END}*)?"
_WEB = rf"(?<![\w.@\-])(?:www\.(?:{_LABEL}\.){{1,8}}\w{{2,}}|{_DOMAIN}(?=[:/?#]))(?::\d{{1,5}})?(?:[/?#]{_NO_SPACE}*)?"
# Bounded, since every slash of a text may be the first one.
_BEFORE_DOT = rf"[^{_ENDS_PATH}?=.]"
_POSIX = (
    rf"(?<![\w.~/\\\-$])(?:(?:~\w*|\.{{1,2}}|\$\w+|\$\{{\w+\}})/{_PATH_END}+|/[\w.@+~%#\-]+/{_PATH_END}*|/{_BEFORE_DOT}{{0,255}}[?=.]{_PATH_END}+)"
    # Without a slash in front only with a file's name at its end: Berlin/Paris are two cities.
    r"|(?<![\w.~/\\:\-])(?:[\w.@+~%\-]{1,255}/){1,64}[\w@+~%\-]{1,255}(?:\.[a-z][a-z0-9]{0,4}){1,2}(?![\w/]|\.\w)"
)
# Behind a variable or in the registry; otherwise a backslash is more often an escape (one\\ntwo) or a domain's user.
_ROOTED = rf"(?<![\w\\])(?:%\w+%|HK(?:LM|CU|CR|U|CC|EY_\w+))(?:\\{_PATH_END}*)+"
_DIGEST = (
    r"(?<![\w+/=.\-])(?:(?:md5|sha\d{1,3}|sha3)[:\-])[A-Za-z0-9+/=_\-]{16,}"
    r"|(?<![\w+/=.\-])eyJ[\w\-]+\.[\w\-]+\.[\w\-]*"
    r"|(?<![\w+/=.\-])[A-Za-z0-9+/_\-]{16,}={0,2}(?![\w+/=\-])"
)
_ATOM: Final = re.compile(
    rf"(?P<url>{_OPAQUE}|{URL})|(?P<web>{_WEB})|(?P<email>{_EMAIL})|(?P<uuid>{UUID})|(?P<mac>{MAC})"
    rf"|(?P<ipv6>{IPV6_FORM})|(?P<windows>{WINDOWS_PATH}|(?<!\w)[A-Za-z]:/{_PATH_END}+|{_ROOTED})|(?P<path>{_POSIX})"
    rf"|(?P<domain>(?<![\w.@\-]){_DOMAIN})|(?P<hash>{_DIGEST})|(?P<handle>(?<![\w@.])@\w+(?:@[\w.\-]+)?)"
)
# What one of them has at least: most sentences have nothing of it.
_MAY_BE_ATOM: Final = re.compile(r"[/@\\:]|\.[\w\-]|[A-Za-z0-9+/=_\-]{16}")
# A line end or a tab that is written out, as in messages inside of JSON. Among backslashes it may be a folder's letter.
_WRITTEN_OUT: Final = re.compile(r"\\+[nrt]")
_DOMAIN_INSIDE: Final = re.compile(_DOMAIN)
_CLOSING: Final = frozenset(".,;:!?*\u2026")
# Where a text without spaces goes on behind an address.
_GOES_ON: Final = re.compile(
    # Signs that end a sentence or a clause elsewhere, and letters behind a Latin one.
    r"[\u0589\u060c\u061b\u061f\u06d4\u0964\u0965\u104a\u104b\u1362\u17d4\u17d5\u3000-\u303f\uff00-\uff20\uff3b-\uff40\uff5b-\uff65]"
    r"|(?<=[A-Za-z0-9])[\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
_ADDRESSES: Final = frozenset({"url", "bare-url", "email"})
_BRACKETS: Final = {")": "(", "]": "[", "}": "{"}


class Atom(NamedTuple):
    """``text[start:end]`` is one token of a kind."""

    start: int
    end: int
    kind: AtomKind


def atoms(text: str) -> list[Atom]:
    """The atoms of a text, from left to right, without overlaps."""
    tokens: list[Atom] = []
    if not _MAY_BE_ATOM.search(text):
        return tokens
    behind = 0
    while (match := _ATOM.search(text, behind)) is not None:
        start, end = match.start(), _end(match)
        behind = max(end, start + 1)
        kind = _kind(match)
        if kind is None:
            continue
        end = address_end(text, start, end) if kind in _ADDRESSES else without_closing(text, start, end)
        if end > start:
            tokens.append(Atom(start, end, kind))
    return tokens


def _end(match: re.Match[str]) -> int:
    surface = match.group()
    if "\\" not in surface or (match.lastgroup == "windows" and surface[1:3] != ":/"):
        return match.end()
    ends = _WRITTEN_OUT.search(surface)
    return match.end() if ends is None else match.start() + ends.start()


def address_end(text: str, start: int, end: int) -> int:
    """The end of the address that ``text[start:end]``, which holds no white space, begins with: a text without spaces
    may go on behind it, and the punctuation at its end is the sentence's."""
    goes_on = _GOES_ON.search(text, start + 1, end)
    return without_closing(text, start, goes_on.start() if goes_on else end)


def _kind(match: re.Match[str]) -> AtomKind | None:
    surface = match.group()
    match match.lastgroup:
        case "url":
            return "url"
        case "web":
            return "bare-url"
        case "email":
            return "email"
        case "domain":
            top = surface.rpartition(".")[2]
            spelt = surface.islower() or (surface.count(".") > 1 and top.islower()) or top in ("com", "org", "net")
            return "domain" if spelt else None
        case "windows":
            return "path"
        case "path":
            # Java writes addresses with a slash in front: /10.2.3.4:9092.
            return "path" if any(map(str.isalpha, surface)) else None
        case "hash":
            return "hash" if _looks_random(surface) else None
        case "handle":
            return "handle"
        case "ipv6":
            return "id" if is_ipv6(surface) or is_ipv6(surface.removesuffix(":")) else None
        case _:
            return "id"


def _looks_random(surface: str) -> bool:
    """Whether letters and digits change as they do in a hash, and never in COVID-19/SARS-CoV-2."""
    if surface.startswith("eyJ"):  # a JSON object, as web tokens begin
        return True
    if surface.startswith(("md5", "sha")):
        return any(map(str.isdigit, surface[4:]))
    changes = 0
    for left, right in pairwise(surface):
        changes += (left.isdigit() and right.isalpha()) or (left.isalpha() and right.isdigit())
        changes += left.islower() and right.isupper()
    return changes * 4 >= len(surface)


def without_closing(text: str, start: int, end: int) -> int:
    """The end of ``text[start:end]`` without the punctuation and the unopened brackets behind it, which are the
    sentence's."""
    unopened = {last: text.count(last, start, end) - text.count(first, start, end) for last, first in _BRACKETS.items()}
    while end > start and (text[end - 1] in _CLOSING or unopened.get(text[end - 1], 0) > 0):
        end -= 1
        if text[end] in unopened:
            unopened[text[end]] -= 1
    return end


class AtomGate:
    """Which spans of one text enter no atom.

    Args:
        text: the sentence.
        divisible: the kinds whose parts may be entered.
    """

    def __init__(self, text: str, divisible: Collection[AtomKind] = ()) -> None:
        atoms_ = list(_indivisible(text, divisible))
        self._starts = [atom.start for atom in atoms_]
        self._closings = [_closing(text, atom) for atom in atoms_]

    def admits(self, span: Span) -> bool:
        """Whether ``span`` neither begins nor ends inside of an atom; punctuation at an atom's end may be left out."""
        return not any(self._is_inside(place) for place in (span.start, span.end))

    def _is_inside(self, place: int) -> bool:
        index = bisect_right(self._starts, place) - 1
        return index >= 0 and self._starts[index] < place < self._closings[index]


def _closing(text: str, atom: Atom) -> int:
    """Where the punctuation at an atom's end begins."""
    end = atom.end
    while end > atom.start and not (text[end - 1].isalnum() or text[end - 1] in _BRACKETS):
        end -= 1
    return end


def _indivisible(text: str, divisible: Collection[AtomKind]) -> Iterator[Atom]:
    """Atoms that may not be entered, those inside of divisible ones too: the domain of an address is one token."""
    for atom in atoms(text):
        if atom.kind not in divisible:
            yield atom
        elif atom.kind != "domain" and "domain" not in divisible:
            for match in _DOMAIN_INSIDE.finditer(text, atom.start, atom.end):
                yield Atom(*match.span(), "domain")


def divisible(sentences: Iterable[tuple[str, Iterable[Span]]]) -> frozenset[AtomKind]:
    """The kinds of atoms of which a pool labels parts.

    Args:
        sentences: texts and their labelled spans.
    """
    whole: Counter[AtomKind] = Counter()
    parted: Counter[AtomKind] = Counter()
    for text, spans in sentences:
        labelled = list(spans)
        if not labelled:
            continue
        for atom in atoms(text):
            whole[atom.kind] += 1
            parted[atom.kind] += any(_is_part(span, atom, text) for span in labelled)
    return frozenset(kind for kind, count in parted.items() if count and count >= SHARE * whole[kind])


def _is_part(span: Span, atom: Atom, text: str) -> bool:
    rest = text[atom.start : span.start] + text[span.end : atom.end]
    return atom.start <= span.start and span.end <= atom.end and any(map(str.isalnum, rest))
