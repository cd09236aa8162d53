"""Weighing what sources said elsewhere: the calibration is found by how they describe themselves. No engine.

``el4ner calibrate`` (or any process that hosts the whole ensemble) leaves a file for a pool and its sources. Where all
members have answered, that file's weights are those that a single process uses. Where some have not, the weights of the
others are used, rescaled to the same sum: the rest of the combination (bias, threshold, confidence) was estimated with
all of them, and stays.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from el4ner.errors import ConfigError
from el4ner.evidence.calibration import Calibration, calibration_file, calibration_key, even_calibration
from el4ner.evidence.combination import Combination
from el4ner.evidence.corrections import with_corrections
from el4ner.evidence.encoders import EMBEDDER
from el4ner.evidence.sources import BOUNDARIES
from el4ner.types import Speaker

__all__ = ["Weighed", "Weighing", "covers"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weighed:
    """How to weigh some sources. ``sources``: their names, in the order of the combination's features; what others said
    does not count. ``fingerprint``: of the evidence, as :class:`~el4ner.evidence.Evidence` has it; ``corrected``: and
    with what the pool was taught."""

    sources: tuple[str, ...]
    combination: Combination
    fingerprint: str
    corrected: str


class Weighing:
    """Of one pool's evidence.

    Args:
        pool: its name, for errors.
        folder: where calibrations are.
        prepared: where others are, which came with the package.
        even: all kinds of evidence count the same, and no calibration is needed.
    """

    def __init__(self, pool: str, folder: Path, *, even: bool, prepared: Path | None = None) -> None:
        self._pool = pool
        self._folder = folder
        self._folders = [folder] if prepared is None else [folder, prepared]
        self._even = even
        self._known: dict[tuple[tuple[Speaker, ...], tuple[str, ...]], Weighed | None] = {}

    def of(self, speakers: Sequence[Speaker], expected: Sequence[str]) -> Weighed | None:
        """How to weigh these; None if they were never calibrated, or the file is elsewhere.

        ``speakers``: those by states first, then those in context, both in the ensemble's order; ``expected``: the
        whole ensemble. Where there is no file for them all (two members of different releases), those that have most
        in common with one are weighed.
        """
        key = (tuple(speakers), tuple(expected))
        if key not in self._known:
            even = _whole(even_calibration(speakers)) if self._even else None
            self._known[key] = even or self._found(speakers, expected)
        return self._known[key]

    def missing(self, speakers: Sequence[Speaker]) -> ConfigError:
        """What to say where :meth:`of` knows nothing."""
        names = ", ".join(speaker.name for speaker in speakers)
        return ConfigError(
            f"no calibration in {self._folder} says how to weigh what {names} said of "
            f"pool {self._pool!r}: run el4ner calibrate --fresh {self._pool} with the same configuration, on a machine "
            'that can hold all members, and put its file there; or set method.weights = "even"'
        )

    def _found(self, speakers: Sequence[Speaker], expected: Sequence[str]) -> Weighed | None:
        for folder in self._folders:
            exact, _ = self._read(calibration_file(folder, calibration_key(speakers)))
            if exact is not None and covers(speakers, expected):
                return _whole(exact)
        best: tuple[int, Calibration, Sequence[Speaker], set[str]] | None = None
        for path in (path for folder in self._folders for path in sorted(folder.glob("calibration-*.json"))):
            calibration, sources = self._read(path)
            if calibration is None or sources is None or not covers(sources, expected):
                continue
            if calibration.key != calibration_key(sources):
                continue  # of another release
            heard = _heard(sources, speakers)
            if heard - {BOUNDARIES} and (best is None or len(heard) > best[0]):
                best = (len(heard), calibration, sources, heard)
        return None if best is None else _part(*best[1:])

    def _read(self, path: Path) -> tuple[Calibration | None, list[Speaker] | None]:
        """A calibration, None if it cannot be read; and the sources that it was made of, None in a file of
        el4ner 0.1."""
        try:
            data = orjson.loads(path.read_bytes())
            sources = data.get("sources")
            return Calibration.from_json(data), None if sources is None else [_speaker(source) for source in sources]
        except FileNotFoundError:
            return None, None
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("a calibration cannot be read: %s", error, extra={"path": str(path)})
            return None, None


def covers(speakers: Collection[Speaker], expected: Collection[str]) -> bool:
    """Whether these are the sources of that whole ensemble."""
    return {speaker.voter for speaker in speakers} - {EMBEDDER, BOUNDARIES} == set(expected)


def _heard(sources: Sequence[Speaker], speakers: Collection[Speaker]) -> set[str]:
    """The names of the sources that have spoken; a member's only if all of them have."""
    spoken = set(speakers)
    silent = {source.voter for source in sources if source not in spoken}
    return {source.name for source in sources if source.voter not in silent}


def _whole(calibration: Calibration) -> Weighed:
    return Weighed(
        tuple(step.source for step in calibration.steps),
        calibration.steps[-1].combination,
        f"{calibration.fingerprint}-full",
        f"{with_corrections(calibration).fingerprint}-full",
    )


def _part(calibration: Calibration, sources: Sequence[Speaker], heard: Collection[str]) -> Weighed:
    whole = _whole(calibration)
    widths = {source.name: len(source.features) for source in sources}
    weights = iter(whole.combination.weights)
    kept: list[float] = []
    for name in whole.sources:
        of_source = [next(weights) for _ in range(widths[name])]
        kept += of_source if name in heard else []
    total, sum_kept = sum(whole.combination.weights), sum(kept)
    # Where the others were given no weight at all, they all count the same now.
    scaled = tuple(weight * total / sum_kept if sum_kept > 0 else total / len(kept) for weight in kept)
    return Weighed(
        tuple(name for name in whole.sources if name in heard),
        replace(whole.combination, weights=scaled),
        whole.fingerprint,
        whole.corrected,
    )


def _speaker(data: Mapping[str, Any]) -> Speaker:
    return Speaker(
        str(data["name"]),
        str(data["voter"]),
        str(data["fingerprint"]),
        tuple(map(str, data["features"])),
        bool(data["by_states"]),
    )
