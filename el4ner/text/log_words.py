"""Which single words of a log line are worth proposing: by their form, or by the place they stand in."""

from __future__ import annotations

import re

from el4ner.text.words import function_words

__all__ = ["HEADER_TIME", "METHODS", "NOISE", "OPENING", "PROTOCOL", "is_name"]

OPENING = "\"'`([{<"
_CLOSING = "\"'`)]}>"
# What a field of a line in columns, a list or a tag is cut by.
_CELL_BEGINS = frozenset(";|^>,(\t")
_CELL_ENDS = frozenset(";|^<,)\t")
HEADER_TIME = "<time>"

# Words that say how loud a line is, and what every HTTP request line has: no names, in any log.
METHODS = frozenset({"GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "CONNECT"})
NOISE = frozenset(
    """trace debug info information notice warn warning err error errors fatal critical crit alert emerg severe panic
    true false null nil none yes no ok unknown""".split()  # noqa: SIM905
) | {method.lower() for method in METHODS}
PROTOCOL = re.compile(r"HTTP/\d(?:\.\d)?", re.IGNORECASE)
# A name often follows one of these at once: "for alice", "restart cron", "user alice", "services cron".
_BEFORE_NAMES = frozenset(
    """for from by as to on at via against named called reach contact start started starting stop stopped stopping
    restart restarted restarting reload reloaded kill killed launch launched""".split()  # noqa: SIM905
)
_KINDS_OF_THINGS = frozenset(
    """user username login logon account owner member group role host hostname server node client peer source machine
    workstation service unit process program daemon module container database schema table queue topic device
    interface volume domain zone realm tenant task job""".split()  # noqa: SIM905
)
# … or stands before one: "the netlogon service", "cron main process".
_BEFORE_KIND = re.compile(r" (?:[a-z]+ )?(?:service|process|daemon|unit|container|program|server)\b")
_BEFORE_ID = re.compile(r" +(?:\d+|-)(?: |$)")  # of a process, or none
_EDGES = ".,:;!?\"'`()[]{}<>"
_NEAR = 64  # characters on either side of a word that are looked at


def is_name(line: str, start: int, end: int, *, before: str, in_header: bool, after_first: bool) -> bool:
    """Whether the word ``line[start:end]``, with nothing in it to take apart, is worth a proposal.

    ``before`` is the word before it, lower case (``HEADER_TIME`` after the time that a line begins with); ``in_header``
    holds until the message begins, ``after_first`` behind the first word after the time. A word with digits, capitals
    inside or punctuation is always worth one; a plain word only where the line's structure gives it a part.
    """
    word = line[start:end]
    lower = word.lower()
    if lower in NOISE or (lower in function_words() and not word.isupper()):
        return False
    if len(word) == 1 and not word.isdigit():
        return False
    if not word.isalpha() or not (word.islower() or word.istitle()):
        return True
    previous, following = line[start - 1 : start], line[end : end + 1]
    if previous in ("=", "@", "\\") or following in ("@", "[", "("):
        return True
    if start == 0 or (previous in OPENING and following in _CLOSING + ":") or before == HEADER_TIME:
        return True
    if previous == ":" and line[start - 2 : start - 1].isalnum():
        return True
    if previous in _CELL_BEGINS and following in _CELL_ENDS:
        return True
    after = line[end : end + 2]
    if (following == ":" and (in_header or after[1:].isdigit())) or after == " :" or (before == "-" and after == " ["):
        return True
    if in_header and lower == word and line[start - 2 : start] == "] ":
        return True
    if after_first and _BEFORE_ID.match(line, end):
        return True
    if line[start - 2 : start] == ": " and after in (" (", " ["):  # the message begins with who it is about
        return True
    if _BEFORE_KIND.match(line, end) or _is_column(line, start, end):
        return True
    if lower in _KINDS_OF_THINGS and before not in _KINDS_OF_THINGS:
        # "for user alice" speaks of a kind; "for service from" of somebody who is called so, as does "user service".
        named = line[end : end + _NEAR].split(maxsplit=1)
        return before in _BEFORE_NAMES and bool(named) and named[0] in _BEFORE_NAMES
    return before in _BEFORE_NAMES or before in _KINDS_OF_THINGS or before.removesuffix("s") in _KINDS_OF_THINGS


def _is_column(line: str, start: int, end: int) -> bool:
    """Whether the word stands alone between things that are no words, as in columns: ``443 alice ::1``. Before a number
    it says what is counted: ``port 22``."""
    if line[start - 1 : start] != " " or line[end : end + 1] != " ":
        return False
    left = line[max(0, start - _NEAR) : start].rsplit(maxsplit=1)
    right = line[end : end + _NEAR].split(maxsplit=1)
    if not (left and right) or left[-1][-1] in ",;:." or right[0].strip(_EDGES).isdigit():
        return False
    return not _is_plain(left[-1]) and not _is_plain(right[0])


def _is_plain(token: str) -> bool:
    word = token.strip(_EDGES)
    return word.isalpha() and (word.islower() or word.istitle())
