"""Figures of rows over the same sentences, from counts alone: what was measured on one machine goes on on another.

The file has no text of a data set: four numbers a sentence and row. Whether they are of the same sentences in the same
order, of the same members and the same pool, is told by a fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ablation.paper_rows import PaperRow
from el4ner.errors import El4nerError
from el4ner.evaluation import SentenceRecord
from el4ner.evaluation.contributions import proposers
from el4ner.evaluation.scoring import Tally, f1_of
from el4ner.evaluation.stats import compare, intervals, tallies_of

__all__ = ["RowTallies", "SentenceTally", "load_tallies", "save_tallies"]


class SentenceTally(NamedTuple):
    """Entities of one sentence: right ones, predicted ones, gold ones, and gold ones among the candidates."""

    correct: int
    predicted: int
    gold: int
    proposed: int

    @classmethod
    def of(cls, record: SentenceRecord) -> SentenceTally:
        """What a record comes to."""
        (tally,) = tallies_of([record])
        gold = max(1, len(record.gold))
        return cls(*tally, round(proposers([record]).union.recall * gold))


@dataclass
class RowTallies:
    """Of one data set: each row's tallies, over the same sentences. ``fingerprint``: of the sentences in their order,
    and of all else that decides an answer but the code."""

    name: str
    fingerprint: str
    pool_sentences: int
    rows: dict[str, list[SentenceTally]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Sentences that have been through all rows."""
        return min((len(tallies) for tallies in self.rows.values()), default=0)

    def add(self, measured: Mapping[str, Sequence[SentenceRecord]]) -> None:
        """The next sentences, by row."""
        for row, records in measured.items():
            self.rows.setdefault(row, []).extend(map(SentenceTally.of, records))

    def figures(self, rows: Sequence[PaperRow]) -> dict[str, Any]:
        """The table, over the sentences that all rows have."""
        count = self.count
        strict = {
            row.key: [Tally(each.correct, each.predicted, each.gold) for each in self.rows[row.key][:count]]
            for row in rows
        }
        alone = [row.key for row in rows if not row.is_ensemble] or [rows[0].key]
        best = max(alone, key=lambda key: f1_of(*map(sum, zip(*strict[key], strict=True))))
        return {
            "sentences": count,
            "pool_sentences": self.pool_sentences,
            "reference": best,
            "rows": {row.key: self._row(row, strict[row.key], strict[best]) for row in rows},
        }

    def _row(self, row: PaperRow, strict: Sequence[Tally], best: Sequence[Tally]) -> dict[str, Any]:
        compared = compare(strict, best)
        correct, predicted, gold = (sum(column) for column in zip(*strict, strict=True))
        proposed = sum(each.proposed for each in self.rows[row.key][: len(strict)])
        return {
            "label": row.label,
            "f1": compared.f1,
            "f1_ci": intervals(strict).f1,
            "precision": correct / max(1, predicted),
            "recall": correct / max(1, gold),
            "candidate_recall": proposed / max(1, gold),
            "difference": compared.difference,
            "difference_ci": compared.difference_ci,
            "p_value": compared.p_value,
        }


def load_tallies(path: Path | None, name: str, fingerprint: str, pool_sentences: int) -> RowTallies:
    """What the file has of a data set; nothing, if there is no such file or it has none.

    Raises:
        El4nerError: the file is of other sentences, members, rows, another pool or number type.
    """
    empty = RowTallies(name, fingerprint, pool_sentences)
    known = {} if path is None or not path.exists() else json.loads(path.read_text(encoding="utf-8"))
    if name not in known:
        return empty
    if known[name]["fingerprint"] != fingerprint:
        raise El4nerError(
            f"--tallies {path}: {name} is of other sentences, members, rows, another pool or number type: name another "
            "file, or ask for what it was made with"
        )
    empty.rows = {row: [SentenceTally(*each) for each in tallies] for row, tallies in known[name]["rows"].items()}
    return empty


def save_tallies(path: Path, measured: Sequence[RowTallies]) -> None:
    """Write the data sets' tallies; those of others in the file stay."""
    known = {} if not path.exists() else json.loads(path.read_text(encoding="utf-8"))
    for each in measured:
        known[each.name] = {
            "fingerprint": each.fingerprint,
            "rows": {row: [list(tally) for tally in tallies[: each.count]] for row, tallies in each.rows.items()},
        }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(known, separators=(",", ":")) + "\n", encoding="utf-8")
    partial.replace(path)
