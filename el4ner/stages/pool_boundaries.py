"""Who proposes spans of a pool's documents by the states of words, and what reading a pool with a member takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from el4ner.config import Settings
from el4ner.engines.base import Engine, Prompt, StateEngine
from el4ner.evidence.calibration import ENOUGH_SENTENCES
from el4ner.evidence.kept_states import KeptStates
from el4ner.evidence.prepared import SHIPPED, PreparedEvidence
from el4ner.evidence.reading import AT_ONCE, PoolReading
from el4ner.evidence.span_memory import chosen_sentences
from el4ner.models.locking import exclusive
from el4ner.participation import goes_by_mean
from el4ner.pools import Pool
from el4ner.prompts import PromptSet
from el4ner.proposing.boundary_proposer import BoundaryProposer, KnownSentence
from el4ner.proposing.word_reader import WordReader
from el4ner.stages.context import StageContext
from el4ner.stages.extract import cheap_proposals

__all__ = [
    "bare_prompt",
    "kept_states",
    "known_sentences",
    "make_proposers",
    "shown_in_prompts",
    "weighs_boundaries",
    "word_reader",
]


def make_proposers(
    settings: Settings,
    engines: Mapping[str, Engine],
    pools: Mapping[str, Pool],
    *,
    folder: Path,
    reading: PoolReading = AT_ONCE,
    prepared: PreparedEvidence = SHIPPED,
) -> dict[str, BoundaryProposer]:
    """Who proposes spans by the states of words, by the pool's name: none where no member shows them, of a pool that
    says too little, and for log lines, whose parts are told by their forms.

    Reads each pool's words, where neither ``prepared`` nor ``folder`` has what was solved of them.
    """
    engine = engines.get(settings.proposer or "")
    if not isinstance(engine, StateEngine):
        return {}
    method = settings.method
    prompts = PromptSet(method.prompt_version)
    proposers = {}
    for name, pool in pools.items():
        if pool.text_kind == "log":
            continue
        context = StageContext(pool, prompts, method)
        sentences = known_sentences(context)
        if len(sentences) < ENOUGH_SENTENCES or not any(sentence.entities for sentence in sentences):
            continue
        kept = kept_states(reading.by(engine), folder, pool, "words")
        label = f"reading the words of pool {name} with {engine.name}"
        with exclusive(folder / f"{pool.fingerprint}.lock", reading.waiting, reading.meanwhile):
            proposer = BoundaryProposer.open(
                sentences,
                word_reader(kept, context),
                folder,
                label=label,
                progress=reading.progress,
                prepared=prepared,
                call=reading.call,
            )
            kept.tidy()
        proposers[name] = replace(proposer, reader=word_reader(engine, context))
    return proposers


def weighs_boundaries(settings: Settings, pools: Mapping[str, Pool]) -> bool:
    """Whether classification needs to know what a member's states of words propose in some of these pools."""
    by_mean = goes_by_mean(settings.method, shows_states=True)
    return settings.proposer is not None and not by_mean and any(pool.text_kind != "log" for pool in pools.values())


def known_sentences(context: StageContext) -> list[KnownSentence]:
    """The sentences that evidence is made from, each text once."""
    cheap = cheap_proposals(context)
    known: dict[str, KnownSentence] = {}
    for index in chosen_sentences(context.pool, context.settings.pool_sentences):
        sentence = context.pool.sentences[index]
        if len(sentence.text) <= context.settings.max_sentence_chars and sentence.text not in known:
            places = tuple((span.start, span.end) for span, _ in sentence.spans)
            known[sentence.text] = KnownSentence(sentence.text, places, cheap(sentence))
    return list(known.values())


def word_reader(engine: StateEngine, context: StageContext) -> WordReader:
    """Reads the words of sentences with the engine."""
    return WordReader(engine, bare_prompt(engine, context), _again(context), version=shown_in_prompts(context))


def kept_states(engine: StateEngine, folder: Path, pool: Pool, use: str) -> KeptStates:
    """For reading a pool: what its earlier contents made the member read is known."""
    key = hashlib.sha256(f"{engine.fingerprint} {pool.name} {use}".encode()).hexdigest()[:24]
    return KeptStates(engine, folder / f"states-{key}.sqlite")


def _again(context: StageContext) -> Callable[[str], str]:
    return lambda text: context.prompts.block("scored", "user", demonstrations=(), sentence=text)


def shown_in_prompts(context: StageContext) -> str:
    """Of all that prompts show besides the sentence: wording, types and their descriptions, demonstrations."""
    return f"{context.prompts.version}-{context.pool.fingerprint}"


def bare_prompt(engine: StateEngine, context: StageContext) -> Callable[[str], Prompt]:
    """From a sentence to its zero-shot prompt."""
    # Half of what the model reads is left for a span: no span is longer than its sentence.
    return lambda text: context.prompt(engine, "scored", (), reserve=len(text.encode()) + 8, sentence=text)
