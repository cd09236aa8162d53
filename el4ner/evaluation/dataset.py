"""A folder with train, dev and test in CoNLL columns: train is the demonstration pool, test gives the figure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from el4ner.errors import PoolError
from el4ner.evaluation.sentence_records import Labelled
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.pools.read_options import Reading
from el4ner.pools.readers import describe, read_sentences, warn_of_left_out

__all__ = ["Dataset", "LabelledSentence", "gold_of", "load_dataset"]

LabelledSentence = PoolSentence
_AS_IT_IS = Reading()


@dataclass(frozen=True)
class Dataset:
    """``sentences`` of one split, sampled, and the pool made of the train split."""

    name: str
    split: str
    pool: Pool
    sentences: tuple[LabelledSentence, ...]

    def labelled(self) -> list[tuple[str, tuple[Labelled, ...]]]:
        """Every sentence's text and gold standard."""
        return [(sentence.text, gold_of(sentence)) for sentence in self.sentences]


def gold_of(sentence: LabelledSentence) -> tuple[Labelled, ...]:
    """A sentence's labelled entities, in order."""
    return tuple((span.start, span.end, label) for span, label in sentence.spans)


def load_dataset(
    folder: Path, *, split: str = "test", limit: int | None = None, seed: int = 0, reading: Reading = _AS_IT_IS
) -> Dataset:
    """Read ``folder``; with ``limit``, that many sentences drawn by ``seed``, in the file's order.

    Entity types are those of the train split's labels; labels that only another split has stay in the gold standard,
    where they count as missed.

    Raises:
        PoolError: a split is missing, or a line is wrong.
    """
    train = _sentences(folder, "train", reading)
    labels = sorted({label for sentence in train for _, label in sentence.spans})
    if not labels:
        raise PoolError(f"{folder}: the train split has no labelled span")
    sentences = _sentences(folder, split, reading)
    if limit is not None and limit < len(sentences):
        chosen = sorted(random.Random(seed).sample(range(len(sentences)), limit))
        sentences = [sentences[i] for i in chosen]
    name = f"{folder.resolve().parent.name}/{folder.resolve().name}"
    pool = Pool(name=folder.resolve().name, types={label: describe(label) for label in labels}, sentences=tuple(train))
    return Dataset(name=name, split=split, pool=pool, sentences=tuple(sentences))


def _sentences(folder: Path, split: str, reading: Reading) -> list[PoolSentence]:
    if not folder.is_dir():
        raise PoolError(f"{folder}: is no folder; a data set is a folder with train, dev and test files")
    files = sorted(file for file in folder.iterdir() if file.stem == split and file.is_file())
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise PoolError(f"{folder}: needs exactly one {split} file ({split}.conll, {split}.txt, …); found: {names}")
    sentences, left_out = read_sentences(files[0], reading)
    warn_of_left_out(f"split {split}", left_out)
    return list(sentences)
