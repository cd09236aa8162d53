"""Made-up values in the place of real ones, by Faker: the same one for the same name under the same key.

A value is drawn with a seed that is an HMAC of the type and the folded name, so that it depends on nothing else: no
other document, no process, no order. Values that tell something of the name, or that could end a string in JSON, HTML
or CSV, are passed over.

=====================================================  =================================================================
type, whatever its case, hyphens and spaces            value
=====================================================  =================================================================
person, per, people, human, individual                 first and last name
organization, organisation, org, company, corporation  a company
location, loc, gpe, city, town, place                  a city, mostly one that there is not
user, username                                         a name as of an account
email                                                  at example.org, which nobody can have
phone                                                  North American 555-0100 to 555-0199, kept for fiction
card                                                   right by Luhn; begins with 9999, which no card does
iban                                                   right by its check digits, of the country ZZ, which there is not
ipaddress, ip                                          198.18.0.0/15 (RFC 2544), 2001:db8::/32 (RFC 3849)
macaddress, mac                                        locally administered: of no maker
url, host, hostname, domain, uuid                      under example.org; host-…; 32 random digits
=====================================================  =================================================================

Other types have none: a date or a product that is made up would be believed, and no national number is kept for this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import regex

from el4ner.errors import ConfigError
from el4ner.nearest import no_such
from el4ner.redaction.folding import fold, is_unspaced
from el4ner.redaction.key_ring import RedactionKey
from el4ner.redaction.reserved_values import RESERVED_VALUES

if TYPE_CHECKING:
    from faker import Faker

__all__ = ["Surrogate", "SurrogateMaker", "SurrogateName", "surrogate_kind"]

_ENGLISH: Final = "en_US"
_MOST_DRAWS: Final = 64
_REMEMBERED: Final = 16_384
_SHORT: Final = 2
"""Names with so few letters are in too many words to count there."""
_UNLIKE_EACH_OTHER: Final = frozenset({("it_IT", "location")})
"""Faker makes another value in each process, by a list that is in no order."""
_KINDS: Final = MappingProxyType(
    {
        name: kind
        for kind, names in {
            "person": "person per people human individual",
            "organization": "organization organisation org company corporation",
            "location": "location loc gpe city town place",
            "user": "user username",
            "email": "email emailaddress",
            "phone": "phone phonenumber telephone",
            "card": "card creditcard",
            "iban": "iban",
            "ip": "ip ipaddress",
            "mac": "mac macaddress",
            "url": "url",
            "host": "host hostname domain",
            "uuid": "uuid",
        }.items()
        for name in names.split()
    }
)
_PLAIN_FORMAT: Final = re.compile(r"(?:\{\{(?:first|middle|last)_name(?:_male|_female)?\}\}[ ]?)+")
_TOKEN: Final = re.compile(r"\{\{(\w+)\}\}")
_SANE: Final = regex.compile(r"[\p{L}\p{M}\p{N} .\-\u200c\u200d]+")
"""What a value may have in it: nothing that ends a string, a field or a tag."""


@dataclass(frozen=True, slots=True)
class SurrogateName:
    """A made-up name. ``first``, ``last``: of a person; of anything else both are all of it."""

    full: str
    first: str
    last: str

    @classmethod
    def whole(cls, text: str) -> SurrogateName:
        """A name without parts."""
        return cls(text, text, text)


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A made-up value. ``plain``: in ASCII letters, for addresses and names of files. ``is_code``: it has a form of its
    own, and is written as it is. ``words``: what of it may stand by itself, folded; of a code, nothing."""

    name: SurrogateName
    plain: SurrogateName
    is_code: bool = False
    words: frozenset[str] = frozenset()


def surrogate_kind(type_name: str) -> str | None:
    """What is made up for a type; None: nothing."""
    return _KINDS.get("".join(filter(str.isalnum, type_name.casefold())))


