"""Which single words of a log line are worth proposing: by their form, or by the place they stand in."""

from __future__ import annotations

import re

from el4ner.text.words import function_words

__all__ = ["HEADER_TIME", "NOISE", "OPENING", "PROTOCOL", "is_name"]

OPENING = "\"'`([{<"
_CLOSING = "\"'`)]}>"
HEADER_TIME = "<time>"

# Words that say how loud a line is, and what every HTTP request line has: no names, in any log.
NOISE = frozenset(
    """trace debug info information notice warn warning err error errors fatal critical crit alert emerg severe panic
    get post put head delete patch options connect true false null nil none yes no ok unknown""".split()  # noqa: SIM905
)
PROTOCOL = re.compile(r"HTTP/\d(?:\.\d)?", re.IGNORECASE)
# A name often follows one of these at once: "for alice", "user alice", "service cron".
_BEFORE_NAMES = frozenset({"for", "from", "by", "as", "to", "on", "at", "via", "against", "named", "called"})
_KINDS_OF_THINGS = frozenset(
    """user username login logon account owner member group role host hostname server node client peer source machine
    workstation service unit process program daemon module container database schema table queue topic device
    interface volume domain zone realm tenant task job""".split()  # noqa: SIM905
)


def is_name(line: str, start: int, end: int, *, before: str, in_header: bool) -> bool:
    """Whether the word ``line[start:end]``, with nothing in it to take apart, is worth a proposal.

    ``before`` is the word before it, lower case (``HEADER_TIME`` after the time that a line begins with); ``in_header``
    holds until the message begins. A word with digits, capitals inside or punctuation is always worth one; a plain
    word only where the line's structure gives it a part.
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
    after = line[end : end + 2]
    if (following == ":" and in_header) or after == " :" or (before == "-" and after == " ["):
        return True
    if in_header and lower == word and line[start - 2 : start] == "] ":
        return True
    if lower in _KINDS_OF_THINGS and lower != before:  # "user user": somebody is called so
        return False
    return before in _BEFORE_NAMES or before in _KINDS_OF_THINGS
