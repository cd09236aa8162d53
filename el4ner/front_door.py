"""The front door of a pipeline: all stages in one call, where a log line whose template is known goes the short way.

Stages that are asked one after the other say the line's answers three times, each in the document's offsets, and each
memory takes them apart again. Here a line is looked at once, the memories are asked about it as it is
(:mod:`el4ner.known_lines`), and its entities are made at the end. What is no single plain line (several of them,
colours, prose), and what somebody has to be asked about, goes the stages' own way, in the same calls: the memories see
the same sentences in the same order, whoever asks them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from el4ner.assemble import assemble_by
from el4ner.config import Settings
from el4ner.errors import DocumentError
from el4ner.known_lines import KnownCandidates, KnownLine, LineToAsk
from el4ner.participation import STAGES, StageName
from el4ner.repeats import AgreedTypes, ExtractedAnchors, LookedAt, Subject
from el4ner.stages.context import StageContext
from el4ner.stages.document_stage import DocumentStage, or_error
from el4ner.stages.hosted_pools import HostedPools
from el4ner.stages.slices import in_slices
from el4ner.stages.validate import unverified
from el4ner.stages.views import SegmentedDocument
from el4ner.text.controls import CleanText, separators
from el4ner.text.template_miner import MOST_FORMS
from el4ner.text.templates import Form
from el4ner.types import (
    Document,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Manifest,
    Sentence,
    SentenceCandidates,
    SentenceTypes,
    TaggedDocument,
    Usage,
)

__all__ = ["FrontDoor", "KnownDocument"]


class KnownDocument(NamedTuple):
    """A document that was tagged without asking anybody, and who has answered the like of it, by stage."""

    tagged: TaggedDocument
    manifests: Mapping[StageName, Manifest]


class _Passing:
    """A document on its way through the stages: as a line as long as all is known of it (``line``), otherwise as what
    the next stage is given (``given``)."""

    __slots__ = ("context", "given", "line", "place")

    def __init__(self, place: int, document: Document, context: StageContext | None) -> None:
        self.place = place
        self.given: Any = document
        self.line: KnownLine | None = None
        self.context = context


@dataclass(frozen=True, slots=True)
class _LineStage:
    """A stage, and what it does with a line.

    Args:
        stage: the stage.
        subject: a line as its memory is asked about it.
        keep: note what the memory has kept for a line, by which form.
        made: what the stage gives of a line, whose answer is its own.
    """

    stage: DocumentStage[Any, Any, Any, Any, Any]
    subject: Callable[[KnownLine], Subject[Any]]
    keep: Callable[[KnownLine, Any, Form | None], None]
    made: Callable[[KnownLine, StageContext, Any], Any]


class FrontDoor:
    """What :meth:`el4ner.pipeline.Pipeline.tag` does. Not thread-safe, as the pipeline, but for :meth:`known`.

    Args:
        settings: the pipeline's.
        extract, classify, validate: its stages.
        contexts: by the pool's name.
        manifest_of: who answers for a stage about documents of a pool.
        within_spans: refuses what has too many candidates.
    """

    def __init__(
        self,
        settings: Settings,
        extract: DocumentStage[Document, SegmentedDocument, Any, Any, DocumentCandidates],
        classify: DocumentStage[DocumentCandidates, DocumentCandidates, Any, Any, DocumentTypes],
        validate: DocumentStage[DocumentTypes, DocumentTypes, Any, Any, DocumentEntities],
        *,
        contexts: HostedPools,
        manifest_of: Callable[[StageName, str], Manifest],
        within_spans: Callable[[DocumentCandidates], DocumentCandidates],
    ) -> None:
        self._method = method = settings.method
        self._contexts = contexts
        self._default_pool = settings.pools.default
        self._manifest_of = manifest_of
        self._within_spans = within_spans
        self._extract, self._classify, self._validate = extract, classify, validate
        self.usage: dict[StageName, Usage] = {}
        """What the stages have cost so far, for those that were asked."""
        self._known: OrderedDict[Form, KnownCandidates] = OrderedDict()
        # What one sense makes of a line depends on what stands in its fields.
        self._takes_lines = method.repeats != "off" and not method.one_sense
        self._steps = (
            _LineStage(extract, lambda line: line, self._keep_candidates, self._candidates_made),
            _LineStage(classify, _to_classify, _keep_types, self._types_made),
            _LineStage(validate, _to_validate, _keep_verdicts, self._entities_made),
        )

    def tag(self, batch: Sequence[Document], progress: Callable[[], None]) -> list[TaggedDocument | DocumentError]:
        """See :meth:`el4ner.pipeline.Pipeline.tag`. ``progress`` is called behind each slice that was asked."""
        results: dict[int, TaggedDocument | DocumentError] = {}
        passing = [self._entering(place, document) for place, document in enumerate(batch)]
        for step in self._steps:
            if step.stage is self._validate and self._method.validation_kind == "off":
                # Nobody has to be asked, so nothing has to be said of lines.
                lines = [each for each in passing if each.line is not None]
                passing = [each for each in passing if each.line is None]
                self._finish(lines, results)
                passing = self._unverified(passing, results)
                break
            passing = self._through(step, passing, results, progress)
        self._finish(passing, results)
        return [results[place] for place in range(len(batch))]

    def known(self, batch: Sequence[Document]) -> list[KnownDocument | None]:
        """See :meth:`el4ner.pipeline.Pipeline.known`."""
        contexts = self._contexts.ready  # no pool is read for it
        by_pool: dict[str, list[_Passing]] = {}
        for place, document in enumerate(batch):
            context = contexts.get(document.pool or self._default_pool)
            passing = self._passing(place, document, context)
            if passing.line is not None and context is not None:
                by_pool.setdefault(context.pool.name, []).append(passing)
        results: list[KnownDocument | None] = [None] * len(batch)
        for pool, group in by_pool.items():
            # First who answers, then what was answered: who changes the one forgets the other before.
            manifests = {stage: self._manifest_of(stage, pool) for stage in STAGES}
            known = self._known_of(pool, group)
            if self._contexts.ready.get(pool) is not contexts[pool]:
                continue  # the pool was taught meanwhile: who answered is somebody else
            for each in known:
                if each.line is not None and each.line.types is not None:
                    tagged = each.line.types.tagged(each.line, pool, self._method)
                    results[each.place] = KnownDocument(tagged, manifests)
        return results

    def _known_of(self, pool: str, group: list[_Passing]) -> list[_Passing]:
        """Those of which all stages know all."""
        memories = [step.stage.memories[pool] for step in self._steps]
        if self._method.validation_kind == "off":
            memories.pop()
        for step, memory in zip(self._steps, memories, strict=False):
            lines = [each.line for each in group if each.line is not None]
            known = []
            for each, line, kept in zip(group, lines, memory.known([*map(step.subject, lines)]), strict=True):
                if kept is not None:
                    step.keep(line, *kept)
                    if step.stage is not self._extract or self._too_many_spans(each) is None:
                        known.append(each)
            group = known
        if group:
            for memory in memories:
                memory.count_known(len(group))
        return group

    def _unverified(
        self, passing: Sequence[_Passing], results: dict[int, TaggedDocument | DocumentError]
    ) -> list[_Passing]:
        """As validation gives it where there is nobody to ask."""
        for each in passing:
            item = or_error(self._validate.admit, each.given)
            if isinstance(item, DocumentError):
                results[each.place] = item
            elif each.context is not None:
                manifest = self._manifest_of("validate", each.context.pool.name)
                each.given = unverified(item, manifest)
        return [each for each in passing if each.place not in results]

    # --- in and out ---------------------------------------------------------------------------------------------

    def _entering(self, place: int, document: Document) -> _Passing:
        return self._passing(place, document, self._contexts.get(document.pool or self._default_pool))

    def _passing(self, place: int, document: Document, context: StageContext | None) -> _Passing:
        passing = _Passing(place, document, context)
        if context is not None and context.pool.text_kind == "log" and self._takes_lines:
            passing.line = self._line_of(document)
        return passing

    def _line_of(self, document: Document) -> KnownLine | None:
        """The document's only sentence, if that can be told without segmenting it: one plain line that is not long."""
        method, text = self._method, document.text
        line = text.strip()
        if not line or "\n" in line or "\r" in line or len(text) > min(method.max_document_chars, method.max_spans):
            return None
        if text.isascii():
            size = len(line)
        elif text[-1].isspace():  # which may be part of the character before it
            return None
        else:
            try:
                size = len(line.encode())
            except UnicodeEncodeError:
                return None
        if size > method.max_sentence_chars:
            return None
        if separators(text):
            return None
        return KnownLine(document, 0 if len(line) == len(text) else len(text) - len(text.lstrip()), line)

    def _finish(self, passing: Sequence[_Passing], results: dict[int, TaggedDocument | DocumentError]) -> None:
        for each in passing:
            line = each.line
            if line is None:
                results[each.place] = assemble_by(self._method, each.given)
            elif line.types is not None and each.context is not None:
                results[each.place] = line.types.tagged(line, each.context.pool.name, self._method)

    # --- through a stage ----------------------------------------------------------------------------------------

    def _through(
        self,
        step: _LineStage,
        passing: Sequence[_Passing],
        results: dict[int, TaggedDocument | DocumentError],
        progress: Callable[[], None],
    ) -> list[_Passing]:
        """Those that go on to the next stage, in their order."""
        by_pool: dict[str, list[_Passing]] = {}
        for each in passing:
            if each.line is None:
                item = or_error(step.stage.admit, each.given)
                if isinstance(item, DocumentError):
                    results[each.place] = item
                    continue
                each.given = item
            if each.context is not None:
                by_pool.setdefault(each.context.pool.name, []).append(each)
        for group in by_pool.values():
            self._or_alone(step, group, results, progress)
        return [each for each in passing if each.place not in results]

    def _or_alone(
        self,
        step: _LineStage,
        group: Sequence[_Passing],
        results: dict[int, TaggedDocument | DocumentError],
        progress: Callable[[], None],
    ) -> None:
        """As the stage itself does it: one whose sentence fits no model is found only while prompts are made."""
        try:
            self._ask(step, group, progress)
        except DocumentError as error:
            if len(group) == 1:
                results[group[0].place] = error
                return
            for each in group:
                self._or_alone(step, [each], results, progress)
            return
        if step.stage is self._extract:
            for each in group:
                refused = self._too_many_spans(each)
                if refused is not None:
                    results[each.place] = refused

    def _ask(self, step: _LineStage, group: Sequence[_Passing], progress: Callable[[], None]) -> None:
        stage, context = step.stage, group[0].context
        assert context is not None
        memory = stage.memories[context.pool.name]
        subjects: list[Subject[Any]] = []
        sentences: dict[int, list[LookedAt[Any]]] = {}
        for each in group:
            if each.line is not None:
                subjects.append(step.subject(each.line))
            else:
                sentences[each.place] = [LookedAt(memory.carry, item) for item in stage.sentences(each.given)]
                subjects += sentences[each.place]
        found = memory.find(subjects, lambda new: in_slices(new, lambda some: stage.ask(some, context), progress))
        self.usage[stage.name] = self.usage.get(stage.name, Usage()) + found.usage
        first = 0
        for each in group:
            if each.line is None:
                looked_at = sentences[each.place]
                placed = stage.placed(each.given, memory.said(looked_at, found, first))
                each.given = self._result(stage, each.given.document, context, placed)
                first += len(looked_at)
                continue
            recalled = found.recalled[first]
            if recalled is not None:
                step.keep(each.line, *recalled)
            else:
                each.given = step.made(each.line, context, found.answers[first])
                each.line = None
            first += 1

    def _result(
        self, stage: DocumentStage[Any, Any, Any, Any, Any], document: Document, context: StageContext, placed: Any
    ) -> Any:
        manifest = self._manifest_of(stage.name, context.pool.name)
        return stage.result(document, manifest, tuple(placed), Usage())

    def _too_many_spans(self, extracted: _Passing) -> DocumentError | None:
        given, line = extracted.given, extracted.line
        if line is not None and line.candidates is not None and extracted.context is not None:
            if len(line.candidates.extents) <= self._method.max_spans:
                return None
            given = self._candidates_made(line, extracted.context, line.candidates.of(line))
        checked = or_error(self._within_spans, given)
        return checked if isinstance(checked, DocumentError) else None

    # --- what the stages keep of a line, and what they make of it -------------------------------------------------

    def _keep_candidates(self, line: KnownLine, kept: ExtractedAnchors, form: Form | None) -> None:
        known = None if form is None else self._known.get(form)
        if known is None or known.kept is not kept:
            known = KnownCandidates(kept, form)
            if form is not None:
                self._known[form] = known
                if len(self._known) > MOST_FORMS:
                    self._known.popitem(last=False)
        line.candidates = known

    def _candidates_made(self, line: KnownLine, context: StageContext, answer: Any) -> DocumentCandidates:
        sentence = Sentence(line.start, line.start + len(line.text), line.text)
        item = SegmentedDocument(line.document, context.pool, CleanText.of(line.document.text), [sentence])
        made: DocumentCandidates = self._result(
            self._extract, line.document, context, self._extract.placed(item, [answer])
        )
        return made

    def _types_made(self, line: KnownLine, context: StageContext, answer: Any) -> DocumentTypes:
        assert line.candidates is not None
        item = self._candidates_made(line, context, line.candidates.of(line))
        made: DocumentTypes = self._result(
            self._classify, line.document, context, self._classify.placed(item, [answer])
        )
        return made

    def _entities_made(self, line: KnownLine, context: StageContext, answer: Any) -> DocumentEntities:
        assert line.types is not None
        item = self._types_made(line, context, line.types.of(line))
        made: DocumentEntities = self._result(
            self._validate, line.document, context, self._validate.placed(item, [answer])
        )
        return made


def _to_classify(line: KnownLine) -> LineToAsk[SentenceCandidates]:
    assert line.candidates is not None
    return LineToAsk(line, line.candidates)


def _keep_types(line: KnownLine, kept: AgreedTypes, form: Form | None) -> None:
    del form
    assert line.candidates is not None
    line.types = line.candidates.types(kept)


def _to_validate(line: KnownLine) -> LineToAsk[SentenceTypes]:
    assert line.types is not None
    return LineToAsk(line, line.types)


def _keep_verdicts(line: KnownLine, kept: Any, form: Form | None) -> None:
    del form
    line.verdicts = kept
