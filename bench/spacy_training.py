"""spaCy's entity recogniser trained on a pool's sentences: what the labels are worth to a tagger that learns weights.

Two beginnings: `blank`, with random weights, and `en_core_web_sm`, with the layers that this model's own recogniser has
learnt from OntoNotes 5 (labelled news, talk and web text) and new types on top. The recogniser is spaCy's default one
(hash embeddings, convolutions, transitions), with its default optimizer.

A fifth of the pool's sentences, drawn by the seed, is held out to decide when to stop; nothing else is seen. What was
best on them is kept, of equals the later one.
"""

from __future__ import annotations

import hashlib
import importlib
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from baseline_spacy import MODEL, NOT_NEEDED

from el4ner.evaluation import Dataset, EvaluationResult, SentenceRecord, summarise
from el4ner.evaluation.dataset import gold_of
from el4ner.evaluation.scoring import Labelled
from el4ner.evaluation.store import RecordStore
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.types import Entity

__all__ = ["BEGINNINGS", "by_training", "examples_of", "trained"]

BEGINNINGS: Final = ("blank", "en_core_web_sm")
HELD_OUT: Final = 0.2
BATCH: Final = 8
DROPOUT: Final = 0.2
CHECK_EVERY: Final = 20
"""Updates."""
PATIENCE: Final = (120, 3)
"""Updates, or epochs where those are more, without a better result on what is held out."""
MOST: Final = (400, 20)
"""As above, in all."""


def trained(pool: Pool, beginning: str, seed: int) -> Any:
    """spaCy's `Language` with nothing but the recogniser.

    Raises:
        SystemExit: spaCy or its model is not installed.
    """
    spacy = _spacy()
    spacy.util.fix_random_seed(seed)
    nlp = spacy.blank("en")
    source = None if beginning == "blank" else _model(spacy)
    config = {} if source is None else {"model": source.get_pipe_config("ner")["model"]}
    recogniser = nlp.add_pipe("ner", config=config)
    for label in pool.types:
        recogniser.add_label(label)
    sentences = list(pool.sentences)
    random.Random(seed).shuffle(sentences)
    held_out = max(1, round(HELD_OUT * len(sentences))) if len(sentences) > 1 else 0
    examples = examples_of(nlp, sentences[held_out:])
    checked = examples_of(nlp, sentences[:held_out]) or examples
    optimizer = nlp.initialize(lambda: examples)
    if source is not None:
        learnt = source.get_pipe("ner").model.get_ref("tok2vec")
        recogniser.model.get_ref("tok2vec").from_bytes(learnt.to_bytes())
    in_an_epoch = -(-len(examples) // BATCH)
    patience, most = (max(updates, epochs * in_an_epoch) for updates, epochs in (PATIENCE, MOST))
    best, best_f1, best_at = recogniser.to_bytes(), -1.0, 0
    for number, batch in enumerate(_batches(examples, random.Random(seed)), start=1):
        nlp.update(batch, sgd=optimizer, drop=DROPOUT)
        if number % CHECK_EVERY:
            continue
        f1 = nlp.evaluate(checked)["ents_f"] or 0.0
        if f1 >= best_f1:
            best = recogniser.to_bytes()
        if f1 > best_f1:
            best_f1, best_at = f1, number
        if number >= most or number - best_at >= patience:
            break
    recogniser.from_bytes(best)
    return nlp


def _batches(examples: Sequence[Any], shuffling: random.Random) -> Iterator[list[Any]]:
    """Without end, in a new order for each epoch."""
    order = list(examples)
    while True:
        shuffling.shuffle(order)
        yield from (order[start : start + BATCH] for start in range(0, len(order), BATCH))


def by_training(dataset: Dataset, beginning: str, seed: int, cache: Path) -> EvaluationResult:
    """The data set's sentences as the tagger finds them that was trained on the data set's pool; kept in ``cache``."""
    spacy = _spacy()
    said = (spacy.__version__, beginning, seed, HELD_OUT, BATCH, DROPOUT, CHECK_EVERY, PATIENCE, MOST)
    key = hashlib.sha256(repr((*said, dataset.pool.fingerprint)).encode()).hexdigest()[:24]
    store = RecordStore(cache, f"spacy-{key}")
    waiting = [each for each in dataset.sentences if store.get(each.text) is None]
    if waiting:
        nlp = trained(dataset.pool, beginning, seed)
        began = time.perf_counter()
        tagged = list(nlp.pipe(each.text for each in waiting))
        seconds = (time.perf_counter() - began) / len(waiting)
        store.add(_record(sentence, document.ents, seconds) for sentence, document in zip(waiting, tagged, strict=True))
    known = {sentence.text: store.get(sentence.text) for sentence in dataset.sentences}
    # The gold standard is the data set's own, as `el4ner eval` has it.
    records = [
        replace(record, gold=gold_of(sentence))
        for sentence in dataset.sentences
        if (record := known[sentence.text]) is not None
    ]
    return summarise(records, pool=dataset.pool, settings={}, fingerprints={})


def _spacy() -> Any:
    try:
        return importlib.import_module("spacy")
    except ModuleNotFoundError as error:
        sys.exit(f"{error}\nrun `uv sync --extra embedded --extra local --group bench` first")


def _model(spacy: Any) -> Any:
    try:
        return spacy.load(MODEL, exclude=list(NOT_NEEDED))
    except OSError as error:
        sys.exit(f"{error}\nrun `uv sync --extra embedded --extra local --group bench` first")


def examples_of(nlp: Any, sentences: Iterable[PoolSentence]) -> list[Any]:
    """Labelled spans that cut a token take the whole of it; of two that then overlap the longer one stays."""
    spacy = _spacy()
    examples = []
    for sentence in sentences:
        document = nlp.make_doc(sentence.text)
        spans = [
            document.char_span(span.start, span.end, label=label, alignment_mode="expand")
            for span, label in sentence.spans
        ]
        kept = spacy.util.filter_spans([span for span in spans if span is not None])
        entities = [(span.start_char, span.end_char, span.label_) for span in kept]
        examples.append(spacy.training.Example.from_dict(document, {"entities": entities}))
    return examples


def _record(sentence: PoolSentence, entities: Sequence[Any], seconds: float) -> SentenceRecord:
    found: list[Labelled] = [(each.start_char, each.end_char, each.label_) for each in entities]
    return SentenceRecord(
        text=sentence.text,
        gold=gold_of(sentence),
        pieces=(),
        candidates=(),
        entities=tuple(Entity(start, end, sentence.text[start:end], label, 1.0) for start, end, label in found),
        seconds={"extract": seconds},
        usage={},
    )
