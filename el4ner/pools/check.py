"""What is odd about a pool that loads: things a person should look at before trusting its demonstrations. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from el4ner.pools.pool import LeftOut, Pool, PoolSentence
from el4ner.text.log_patterns import is_ipv6

__all__ = ["Finding", "PoolReport", "check_pool"]

_NEVER = frozenset(",;:!?\"'“”‘’«»")
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))


@dataclass(frozen=True, slots=True)
class Finding:
    """``error``: surely a mistake. ``warning``: often one, but Washington is a man and a city. ``where``: file:line."""

    severity: Literal["error", "warning"]
    where: str
    message: str


@dataclass(frozen=True)
class PoolReport:
    """``mentions``: how many spans each type has, in the pool's order of types; ``entity_free``: sentences without.
    ``left_out``: sentences of the files that the pool does not have, and why."""

    name: str
    fingerprint: str
    sentences: int
    entity_free: int
    mentions: Mapping[str, int]
    findings: tuple[Finding, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)


def check_pool(pool: Pool) -> PoolReport:
    """Count what is in the pool and find what is odd: errors first, each in the order of the sentences."""
    mentions = dict.fromkeys(pool.types, 0)
    for sentence in pool.sentences:
        for _, label in sentence.spans:
            mentions[label] += 1
    findings = [
        *(finding for sentence in pool.sentences for finding in _edges(sentence)),
        *_duplicates(pool),
        *_ambiguous(pool),
        *(Finding("warning", pool.name, f"type {label!r} has no mention") for label, n in mentions.items() if not n),
    ]
    if all(sentence.spans for sentence in pool.sentences):
        findings.append(Finding("warning", pool.name, "no sentence is free of entities: nothing shows what is none"))
    return PoolReport(
        name=pool.name,
        fingerprint=pool.fingerprint,
        sentences=len(pool.sentences),
        entity_free=sum(not sentence.spans for sentence in pool.sentences),
        mentions=mentions,
        findings=tuple(sorted(findings, key=lambda finding: finding.severity)),
        left_out=pool.left_out,
    )


def _edges(sentence: PoolSentence) -> Iterator[Finding]:
    for span, label in sentence.spans:
        if span.text != span.text.strip():
            yield Finding("error", sentence.where, f"{label} {span.text!r} begins or ends with white space")
            continue
        if _has_stray_edge(span.text):
            yield Finding("warning", sentence.where, f"{label} {span.text!r} begins or ends with punctuation")


def _has_stray_edge(surface: str) -> bool:
    """ "Inc.", "/etc", "::1" and "(500) Days" are as they should be; a comma, a quote or half of a bracket hardly ever
    is."""
    if is_ipv6(surface):
        return False
    first, last = surface[0], surface[-1]
    if first in _NEVER or last in _NEVER:
        return True
    return any(
        (first == closing or last == opening)
        or (first == opening and closing not in surface)
        or (last == closing and opening not in surface)
        for opening, closing in _BRACKETS
    )


def _duplicates(pool: Pool) -> Iterator[Finding]:
    first: dict[str, PoolSentence] = {}
    for sentence in pool.sentences:
        known = first.setdefault(sentence.text, sentence)
        if known is sentence:
            continue
        if known.spans == sentence.spans:
            yield Finding("warning", sentence.where, f"the same sentence as at {known.where}")
        else:
            yield Finding("error", sentence.where, f"the same sentence as at {known.where}, labelled otherwise")


def _ambiguous(pool: Pool) -> Iterator[Finding]:
    """Surfaces of more than one type, each reported where its rarest type comes first."""
    seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for sentence in pool.sentences:
        for span, label in sentence.spans:
            seen[span.text][label].append(sentence.where)
    for surface, labels in seen.items():
        if len(labels) > 1:
            rarest = min(labels, key=lambda label: len(labels[label]))
            counts = ", ".join(f"{label} {len(places)}×" for label, places in labels.items())
            yield Finding("warning", labels[rarest][0], f"{surface!r} has different types: {counts}")
