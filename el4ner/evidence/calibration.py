"""The weights of an ensemble's judges for one pool, estimated by leave-one-out from the pool alone; a file.

The sources are put in an order: what extraction found already, then the best alone first, those that ask in context
(they cost most) last. After each one a span whose decision is clear enough is settled, so that the others are asked
about the rest only.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from el4ner.evidence.combination import Combination, Decisions, fit
from el4ner.evidence.judges import Floats, Ints
from el4ner.evidence.leave_one_out import Figures, Sample, with_threshold
from el4ner.evidence.prepared import PreparedEvidence
from el4ner.evidence.sources import BOUNDARIES, Described, InContextSource, Source, described
from el4ner.evidence.span_memory import PoolSpans, drawn
from el4ner.models.files import write_atomically
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = ["FOLDER", "Calibration", "Step", "calibrate", "calibration_file", "calibration_key", "even_calibration"]

FOLDER: Final = "evidence"
"""Of span memories and calibrations, inside the cache folder."""

_FORMAT: Final = 6
IN_CONTEXT_SENTENCES: Final = 200
"""Pool sentences that are asked about where a source asks in context: one costs as much as a sentence of the stream."""
ENOUGH_SENTENCES: Final = 10
MARGINS: Final = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
NEVER: Final = 1.01
"""A margin that no span reaches."""
COSTS_AT_MOST: Final = 0.001
"""F1 that settling a span early may cost, on the pool."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One more source, and how to weigh all sources so far.

    A span whose margin reaches ``margin`` is settled with this step; None: the last step, everything is.
    """

    source: str
    combination: Combination
    margin: float | None
    figures: Figures | None
    """On the pool, if every span were settled here."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """``key`` names all that it depends on. ``figures``: on the pool, with early settling; None if nothing could be
    estimated."""

    key: str
    steps: tuple[Step, ...]
    figures: Figures | None
    sentences: int
    spans: int

    @property
    def fingerprint(self) -> str:
        """Of key and weights. How much of the pool they come from is left out: who combines what others said, by even
        weights, has not read it."""
        content = self.as_json()
        del content["sentences"], content["spans"]
        return hashlib.sha256(orjson.dumps(content)).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """What the file holds."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """Raises KeyError, TypeError or ValueError if ``data`` is something else."""
        if data["format"] != _FORMAT:
            raise ValueError(f"calibration format {data['format']!r}")
        steps = tuple(
            Step(
                source=str(step["source"]),
                combination=Combination(
                    tuple(map(float, step["combination"]["weights"])),
                    float(step["combination"]["none_bias"]),
                    float(step["combination"]["threshold"]),
                    float(step["combination"]["slope"]),
                    float(step["combination"]["offset"]),
                ),
                margin=None if step["margin"] is None else float(step["margin"]),
                figures=_figures(step["figures"]),
            )
            for step in data["steps"]
        )
        return cls(str(data["key"]), steps, _figures(data["figures"]), int(data["sentences"]), int(data["spans"]))

    @classmethod
    def open(
        cls,
        folder: Path,
        sources: Sequence[Source],
        spans: PoolSpans,
        kinds: int,
        *,
        label: str = "calibrating",
        progress: Progress = NO_PROGRESS,
        fresh: bool = False,
        prepared: PreparedEvidence | None = None,
    ) -> Calibration:
        """From its file in ``folder``; else what is prepared, or estimated now, and written there. A damaged file is
        made anew."""
        key = calibration_key(sources)
        path = calibration_file(folder, key)
        calibration = None if fresh else cls._stored(path, key)
        if calibration is not None and (prepared is None or not prepared.fill):
            return calibration
        if calibration is None and prepared is not None and not fresh:
            calibration = cls._stored(calibration_file(prepared.folder, key), key)
        if calibration is None:
            calibration = calibrate(sources, spans, kinds, label=label, progress=progress)
        # A combiner that knows only some of the sources finds the file by this list.
        by_source = [asdict(described(source)) for source in sources]
        content = orjson.dumps({**calibration.as_json(), "sources": by_source}, option=orjson.OPT_INDENT_2)
        write_atomically(path, content)
        if prepared is not None and prepared.fill:
            write_atomically(calibration_file(prepared.folder, key), content)
        return calibration

    @classmethod
    def _stored(cls, path: Path, key: str) -> Calibration | None:
        try:
            stored = cls.from_json(orjson.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, KeyError, TypeError, ValueError) as error:
            log.warning("calibration is damaged and is made anew", extra={"path": str(path), "error": str(error)})
            return None
        return stored if stored.key == key else None


def _figures(data: dict[str, Any] | None) -> Figures | None:
    return None if data is None else Figures(float(data["precision"]), float(data["recall"]), float(data["f1"]))


def calibration_file(folder: Path, key: str) -> Path:
    """Where the calibration with that key is, or would be."""
    return folder / f"calibration-{key}.json"


def calibration_key(sources: Sequence[Described]) -> str:
    """Changes with the models, the prompts, the kinds of evidence, and with the pool and its proposals, which every
    source's fingerprint names; not with the order of the sources. So who hears sources of other processes knows it."""
    parts = sorted([source.name, source.fingerprint, list(source.features)] for source in sources)
    return hashlib.sha256(orjson.dumps([_FORMAT, parts])).hexdigest()[:24]


