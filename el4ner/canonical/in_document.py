"""Within a document a short form joins the long one: of ``Angela Merkel … Merkel``, both are Angela Merkel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from el4ner.canonical.names import canonical_name, short_forms

__all__ = ["full_names"]


def full_names(mentions: Sequence[tuple[str, str]]) -> list[str]:
    """Of each mention (its type and its surface) the name that it has in this document.

    It is that of the longest name of the same type that the document has and the surface is a short form of. Where
    there are several (John Smith, Jane Smith, Smith) a short form stays itself. The order of the mentions makes no
    difference.
    """
    by_type: dict[str, set[str]] = defaultdict(set)
    for kind, surface in mentions:
        by_type[kind].add(canonical_name(surface))
    joined = {kind: _joined(kind, names) for kind, names in by_type.items()}
    return [joined[kind].get(name := canonical_name(surface), name) for kind, surface in mentions]


def _joined(kind: str, names: Iterable[str]) -> Mapping[str, str]:
    """Short names to the one long name that each is of."""
    names = set(names)
    longer: dict[str, set[str]] = defaultdict(set)
    for name in names:
        for form in short_forms(kind, name) & names:
            longer[form].add(name)
    # Of Merkel, Angela Merkel and Chancellor Angela Merkel only the last is no form of another one.
    longest = {
        form: {name for name in candidates if not candidates & longer.get(name, set())}
        for form, candidates in longer.items()
    }
    single = {form: next(iter(candidates)) for form, candidates in longest.items() if len(candidates) == 1}
    return {form: _end(single, form) for form in single}


def _end(single: Mapping[str, str], form: str) -> str:
    seen = set()
    # A name and its acronym's own long form could be in a ring; then each stays.
    while form in single and form not in seen:
        seen.add(form)
        form = single[form]
    return form