class SurrogateMaker:
    """Makes up values under one key. Safe to call from several threads.

    Raises:
        ConfigError: Faker is not there, or does not know the locale.
    """

    def __init__(self, locale: str, key: RedactionKey) -> None:
        try:
            from faker import Faker
            from faker.config import AVAILABLE_LOCALES
        except ImportError as error:
            raise ConfigError(
                "the redaction action surrogate needs Faker: pip install 'el4ner[redact]', or set it to pseudonym"
            ) from error
        if locale not in AVAILABLE_LOCALES:
            raise ConfigError(
                f"redaction.surrogate_locale: in Faker {no_such('locale', locale, sorted(AVAILABLE_LOCALES))}"
            )
        self._locale = locale
        self._key = key
        # Without weights: frequent names would make it likelier that two people get the same one.
        self._local = Faker(locale, use_weighting=False)
        self._english = self._local if locale == _ENGLISH else Faker(_ENGLISH, use_weighting=False)
        self._formats = {id(faker): _person_formats(faker) for faker in (self._local, self._english)}
        self._one_at_a_time = Lock()
        """A seed is the generator's own."""
        self._remembered = lru_cache(_REMEMBERED)(self._made)

    def draw(self, type_name: str, identity: str, number: int = 0) -> Surrogate | None:
        """A value for a name of a type.

        Args:
            identity: the name, folded.
            number: so many are passed over first.

        Returns:
            None: the type has no values, or there are too few that tell nothing of the name.
        """
        kind = surrogate_kind(type_name)
        if kind is None or (self._locale, kind) in _UNLIKE_EACH_OTHER:
            return None
        left = number
        for draw in range(_MOST_DRAWS + number):
            surrogate = self._remembered(kind, identity, self._key.surrogate_seed(type_name, identity, draw))
            if surrogate is not None:
                if left == 0:
                    return surrogate
                left -= 1
        return None

    def _made(self, kind: str, identity: str, seed: int) -> Surrogate | None:
        """None: it may not be used for this name."""
        with self._one_at_a_time:
            if (code := RESERVED_VALUES.get(kind)) is not None:
                person = self._named("person", self._english, seed)
                text, telling = code(identity, Random(seed), _letters(person.first), _letters(person.last))
                name = SurrogateName.whole(text)
                return (
                    None
                    if _tells(map(_letters, telling), identity) or _letters(text) == identity
                    else Surrogate(name, name, True)
                )
            name = self._named(kind, self._local, seed)
            plain = _plain(name) or _plain(self._named(kind, self._english, seed))
        if plain is None or _SANE.fullmatch(name.full) is None:
            return None
        parts = [*name.full.split(), *plain.full.split(), name.full, name.first, name.last]
        words = frozenset(map(_letters, parts)) - {""}
        return None if _tells(words, identity) else Surrogate(name, plain, words=words)

    def _named(self, kind: str, faker: Faker, seed: int) -> SurrogateName:
        faker.seed_instance(seed)
        if kind == "organization":
            return SurrogateName.whole(faker.company())
        if kind == "location":
            return SurrogateName.whole(faker.city())
        form = faker.random.choice(self._formats[id(faker)])
        parts: dict[str, str] = {}

        def part(match: re.Match[str]) -> str:
            value: str = getattr(faker, match[1])()
            return parts.setdefault(match[1].partition("_")[0], value)

        full = _TOKEN.sub(part, form).strip()
        return SurrogateName(full, parts.get("first", full), parts.get("last", full))


def _person_formats(faker: Faker) -> list[str]:
    """How first and last names make a name there, without titles."""
    formats: Iterable[str] = next((each.formats for each in faker.get_providers() if hasattr(each, "first_names")), ())
    plain = sorted({each for each in formats if _PLAIN_FORMAT.fullmatch(each) and "first" in each and "last" in each})
    return plain or ["{{first_name}} {{last_name}}"]


def _letters(text: str) -> str:
    return next(fold(text)).letters


def _plain(name: SurrogateName) -> SurrogateName | None:
    """The name in ASCII letters; None: it has others."""
    parts = [
        " ".join(_letters(word).capitalize() for word in each.split()) for each in (name.full, name.first, name.last)
    ]
    return SurrogateName(*parts) if all(part.strip() and part.isascii() for part in parts) else None


def _tells(words: Iterable[str], identity: str) -> bool:
    """Whether one of the words, folded, is in the name, or has the name in it. Single letters are in every name, but
    for those of scripts without spaces."""
    return any(
        ((len(word) > 1 or is_unspaced(word)) and word in identity) or (len(identity) > _SHORT and identity in word)
        for word in words
    )
