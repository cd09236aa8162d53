"""Personal data that has a form of its own: e-mail addresses, cards, accounts, telephone and national numbers.

Patterns and check digits are those of Presidio's recognisers (``el4ner[redact]``), each asked for itself: no language
model takes part. A number counts only if its check digits are right, where its kind has any.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

from el4ner.errors import ConfigError
from el4ner.redaction.redaction_settings import PatternKind, RedactionSettings
from el4ner.redaction.redactor import Detection, RedactionError

__all__ = ["NATIONAL_IDS", "PersonalData"]

NATIONAL_IDS: Final = (
    "AuMedicareRecognizer",
    "AuTfnRecognizer",
    "DeSocialSecurityRecognizer",
    "DeTaxIdRecognizer",
    "EsNieRecognizer",
    "EsNifRecognizer",
    "FiPersonalIdentityCodeRecognizer",
    "InAadhaarRecognizer",
    "ItFiscalCodeRecognizer",
    "KrRrnRecognizer",
    "NhsRecognizer",
    "PlPeselRecognizer",
    "SePersonnummerRecognizer",
    "ThTninRecognizer",
    "TrNationalIdRecognizer",
    "UkNinoRecognizer",
    "UsSsnRecognizer",
    "ZaIdNumberRecognizer",
)
"""Presidio's classes, of numbers that belong to a person."""
_ENOUGH: Final = 0.5
"""A pattern without check digits has to be as telling as this by Presidio's own score."""
_SECONDS: Final = 10.0
"""A pattern that takes longer over a text fails the document."""


class PersonalData:
    """Finds what the settings name; where they name nothing, it needs nothing. To be used by one thread at a time.

    Raises:
        ConfigError: Presidio is not there.
    """

    def __init__(self, settings: RedactionSettings) -> None:
        self._recognisers: list[tuple[PatternKind, Any, Any]] = []
        self._phones: Sequence[str] = ()
        if not settings.patterns:
            return
        try:
            from presidio_analyzer import predefined_recognizers as presidio
        except ImportError as error:
            raise ConfigError(
                "redaction.patterns needs Presidio's recognisers: pip install 'el4ner[redact]', or leave patterns out"
            ) from error
        # They quote texts in messages about their own mistakes.
        logging.getLogger("presidio-analyzer").disabled = True
        classes: dict[PatternKind, tuple[str, ...]] = {
            "email": ("EmailRecognizer",),
            "card": ("CreditCardRecognizer",),
            "iban": ("IbanRecognizer",),
            "national_id": NATIONAL_IDS,
        }
        for kind in sorted(set(settings.patterns) & classes.keys()):
            for name in classes[kind]:
                recogniser = getattr(presidio, name)()
                for pattern in recogniser.patterns:
                    self._recognisers.append((kind, recogniser, pattern))
        if "phone" in settings.patterns:
            self._phones = settings.phone_regions

    def find(self, text: str) -> list[Detection]:
        """What there is of it in a text. Its confidence is 1: rules' floors are for what models think.

        Raises:
            RedactionError: a pattern took too long.
        """
        found = {
            each for kind, recogniser, pattern in self._recognisers for each in _found(kind, recogniser, pattern, text)
        }
        return sorted(found | set(self._phone_numbers(text)))

    def _phone_numbers(self, text: str) -> Iterator[Detection]:
        if not self._phones:
            return
        from phonenumbers import Leniency, PhoneNumberMatcher

        for region in self._phones:
            for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID, max_tries=len(text) + 1):
                yield Detection(match.start, match.end, "phone")


def _found(kind: PatternKind, recogniser: Any, pattern: Any, text: str) -> Iterator[Detection]:
    import regex

    flags = recogniser.global_regex_flags | regex.IGNORECASE
    try:
        for match in regex.finditer(pattern.regex, text, flags=flags, timeout=_SECONDS):
            # What comes behind a number may look as if it went on: the longest that is one counts.
            ends = {
                match.end(),
                *(match.end(group) for group in range(1, (match.re.groups if kind == "iban" else 0) + 1)),
            }
            for end in sorted((end for end in ends if end > match.start()), reverse=True):
                if _is_one(kind, recogniser, pattern, text[match.start() : end]):
                    yield Detection(match.start(), end, kind)
                    break
    except TimeoutError:
        # Presidio passes over it; here nothing may be missed without anybody knowing.
        raise RedactionError(f"looking for {kind} took longer than {_SECONDS:g} s") from None


def _is_one(kind: PatternKind, recogniser: Any, pattern: Any, text: str) -> bool:
    if kind == "email":
        # Presidio's own check asks for the list of public suffixes, and the network for that.
        return True
    try:
        checked = recogniser.validate_result(text)
        if checked is False or recogniser.invalidate_result(text):
            return False
    except (ValueError, KeyError, IndexError):  # it has a form that the check does not know
        return False
    return checked is True or kind == "iban" or pattern.score >= _ENOUGH
