"""The forms that log lines are full of, as regular expressions: times, addresses, quantities, URLs.

Each is the text of a pattern with no capturing group, to be put together by those who use it. They hold their own
boundaries where a prefix or suffix of a longer thing would match.
"""

from __future__ import annotations

import ipaddress

__all__ = [
    "IPV4",
    "IPV6_FORM",
    "MAC",
    "QUANTITY",
    "TIMESTAMP",
    "URL",
    "UUID",
    "WINDOWS_PATH",
    "is_ipv6",
]

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?"
_YEAR = r"(?:19|20)\d{2}"
_CLOCK = r"\d{1,2}:\d{2}:\d{2}(?:[.,]\d{1,9})?"
_ZONE = r"(?: ?Z\b| ?[+\-]\d{2}:?\d{2}\b| (?:UTC|GMT)\b)"

TIMESTAMP = (
    r"(?<![\w.:])(?:"
    rf"\d{{4}}[\-/.]\d{{2}}[\-/.]\d{{2}}(?:(?:[T_]|,? ){_CLOCK}{_ZONE}?)?"  # 2025-01-02T03:04:05.678Z
    # Jan  2 03:04:05, Mon Jan 02 03:04:05 2025
    rf"|(?:{_DAY} )?{_MONTH} {{1,2}}\d{{1,2}},?(?: {_CLOCK}(?:{_ZONE}?(?: {_YEAR}\b)|{_ZONE})?| {_YEAR}\b)"
    rf"|\d{{1,2}}[/ ]{_MONTH}[/ ]\d{{4}}(?:[: ]{_CLOCK}{_ZONE}?)?"  # 02/Jan/2025:03:04:05 +0000
    rf"|\d{{2}}/\d{{2}}/\d{{2,4}},? {_CLOCK}"  # 25/01/02 03:04:05
    rf"|[IWEF]\d{{4}} {_CLOCK}"  # I0102 03:04:05.678901
    r"|(?<![^\n])\d{6} \d{6}(?= )"  # 250102 030405, where a line begins
    rf"|{_CLOCK}{_ZONE}?"
    r")(?![\w:]|-\d)"
)

_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
IPV4 = rf"(?<![\w.\-])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w\-]|\.\w)"

IPV6_FORM = r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:]|\.\w)"
"""What may be an IPv6 address; ``is_ipv6`` says whether it is."""

MAC = r"(?<![\w:\-])(?:(?:[0-9A-Fa-f]{2}:){5}|(?:[0-9A-Fa-f]{2}-){5})[0-9A-Fa-f]{2}(?![\w:\-])"
UUID = r"(?<![\w\-])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![\w\-])"
# At most eight parts before "://": from each part of a line full of colons all that follow it would be read else.
URL = (
    r"(?<![A-Za-z0-9_+.\-])[A-Za-z][A-Za-z0-9+.\-]*(?::[a-z][a-z0-9+]*){0,8}://"
    r"[^\s\"'`<>{}|\\^\u00ab\u00bb\u2018-\u201f\u2039\u203a]+"
)

_IN_PATH = r"\\\s\"'\u2018-\u201f<>|:,;"
WINDOWS_PATH = rf"(?<!\w)(?:[A-Za-z]:|\\)\\(?:[^{_IN_PATH}]+(?: [^{_IN_PATH}]+)*\\)*[^{_IN_PATH}()]*"

_UNIT = (
    r"(?:[num\u00b5\u03bc]s|s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?|days?|[KMGTP]i?B|kB|kb|bytes?|B|[kKMG]bps"
    r"|[KMG]?Hz|%)"
)
QUANTITY = rf"(?<![\w./:\-])(?:[+\-]?\d+(?:\.\d+)? ?{_UNIT}|(?:\d+(?:\.\d+)?(?:h|ms|m|s))+)(?![\w/:%]|[.\-]\w)"


def is_ipv6(surface: str) -> bool:
    """Whether ``surface`` is an IPv6 address, without brackets, zone or prefix length."""
    try:
        ipaddress.IPv6Address(surface)
    except ValueError:
        return False
    return True
