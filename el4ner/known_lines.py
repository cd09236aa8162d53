"""Log lines whose template is known: what the stages keep of the template, told of a line without their values between.

A stage keeps what it said of a template in its own terms (:mod:`el4ner.repeats.carry`). Here that is turned, once, into
what can be told of any line of one form by its bounds alone: where the candidates are, what the next stage's memory
knows the line by, and in the end the entities. It is made of the very values that the stages keep, and other values
give another one, so that nothing has to be told when an answer is put right.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from typing_extensions import override

from el4ner.assemble import reported
from el4ner.config import MethodSettings
from el4ner.repeats import AgreedTypes, ClassifyCarry, ExtractCarry, ExtractedAnchors, LineKey, SaidOfText, Subject
from el4ner.stages.validate import UNVERIFIED
from el4ner.text.overlaps import resolve_overlaps
from el4ner.text.templates import Anchor, Extent, Form, Sighting, Template, cut, sighted
from el4ner.types import (
    NONE_TYPE,
    Document,
    Entity,
    Sentence,
    SentenceCandidates,
    SentenceTypes,
    TaggedDocument,
    TypedSpan,
    Verdict,
)

__all__ = ["KnownCandidates", "KnownLine", "KnownTypes", "LineToAsk"]

_EXTRACT = ExtractCarry()
_CLASSIFY = ClassifyCarry()
Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
Verdicts = tuple[Verdict, ...] | None
"""Of the entities in order; None: nobody was asked."""


class KnownLine(Subject[Sentence]):
    """The only sentence of a document, apart, as extraction's memory is asked about it; and what is known of it by now.

    ``start``: where in the document it begins. ``candidates``, ``types``, ``verdicts``: what the stages have kept.
    """

    __slots__ = ("_sighting", "candidates", "document", "key", "start", "text", "types", "verdicts")

    def __init__(self, document: Document, start: int, text: str) -> None:
        self.document = document
        self.start = start
        self.text = text
        self.key: Hashable = text
        self.candidates: KnownCandidates | None = None
        self.types: KnownTypes | None = None
        self.verdicts: Verdicts = None
        self._sighting: Sighting | None = None

    @override
    def sighting(self) -> Sighting:
        if self._sighting is None:
            self._sighting = sighted(self.text)
        return self._sighting

    @override
    def view(self, form: Form | None) -> Template:
        return Template(self.text, cut(self.text, ())) if form is None else form.template(self.sighting())

    @override
    def like(self, form: Form) -> Hashable | None:
        return form.key

    @override
    def item(self) -> Sentence:
        return Sentence(0, len(self.text), self.text)


class KnownCandidates(SaidOfText):
    """What extraction keeps of lines of one form, or of one text (``form`` None)."""

    __slots__ = ("_like", "_types", "extents", "form", "kept", "said")

    def __init__(self, kept: ExtractedAnchors, form: Form | None) -> None:
        self.kept = kept
        self.form = form
        self.extents = [_extent(anchor, form) for anchor in kept.anchors]
        self.said = tuple(zip(kept.proposed_by, kept.boundaries, strict=True))
        self._like: tuple[Form, LineKey | None] | None = None
        self._types: KnownTypes | None = None

    def of(self, line: KnownLine) -> SentenceCandidates:
        """As the stage says it of a line."""
        return _EXTRACT.recall(line.item(), self.kept, line.view(self.form))

    def types(self, kept: AgreedTypes) -> KnownTypes:
        """What classification keeps of these candidates."""
        types = self._types  # another thread may put others in their place
        if types is None or types.kept is not kept:
            types = self._types = KnownTypes(self, kept)
        return types

    @override
    def said_of(self, text: str) -> tuple[Any, ...]:
        return self.kept.demonstrations, self.anchors_in(None, text), self.said

    def like(self, form: Form, line: KnownLine) -> LineKey | None:
        """What classification's memory knows a line's template by."""
        like = self._like  # another thread may put another one in its place
        if like is None or like[0] is not form:
            anchors = self.anchors_in(form, line.text)
            key = None if anchors is None else LineKey(form.key, (self.kept.demonstrations, anchors, self.said))
            if not _is_same(form, self.form):
                return key  # it may be another one for another line
            like = self._like = (form, key)
        return like[1]

    def anchors_in(self, form: Form | None, text: str) -> tuple[Anchor, ...] | None:
        """The candidates told by the pieces of another form, which the text has too; None where one cannot be."""
        if _is_same(form, self.form):
            return self.kept.anchors
        sighting = sighted(text)
        view = Template(text, cut(text, ())) if form is None else form.template(sighting)
        bounds = sighting.bounds
        anchors = []
        for first, skip, last, past in self.extents:
            anchor = view.anchor(bounds[first] + skip, bounds[last] + past)
            if anchor is None:
                return None
            anchors.append(anchor)
        return tuple(anchors)


class KnownTypes(SaidOfText):
    """What classification keeps of candidates: their types."""

    __slots__ = ("_candidates", "_places", "_plan", "kept", "types")

    def __init__(self, candidates: KnownCandidates, kept: AgreedTypes) -> None:
        self.kept = kept
        self._candidates = candidates
        self._places = [place for place, typed in enumerate(kept.agreed) if typed.type != NONE_TYPE]
        self.types = tuple(kept.agreed[place].type for place in self._places)
        self._plan: _EntitySlots | None = None

    def of(self, line: KnownLine) -> SentenceTypes:
        """As the stage says it of a line."""
        return _CLASSIFY.recall(self._candidates.of(line), self.kept, line.view(None))

    @override
    def said_of(self, text: str) -> tuple[Any, ...]:
        return self._said(self._candidates.anchors_in(None, text) or ())

    def like(self, form: Form, line: KnownLine) -> LineKey | None:
        """What validation's memory knows a line's template by."""
        anchors = self._candidates.anchors_in(form, line.text)
        return None if anchors is None else LineKey(form.key, self._said(anchors))

    def tagged(self, line: KnownLine, pool: str, method: MethodSettings) -> TaggedDocument:
        """The line's document, as :func:`~el4ner.assemble.assemble_by` gives it."""
        plan = self._plan
        if plan is None or plan.verdicts is not line.verdicts:
            plan = self._plan = _EntitySlots(self._entities(), self._candidates, line, method)
        return TaggedDocument(line.document.id, line.document.text, plan.entities(line), pool)

    def _said(self, anchors: Sequence[Anchor]) -> tuple[Any, ...]:
        kept = self._candidates.kept
        return kept.demonstrations, tuple(anchors[place] for place in self._places), self.types

    def _entities(self) -> list[tuple[int, TypedSpan]]:
        return [(place, self.kept.agreed[place]) for place in self._places]