def calibrate(
    sources: Sequence[Source],
    spans: PoolSpans,
    kinds: int,
    *,
    label: str = "calibrating",
    progress: Progress = NO_PROGRESS,
) -> Calibration:
    """Estimate order, weights, thresholds and margins.

    Args:
        sources: at least one.
        spans: of the pool.
        kinds: how many types there are, none included.
        label: for ``progress``.
        progress: advances with each source.
    """
    sentences = _sentences(sources, spans)
    rows = spans.rows(sentences)
    sample = _sample(spans, sentences, rows, kinds)
    if len(sentences) < ENOUGH_SENTENCES or not (sample.labels < kinds - 1).any():
        return even_calibration(sources, spans)
    progress.start(label, len(sources))
    evidence: dict[str, Floats] = {}
    for source in sources:
        evidence[source.name] = source.leave_one_out(spans, rows, sentences)[spans.proposed[rows]]
        progress.advance(1)
    progress.done()
    alone = {name: _weighed(floats, sample) for name, floats in evidence.items()}
    ordered = sorted(
        sources,
        key=lambda s: (isinstance(s, InContextSource), s.voter != BOUNDARIES, -alone[s.name][1].f1, s.name),
    )
    together = [evidence[ordered[0].name]]
    weighed = [alone[ordered[0].name]]
    for source in ordered[1:]:
        together.append(np.concatenate([together[-1], evidence[source.name]], axis=1))
        weighed.append(_weighed(together[-1], sample))
    steps = [
        Step(source.name, combination, None, figures)
        for source, (combination, figures) in zip(ordered, weighed, strict=True)
    ]
    settled, figures = _with_margins(steps, together, sample)
    return Calibration(calibration_key(sources), settled, figures, len(sentences), len(sample.labels))


def _weighed(evidence: Floats, sample: Sample) -> tuple[Combination, Figures]:
    return with_threshold(fit(evidence, sample.labels, sample.weights), evidence, sample)


def even_calibration(sources: Sequence[Described], spans: PoolSpans | None = None) -> Calibration:
    """Every kind of evidence counts the same, and every source is asked about every span: nothing is estimated.
    ``spans``: of the pool, where they are at hand, to be counted."""
    steps = []
    for number, source in enumerate(sources, start=1):
        features = sum(len(earlier.features) for earlier in sources[:number])
        steps.append(Step(source.name, Combination.even(features), NEVER if number < len(sources) else None, None))
    sentences, labels = (len(spans.texts), len(spans.labels)) if spans is not None else (0, 0)
    return Calibration(calibration_key(sources), tuple(steps), None, sentences, labels)


def _sentences(sources: Sequence[Source], spans: PoolSpans) -> list[int]:
    asks = any(isinstance(source, InContextSource) for source in sources)
    return drawn(spans.texts, IN_CONTEXT_SENTENCES if asks else len(spans.texts), salt="in context ")


def _sample(spans: PoolSpans, sentences: Sequence[int], rows: Ints, kinds: int) -> Sample:
    """What was proposed in those sentences; ``rows`` are of all their spans."""
    places = [(place, span.start, span.end) for place in sentences for span in spans.spans[place]]
    labels, proposed = spans.labels[rows], spans.proposed[rows]
    kept = [place for place, is_proposed in zip(places, proposed, strict=True) if is_proposed]
    weights = spans.weights[rows][proposed]
    return Sample(kept, labels[proposed], gold=int((labels < kinds - 1).sum()), weights=weights)


def _with_margins(steps: list[Step], together: list[Floats], sample: Sample) -> tuple[tuple[Step, ...], Figures]:
    """From the last step but one to the first: the smallest margin that costs no more than it may.

    ``together[i]`` is the evidence of step i and those before it.
    """
    none = together[0].shape[2] - 1
    after = steps[-1].combination.decide(together[-1])
    figures = sample.figures(after, none)
    floor = figures.f1 - COSTS_AT_MOST
    settled = [steps[-1]]
    for step, evidence in reversed(list(zip(steps[:-1], together[:-1], strict=True))):
        here = step.combination.decide(evidence)
        margin = NEVER
        for candidate in MARGINS:
            mixed = _mixed(here, after, candidate)
            reached = sample.figures(mixed, none)
            if reached.f1 >= floor:
                margin, after, figures = candidate, mixed, reached
                break
        settled.insert(0, replace(step, margin=margin))
    return tuple(settled), figures


def _mixed(early: Decisions, late: Decisions, margin: float) -> Decisions:
    take = early.margin >= margin
    return Decisions(
        np.where(take, early.chosen, late.chosen),
        np.where(take, early.confidence, late.confidence),
        np.where(take, early.margin, late.margin),
    )
