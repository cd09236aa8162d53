"""Values that have a form of their own, out of ranges that nobody has or that are kept for examples."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

__all__ = ["RESERVED_VALUES"]

_AREA_CODES: Final = (
    202, 203, 206, 212, 213, 214, 215, 216, 301, 303, 305, 312, 313, 314, 315, 402, 404, 405,
    407, 408, 410, 412, 413, 415, 501, 502, 503, 504, 505, 512, 513, 515, 601, 602, 603, 605,
    608, 612, 614, 615, 617, 619, 701, 702, 703, 704, 713, 714, 716, 717, 801, 802, 803, 804,
    808,
)  # fmt: skip
"""Some of those that there are."""

_Maker = Callable[[str, Random, str, str], tuple[str, tuple[str, ...]]]
"""From the folded name, random numbers, and a made-up first and last name, to a value, and what of it could tell
something."""


def _digits(random: Random, count: int) -> str:
    return "".join(random.choices(string.digits, k=count))


def _email(_: str, random: Random, first: str, last: str) -> tuple[str, tuple[str, ...]]:
    return f"{first}.{last}{_digits(random, 3)}@example.org", (first, last)


def _user(_: str, random: Random, first: str, last: str) -> tuple[str, tuple[str, ...]]:
    return f"{first[0]}{last}{_digits(random, 2)}", (last,)


def _phone(_: str, random: Random, *__: str) -> tuple[str, tuple[str, ...]]:
    return f"+1-{random.choice(_AREA_CODES)}-555-01{_digits(random, 2)}", ()


def _card(_: str, random: Random, *__: str) -> tuple[str, tuple[str, ...]]:
    body = "9999" + _digits(random, 11)
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(body))
    number = f"{body}{-total % 10}"
    return " ".join(number[place : place + 4] for place in range(0, 16, 4)), ()


def _iban(_: str, random: Random, *__: str) -> tuple[str, tuple[str, ...]]:
    account = _digits(random, 18)
    check = 98 - int(f"{account}353500") % 97  # Z is 35
    number = f"ZZ{check:02}{account}"
    return " ".join(number[place : place + 4] for place in range(0, len(number), 4)), ()


def _ip(identity: str, random: Random, *_: str) -> tuple[str, tuple[str, ...]]:
    if identity.isdecimal():
        return f"198.{random.randint(18, 19)}.{random.randint(0, 255)}.{random.randint(1, 254)}", ()
    return "2001:db8:" + ":".join(f"{random.randint(1, 0xFFFF):x}" for _ in range(6)), ()


def _mac(_: str, random: Random, *__: str) -> tuple[str, tuple[str, ...]]:
    return ":".join(["02", *(f"{random.randint(0, 255):02x}" for _ in range(5))]), ()


def _url(_: str, random: Random, *__: str) -> tuple[str, tuple[str, ...]]:
    return f"https://example.org/{random.getrandbits(48):012x}", ()


def _host(_: str, random: Random, *__: str) -> tuple[str, tuple[str, ...]]:
    return f"host-{random.getrandbits(32):08x}", ()


def _uuid(_: str, random: Random, *__: str) -> tuple[str, tuple[str, ...]]:
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}", ()


RESERVED_VALUES: Final[Mapping[str, _Maker]] = MappingProxyType(
    {
        "email": _email,
        "user": _user,
        "phone": _phone,
        "card": _card,
        "iban": _iban,
        "ip": _ip,
        "mac": _mac,
        "url": _url,
        "host": _host,
        "uuid": _uuid,
    }
)