class _EntitySlots:
    """The entities of all lines of a form: where each is, and all of it that is the same in all lines."""

    def __init__(
        self,
        entities: Sequence[tuple[int, TypedSpan]],
        candidates: KnownCandidates,
        line: KnownLine,
        method: MethodSettings,
    ) -> None:
        self.verdicts = line.verdicts
        verdicts = (UNVERIFIED,) * len(entities) if line.verdicts is None else line.verdicts
        self._overlaps = method.overlaps
        self._slots: list[tuple[int, int, int, int, str, float, tuple[str, ...], Any, Verdict]] = []
        for (place, typed), verdict in zip(entities, verdicts, strict=True):
            confidence = reported(typed, verdict, method.validation_kind, method.min_confidence)
            if confidence is not None:
                self._slots.append(
                    (
                        *candidates.extents[place],
                        typed.type,
                        confidence,
                        candidates.kept.proposed_by[place],
                        typed.votes,
                        verdict,
                    )
                )
        # Which of them overlap is the same in all lines; which of those stay may depend on their lengths.
        spans = [(entity.start, entity.end) for entity in self._all(line)]
        self._are_apart = all(end <= start for (_, end), (start, _) in pairwise(spans))

    def entities(self, line: KnownLine) -> tuple[Entity, ...]:
        """Those of a line, sorted."""
        entities = self._all(line)
        return tuple(entities) if self._are_apart else resolve_overlaps(entities, self._overlaps)

    def _all(self, line: KnownLine) -> list[Entity]:
        if not self._slots:
            return []
        bounds, text, offset = line.sighting().bounds, line.text, line.start
        entities = []
        for first, skip, last, past, label, confidence, proposed_by, votes, verdict in self._slots:
            start, end = bounds[first] + skip, bounds[last] + past
            entities.append(
                Entity(start + offset, end + offset, text[start:end], label, confidence, proposed_by, votes, verdict)
            )
        return entities


class KnownOfLine(SaidOfText, Protocol[Item_co]):
    """What a stage keeps of a line, for the stage after it."""

    def of(self, line: KnownLine) -> Item_co:
        """As the stage says it of a line."""

    def like(self, form: Form, line: KnownLine) -> LineKey | None:
        """What the next stage's memory knows a line's template by."""


class LineToAsk(Subject[Item]):
    """A line with what one stage keeps of it, as the next stage's memory is asked about it."""

    __slots__ = ("_known", "_line", "key")

    def __init__(self, line: KnownLine, known: KnownOfLine[Item]) -> None:
        self._line = line
        self._known = known
        self.key: Hashable = LineKey(line.text, known)

    @override
    def sighting(self) -> Sighting:
        return self._line.sighting()

    @override
    def view(self, form: Form | None) -> Template:
        return self._line.view(form)

    @override
    def like(self, form: Form) -> Hashable | None:
        return self._known.like(form, self._line)

    @override
    def item(self) -> Item:
        return self._known.of(self._line)


def _extent(anchor: Anchor, form: Form | None) -> Extent:
    # A text as one fixed piece has the bounds of its beginning and of its end.
    return Extent(0, anchor.skip, -1, -anchor.trim) if form is None else form.extent(anchor)


def _is_same(left: Form | None, right: Form | None) -> bool:
    """Whether an anchor of the one form is the same anchor of the other, in a line that has both."""
    return left is right or (
        left is not None and right is not None and left.key == right.key and left.extents == right.extents
    )
