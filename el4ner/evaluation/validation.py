"""Which kind of validation pays for an ensemble and a pool: off, soft or hard, by leave-one-out on the pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from scipy.stats import rankdata

from el4ner.assemble import assemble
from el4ner.config import MethodSettings
from el4ner.evaluation.scoring import Tally, tally
from el4ner.evaluation.stats import Comparison, compare
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.pipeline import Pipeline
from el4ner.stages.verification import VerifiedPool, VerifiedSentence
from el4ner.types import Document, DocumentEntities, Manifest, Span

__all__ = ["AT_LEAST", "SENTENCES", "SIGNIFICANT", "Kind", "Trial", "auc", "choose", "compared", "try_validation"]

Kind = Literal["off", "soft", "hard"]
SENTENCES: Final = 100
"""Pool sentences that the verifier is asked about: as few-shot prompts they take a minute or a few."""
AT_LEAST: Final = 0.005
SIGNIFICANT: Final = 0.05
"""Validation costs a few-shot prompt a sentence: it has to be better than none by that much F1, with p below that."""


@dataclass(frozen=True, slots=True)
class Trial:
    """``soft`` and ``hard`` are compared with ``off``, sentence by sentence. ``auc``: how often a right span had a
    higher probability of yes than a wrong one; None where all spans were right, or all wrong."""

    verifier: str
    sentences: int
    gold: int
    asked: int
    off: float
    soft: Comparison
    hard: Comparison
    auc: float | None
    seconds_per_sentence: float
    chosen: Kind

    def as_json(self) -> dict[str, Any]:
        """For ``el4ner calibrate --json``: the keys are a promise to scripts."""
        kinds = {"soft": self.soft, "hard": self.hard}
        keep = ("f1", "difference", "difference_ci", "p_value")
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("off", "soft", "hard")},
            "off": {"f1": self.off},
            **{kind: {key: getattr(comparison, key) for key in keep} for kind, comparison in kinds.items()},
        }


def try_validation(
    pipeline: Pipeline,
    pool: str,
    *,
    clock: Callable[[], float],
    limit: int = SENTENCES,
    progress: Progress = NO_PROGRESS,
) -> Trial | None:
    """Ask ``pipeline``'s verifier about sentences of ``pool``, and compare; None where the pool has no evidence."""
    verified = pipeline.verify_pool(pool, limit=limit, clock=clock, progress=progress)
    if verified is None:
        return None
    return compared(
        verified, pipeline.settings.method, pipeline.manifest("validate", pool), verifier=pipeline.settings.verifier
    )


def compared(verified: VerifiedPool, method: MethodSettings, manifest: Manifest, *, verifier: str) -> Trial:
    """The three kinds side by side, all else as ``method`` has it."""
    tallies = {kind: [_tally(sentence, method, manifest, kind) for sentence in verified.sentences] for kind in _KINDS}
    against_off: dict[Kind, Comparison] = {kind: compare(tallies[kind], tallies["off"]) for kind in ("soft", "hard")}
    verdicts = [
        (verdict.probability, _place(typed.candidate.span, typed.type) in sentence.gold)
        for sentence in verified.sentences
        for typed, verdict in sentence.result.validated
    ]
    return Trial(
        verifier=verifier,
        sentences=len(verified.sentences),
        gold=sum(len(sentence.gold) for sentence in verified.sentences),
        asked=len(verdicts),
        off=against_off["soft"].other_f1,
        soft=against_off["soft"],
        hard=against_off["hard"],
        auc=auc([p for p, right in verdicts if right], [p for p, right in verdicts if not right]),
        seconds_per_sentence=verified.seconds / max(1, len(verified.sentences)),
        chosen=choose(against_off),
    )


def choose(against_off: Mapping[Kind, Comparison]) -> Kind:
    """The kind with the best F1 among those that are clearly better than none; ``off`` where there is no such kind.

    Clearly: by at least :data:`AT_LEAST`, and with a p-value below :data:`SIGNIFICANT`. Of equals ``soft``, which keeps
    what the verifier rejects.
    """
    better = {
        kind: comparison.difference
        for kind, comparison in against_off.items()
        if comparison.difference >= AT_LEAST - 1e-9 and comparison.p_value < SIGNIFICANT
    }
    return max(better, key=lambda kind: (better[kind], kind == "soft"), default="off")


def auc(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """How often one of ``right`` is above one of ``wrong``; a tie counts half. None if either is empty."""
    if not right or not wrong:
        return None
    ranks = rankdata([*right, *wrong])
    above = float(ranks[: len(right)].sum()) - len(right) * (len(right) + 1) / 2
    return above / (len(right) * len(wrong))


_KINDS: Final[tuple[Kind, ...]] = ("off", "soft", "hard")


def _tally(sentence: VerifiedSentence, method: MethodSettings, manifest: Manifest, kind: Kind) -> Tally:
    # The stage's own assembly, so that overlaps are resolved by what this kind makes of the confidences.
    document = Document("", sentence.result.sentence.text)
    tagged = assemble(
        DocumentEntities(document, manifest, (sentence.result,)),
        overlaps=method.overlaps,
        validation=kind,
        min_confidence=method.min_confidence,
    )
    return tally(sentence.gold, [(entity.start, entity.end, entity.type) for entity in tagged.entities])


def _place(span: Span, label: str) -> tuple[int, int, str]:
    return span.start, span.end, label
