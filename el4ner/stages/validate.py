"""Stage 4: type validation by one member, the verifier (arXiv 2505.23038, section 3.4).

``paper``: the verifier writes true or false. ``scored``: the probability of yes against no. What a verdict does to the
entity (``method.validation``) is decided where the document is assembled, so a verdict is always what was said.
"""

from __future__ import annotations

from collections.abc import Sequence

from el4ner.engines import checks
from el4ner.engines.base import Engine, GenerateRequest, ScoreItem, ScoreRequest
from el4ner.stages.classify import softmax
from el4ner.stages.context import StageContext
from el4ner.text.white_space import as_read
from el4ner.types import (
    NONE_TYPE,
    DocumentEntities,
    DocumentTypes,
    Manifest,
    Mode,
    SentenceEntities,
    SentenceTypes,
    TypedSpan,
    Usage,
    Verdict,
)

__all__ = ["UNVERIFIED", "unverified", "validate"]

UNVERIFIED = Verdict(holds=True, probability=1.0, verifier=None)
"""Nobody was asked, so nothing speaks against it."""
_YES_NO = (" yes", " no")


def unverified(item: DocumentTypes, manifest: Manifest) -> DocumentEntities:
    """What validation gives of a document where there is nobody to ask: no sentence has to be taken out of it."""
    sentences = tuple(
        SentenceEntities(
            sentence.sentence, tuple((typed, UNVERIFIED) for typed in sentence.typed if typed.type != NONE_TYPE)
        )
        for sentence in item.sentences
    )
    return DocumentEntities(item.document, manifest, sentences, Usage())


def validate(
    batch: Sequence[SentenceTypes], verifier: Engine | None, context: StageContext
) -> tuple[list[SentenceEntities], Usage]:
    """A verdict for every typed span that is no ``none``, in order. ``verifier`` None: all are :data:`UNVERIFIED`."""
    entities = [[span for span in item.typed if span.type != NONE_TYPE] for item in batch]
    usage = Usage()
    verdicts = [[UNVERIFIED] * len(spans) for spans in entities]
    if verifier is not None:
        ask = _scored if context.settings.mode is Mode.SCORED else _written
        asked = [index for index, spans in enumerate(entities) if spans]
        answers, usage = ask([batch[i] for i in asked], [entities[i] for i in asked], verifier, context)
        for index, answer in zip(asked, answers, strict=True):
            verdicts[index] = answer
    return [
        SentenceEntities(item.sentence, tuple(zip(spans, judged, strict=True)))
        for item, spans, judged in zip(batch, entities, verdicts, strict=True)
    ], usage


def _written(
    batch: Sequence[SentenceTypes], entities: Sequence[Sequence[TypedSpan]], verifier: Engine, context: StageContext
) -> tuple[list[list[Verdict]], Usage]:
    requests = [
        GenerateRequest(
            context.prompt(
                verifier,
                "paper_validate",
                item.demonstrations,
                reserve=8,
                sentence=item.sentence.text,
                surface=as_read(span.candidate.span.text),
                type=span.type,
            ),
            3,
            ("\n",),
        )
        for item, spans in zip(batch, entities, strict=True)
        for span in spans
    ]
    results = checks.generate(verifier, requests)
    usage = sum((result.usage for result in results), Usage())
    # Anything but a clear "false" leaves the type standing: a verifier that answers something else has not objected.
    said = iter([not result.text.strip().lower().startswith("false") for result in results])
    return [
        [Verdict(holds, 1.0 if holds else 0.0, verifier.name) for _, holds in zip(spans, said, strict=False)]
        for spans in entities
    ], usage


def _scored(
    batch: Sequence[SentenceTypes], entities: Sequence[Sequence[TypedSpan]], verifier: Engine, context: StageContext
) -> tuple[list[list[Verdict]], Usage]:
    requests = []
    for item, spans in zip(batch, entities, strict=True):
        tails = [
            context.prompts.block("scored", "verify", surface=as_read(span.candidate.span.text), type=span.type)
            for span in spans
        ]
        prompt = context.prompt(
            verifier,
            "scored",
            item.demonstrations,
            reserve=max(len(tail.encode()) for tail in tails) + 8,
            sentence=item.sentence.text,
        )
        requests.append(ScoreRequest(prompt, tuple(ScoreItem(tail, _YES_NO) for tail in tails)))
    results = checks.score(verifier, requests)
    usage = sum((result.usage for result in results), Usage())
    verdicts = []
    for result in results:
        yes = [softmax(scores)[0] for scores in result.scores]
        verdicts.append([Verdict(probability >= 0.5, probability, verifier.name) for probability in yes])
    return verdicts, usage
