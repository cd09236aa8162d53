"""Configuration: one TOML file plus environment variables, checked before anything starts.

Sources, the later wins: defaults, the preset that ``ensemble.preset`` names, the TOML file, environment variables
``EL4NER_<SECTION>__<KEY>`` (``EL4NER_METHOD__MODE=paper``), keyword overrides (the command line's options).
A wrong setting raises :class:`~el4ner.errors.ConfigError`: the key's full name, where it was set, what is allowed.

:mod:`workers.config` adds the stream's own sections to the same file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from el4ner.config_errors import ENV_PREFIX, UNSHOWN_INPUT, Sources, explain, settings_of
from el4ner.errors import ConfigError
from el4ner.nearest import no_such
from el4ner.toml_files import read_toml
from el4ner.types import Mode

__all__ = [
    "UNSHOWN_INPUT",
    "Device",
    "EnsembleSettings",
    "ExllamaSettings",
    "MethodSettings",
    "ModelSettings",
    "PoolsSettings",
    "RetrievalSettings",
    "ServerSettings",
    "Settings",
    "load_settings",
    "preset_names",
]

NON_SETTING_VARIABLES: Final = frozenset({"EL4NER_CONFIG", "EL4NER_CACHE_DIR"})
STREAM_SECTIONS: Final = frozenset({"entities", "kafka", "redaction", "redis", "serve", "ui", "worker"})
"""Sections of the same file that :mod:`workers.config` reads; the method alone passes them over."""

SHOW_STATES: Final = frozenset({"transformers", "exllamav2", "exllamav3"})
"""Engines that show a model's hidden states."""

RESERVED_NAMES: Final = frozenset({"boundaries", "chunks", "embedder", "lexicon", "taught"})
"""What proposes spans and votes on them beside the members, by the names that results have for it."""

PositiveInt = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A table of the file. Unknown keys are errors: a misspelt setting must not be ignored."""

    # An error of pydantic's own, in a traceback, shows what is wrong and not the value, which may be a password.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ExllamaSettings(Section):
    """``[models.NAME.exllama]``: for the engines ``exllamav2`` and ``exllamav3`` (experimental)."""

    cache_tokens: Annotated[int, Field(ge=1024, multiple_of=256)] = 32_768
    """The key-value cache, in tokens: running answers and what is kept of prompts read before share its pages."""
    cache_bits: Literal[4, 6, 8, 16] = 16
    """Bits of a number in the cache. Fewer make room for more tokens and answer a little worse."""
    max_batch_size: Annotated[int, Field(gt=0, le=1024)] = 64
    """The most answers that are written at the same time."""
    score_rows: Annotated[int, Field(gt=0, le=1024)] = 64
    """The most continuations that one forward pass scores."""
    attention: Literal["auto", "flash", "varlen", "torch"] = "auto"
    """Of ExLlamaV2: ``flash``: flash-attn, which has to be installed; ``varlen``: the FlashAttention kernel that torch
    brings (``torch.nn.attention.varlen``), not for models that cap their scores; ``torch``: plain torch, everywhere.
    ``auto``: the first of these that is there, can do what the model needs and passes the causal self-check."""
    batch_seconds: Annotated[float, Field(gt=0)] = 120.0
    """A call that has not been answered in this time is given up, and its batch tried in halves."""
    reserve_mb: Annotated[int, Field(ge=0)] = 512
    """GPU memory that is left to others when memory is planned."""


class ServerSettings(Section):
    """``[models.NAME.server]``: for the engine ``server``, model servers behind an address."""

    urls: Annotated[tuple[str, ...], Field(min_length=1)]
    """Base addresses, such as ``http://10.0.0.5:8000``; each serves the same model. Work goes to the one that has the
    least of it."""
    kind: Literal["auto", "llama.cpp", "vllm", "sglang", "tabbyapi"] = "auto"
    """What serves; ``auto`` asks it."""
    model: str | None = None
    """The model's name there; None takes the only one that it lists."""
    api_key: SecretStr | None = None
    """Sent as a bearer token."""
    ca_file: Path | None = None
    """Certificates that ``https://`` servers are checked against; None takes the system's."""
    connections: Annotated[int, Field(gt=0, le=1024)] = 16
    """Requests that may be on their way to each server at the same time; to llama.cpp no more than it has slots."""
    connect_seconds: Annotated[float, Field(gt=0)] = 5.0
    request_seconds: Annotated[float, Field(gt=0)] = 120.0
    """A request that is not answered in this time counts as failed."""
    tries: Annotated[int, Field(gt=0, le=20)] = 4
    """How often a request is sent, to another server where there is one, before the call is given up for now."""


Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class ModelSettings(Section):
    """``[models.NAME]``: where a member's weights are and what runs them."""

    source: str
    """``packaged:NAME`` (weights from a Python package), ``quantized:SOURCE@4.0bpw`` (what ``el4ner models quantize``
    made), a local folder, or a hub id. For the engine ``server`` the tokenizer alone is read from it."""
    engine: Literal["transformers", "exllamav2", "exllamav3", "server", "instant"] = "transformers"
    """What runs it. ``exllamav3`` (EXL3) is experimental, since it has never been run on hardware: until the tests in
    ``tests/gpu`` have passed with it on a card."""
    device: Device = "auto"
    """``cpu``, ``cuda`` or ``cuda:1``; ``auto`` is the first GPU if there is one; members of the ExLlama engines
    are spread over all GPUs, by what each has room for."""
    dtype: Literal["auto", "bfloat16", "float32", "int8"] = "auto"
    """``int8``: linear layers multiply 8-bit integers. ``auto``: bfloat16 on a GPU and on a processor that multiplies
    it faster than float32 (timed once on a machine), else int8, or float32 where that does not go. Of
    ``transformers``."""
    threads: PositiveInt | None = None
    max_batch_tokens: PositiveInt | None = None
    """The most tokens that one forward pass reads; larger batches are split. None: 4,096; for
    ``transformers`` on a GPU up to 16,384, as there is memory."""
    prefix_cache_mb: Annotated[int, Field(ge=0)] = 48
    """For prompts read before. What they have in common is kept once (the default prompts: 10 MB in float32 and int8,
    half in bfloat16; 45 KB for each token of a type or a description), the rest is about a megabyte a sentence."""
    exllama: ExllamaSettings = ExllamaSettings()
    server: ServerSettings | None = None

    @model_validator(mode="after")
    def _server_has_an_address(self) -> ModelSettings:
        if (self.engine == "server") != (self.server is not None):
            raise ValueError(
                'engine "server" needs a table [models.NAME.server] with urls'
                if self.server is None
                else f'the table server is for engine "server", not {self.engine!r}'
            )
        return self


class EnsembleSettings(Section):
    """``[ensemble]``: which models work together."""

    preset: str = "default"
    members: Annotated[tuple[str, ...], Field(min_length=1)]
    verifier: str | None = None
    """The member that validates; None takes the last one."""
    proposer: str | None = None
    """The member whose states of words say where entities begin and end (``method.proposals``); None takes the last one
    that shows its states."""

    @model_validator(mode="after")
    def _members_differ(self) -> EnsembleSettings:
        if len(set(self.members)) != len(self.members):
            raise ValueError(f"a member is named twice in {list(self.members)}")
        for name in RESERVED_NAMES.intersection(self.members):
            raise ValueError(
                f"no member can be called {name!r}: results name something else so; rename [models.{name}]"
            )
        return self


class PoolsSettings(Section):
    """``[pools]``: the demonstration pools that this process hosts."""

    default: str = "news"
    """The pool of a document that names none."""
    paths: Mapping[str, str] = Field(default_factory=lambda: {"news": "shipped:news", "logs": "shipped:logs"})
    """Pool name → ``shipped:NAME``, or a folder with a ``pool.toml``, or a JSON or CoNLL file."""
    on_error: Literal["stop", "skip"] = "stop"
    """What is done with a sentence of a pool's files that is wrong: ``skip`` leaves it out, with a warning. This and
    the three below are for files without a ``pool.toml`` that says otherwise."""
    join: Literal["script", "space", "none"] = "script"
    """How the tokens of CoNLL files become a text. ``script``: with spaces, but for scripts that are written without
    (Chinese, Japanese, Thai, …); ``space``: with spaces whatever the script; ``none``: without."""
    offsets: Literal["auto", "code-points", "utf-16"] = "auto"
    """What the offsets of doccano and Label Studio count; ``auto`` finds out by where words begin and end. It makes a
    difference after emoji."""
    ignore: tuple[str, ...] = ()
    """Keys of JSON records that say nothing about entities; others that are not known are errors."""
    renew_at: Annotated[float, Field(gt=0)] = 0.2
    """By which share of its files' sentences a pool grows, as it is taught, before its weights and boundaries are
    estimated anew."""

    @model_validator(mode="after")
    def _default_is_hosted(self) -> PoolsSettings:
        if self.default not in self.paths:
            hint = no_such("pool", self.default, sorted(self.paths))
            raise ValueError(f"default pool {self.default!r} is not in pools.paths: {hint}")
        return self


class RetrievalSettings(Section):
    """``[retrieval]``: which pool sentences are shown as demonstrations."""

    kind: Literal["span", "sentence", "random", "none"] = "span"
    k: PositiveInt = 5
    embedder: str = "packaged:all-minilm-l6-v2"
    query_spans: Literal["auto", "chunks", "models"] = "auto"
    """Who proposes the input's spans: every model zero-shot (the paper), or the cheap chunker.
    ``auto``: ``models`` in paper mode, ``chunks`` in scored mode."""
    pool_spans: Literal["labelled", "models"] = "labelled"
    """By which spans the pool's sentences are found: their labelled ones, or those that every member proposes in them
    zero-shot, as in the input. The members are asked about each pool once, which takes as long as a stream of that many
    sentences."""
    seed: int = 0
    """For ``random``: the same sentence always gets the same demonstrations."""


class MethodSettings(Section):
    """``[method]``: how the stages work."""

    mode: Mode = Mode.SCORED
    overlaps: Literal["flat", "nested"] = "flat"
    one_sense: bool = False
    """Mentions of one surface in a document have one type, that with the most votes by log-odds. Measured on dev
    splits, whose documents are sentences: no difference."""
    proposals: Annotated[tuple[Literal["boundaries", "chunks", "lexicon", "models"], ...], Field(min_length=1)] = (
        "boundaries",
        "chunks",
        "lexicon",
    )
    """Who proposes spans in scored mode: the chunker, the pool's own surfaces, the models by what they write; and
    ``boundaries``: one member by its states of a sentence's words, which also drops what others propose and hardly is
    an entity. In paper mode the models."""
    evidence: tuple[Literal["neighbours", "prototypes", "in_context"], ...] = ("neighbours", "prototypes")
    """What scored mode classifies by: the pool's spans that are most similar, their types' means (both by hidden states
    of the members), and the members' answers in context. A member that shows no states is asked in context instead."""
    encoder: Literal["members", "embedder"] = "members"
    """Whose vectors make spans similar: the members' hidden states, or the sentence-transformer of retrieval (evidence
    without a language model)."""
    weights: Literal["calibrated", "even"] = "calibrated"
    """``calibrated``: estimated by leave-one-out on the pool when it is first used, and kept in a file."""
    adaptive: bool = False
    """Ask the next member only about spans that those before it left unclear. False asks every member about all."""
    priors: Literal["pool", "density", "stream"] = "pool"
    """How frequent entities and types are taken to be: as in the pool; ``density``: how many of the candidates are
    entities follows the stream's latest answers; ``stream``: the types' shares among them too. With the last two, an
    answer depends on what the process has seen."""
    drift_threshold: Annotated[float, Field(gt=0, le=1)] = 0.05
    """From which divergence on a log line says that the stream's mix of types is unlike the pool's (Jensen-Shannon, in
    bits). Windows of 200 entities that were like the pool reached 0.016, on two data sets."""
    validation: Literal["auto", "off", "soft", "hard"] = "auto"
    """``hard`` drops what the verifier rejects (the paper), ``soft`` only lowers its confidence.
    ``auto``: ``hard`` in paper mode, ``off`` in scored mode, where small verifiers were no better than chance."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_new_tokens: PositiveInt = 96
    constrain: bool = False
    """Members that list spans can write nothing but lines with whole words of the sentence (or none). The paper lets
    them write freely and drops what is not in the sentence."""
    pool_sentences: Annotated[int, Field(ge=10, le=100_000)] = 1_500
    """Of a larger pool so many sentences are read and compared with, those with entities first. What more of them add
    grows slowly, and each costs as much as a sentence of the stream, once: a pool of any size is ready in minutes."""
    max_document_chars: PositiveInt = 200_000
    max_sentence_chars: Annotated[int, Field(gt=0, le=10_000)] = 1_000
    """A longer sentence is split, at white space where there is some: never cut. Reading one may take time in the
    square of its length, so this bounds what a character of a document costs."""
    max_sentences: PositiveInt = 1_000
    """A document that has more (a log document: lines) is refused: what a document costs is known beforehand."""
    max_spans: PositiveInt = 10_000
    """A document in which more spans are proposed is refused. Prose has about 110 in 1,000 characters, 270 at most."""
    repeats: Literal["off", "exact", "templates"] = "templates"
    """Which sentences are not asked again. ``exact``: those with a text that was answered before, which get the same
    answers. ``templates``: also log lines that differ from one that was answered only in what varies from line to line
    (times, numbers, addresses, words seen to vary); they take over its answers, so these depend on what came first."""
    repeat_cache_sentences: PositiveInt = 20_000
    """How many sentences, and as many line templates, each stage remembers of each pool: about 2 kB each."""
    prompt_version: str = "v1"

    @property
    def validation_kind(self) -> Literal["off", "soft", "hard"]:
        """``validation`` with ``auto`` resolved."""
        if self.validation == "auto":
            return "hard" if self.mode is Mode.PAPER else "off"
        return self.validation


class Settings(Section):
    """Everything that the method needs: the whole file but for the stream's sections."""

    ensemble: EnsembleSettings
    models: Mapping[str, ModelSettings]
    pools: PoolsSettings = PoolsSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    method: MethodSettings = MethodSettings()

    @model_validator(mode="after")
    def _members_are_models(self) -> Settings:
        for name in self.ensemble.members:
            if name not in self.models:
                hint = no_such("model", name, sorted(self.models))
                raise ValueError(f"ensemble.members: there is no [models.{name}] for the member {name!r}: {hint}")
        members = self.ensemble.members
        for role, chosen in (("verifier", self.ensemble.verifier), ("proposer", self.ensemble.proposer)):
            if chosen is not None and chosen not in members:
                raise ValueError(f"ensemble.{role}: {no_such('member', chosen, members)} (ensemble.members)")
        proposer = self.ensemble.proposer
        if proposer is not None and self.models[proposer].engine not in SHOW_STATES:
            raise ValueError(
                f"ensemble.proposer: {proposer!r} runs on engine {self.models[proposer].engine!r}, which shows no "
                f"hidden states; those that do: {', '.join(sorted(SHOW_STATES))}"
            )
        return self

    @property
    def verifier(self) -> str:
        """The name of the member that validates."""
        return self.ensemble.verifier or self.ensemble.members[-1]

    @property
    def proposer(self) -> str | None:
        """The name of the member that proposes spans by its states of words; None: none does."""
        method = self.method
        if method.mode is Mode.PAPER or method.encoder == "embedder" or "boundaries" not in method.proposals:
            return None
        showing = [name for name in self.ensemble.members if self.models[name].engine in SHOW_STATES]
        return self.ensemble.proposer or (showing[-1] if showing else None)


S = TypeVar("S", bound=Settings)


def preset_names() -> list[str]:
    """The ensembles that ship with the package, by name."""
    return sorted(
        Path(file.name).stem
        for file in (resources.files("el4ner") / "presets").iterdir()
        if file.name.endswith(".toml")
    )


def load_settings(
    cls: type[S],
    path: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
    passed_over: frozenset[str] = frozenset(),
) -> S:
    """Read and check the configuration.

    Args:
        cls: :class:`Settings` or a subclass with further sections.
        path: the TOML file; None takes ``EL4NER_CONFIG`` from ``environ``, or no file.
        environ: environment variables.
        overrides: nested like the file; the last word.
        passed_over: sections that are somebody else's.

    Raises:
        ConfigError: names the key, its source and what is allowed.
    """
    if path is None and environ.get("EL4NER_CONFIG"):
        path = Path(environ["EL4NER_CONFIG"])
    in_file = read_toml(path, ConfigError) if path is not None else {}
    in_environ = _from_environ(environ)
    _refuse_single_underscores(environ, cls)
    by_hand = dict(overrides or {})
    preset = "default"
    for source in (in_file, in_environ, by_hand):
        ensemble = source.get("ensemble")
        if isinstance(ensemble, Mapping):
            preset = str(ensemble.get("preset", preset))
    merged: dict[str, Any] = {}
    for source in (_read_preset(preset), in_file, in_environ, by_hand):
        ensemble = source.get("ensemble")
        if isinstance(ensemble, Mapping) and "members" in ensemble:
            # Other members: those that an earlier source chose among its own are not meant any more.
            chosen = merged.get("ensemble")
            if isinstance(chosen, dict):
                for role in ("verifier", "proposer"):
                    chosen.pop(role, None)
        merged = _merge(merged, source)
    merged = {key: value for key, value in merged.items() if key not in passed_over}
    try:
        return cls.model_validate(merged)
    except ValidationError as error:
        sources = Sources(path, in_file, in_environ)
        raise ConfigError(explain(error, cls, sources, sorted(passed_over))) from error


def _read_preset(name: str) -> dict[str, Any]:
    file = resources.files("el4ner") / "presets" / f"{name}.toml"
    if not file.is_file():
        raise ConfigError(f"ensemble.preset: {no_such('preset', name, preset_names())}")
    loaded = tomllib.loads(file.read_text(encoding="utf-8"))
    loaded.setdefault("ensemble", {})["preset"] = name
    return loaded


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """``EL4NER_METHOD__MODE=paper`` → ``{"method": {"mode": "paper"}}``; values are read as TOML where they parse."""
    nested: dict[str, Any] = {}
    for variable, raw in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or "__" not in variable or variable in NON_SETTING_VARIABLES:
            continue
        *parents, leaf = variable.removeprefix(ENV_PREFIX).lower().split("__")
        table = nested
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{variable}: another variable sets {parent!r} to a value, so it has no settings")
        table[leaf] = _value(raw)
    return nested


def _refuse_single_underscores(environ: Mapping[str, str], cls: type[Settings]) -> None:
    """Say that ``EL4NER_METHOD_MODE`` sets nothing: its author thinks that it does."""
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or "__" in variable:
            continue
        words = variable.removeprefix(ENV_PREFIX).lower()
        for section in cls.model_fields:
            key = words.removeprefix(f"{section}_")
            if key != words and key in settings_of(cls, (section,)):
                meant = f"{ENV_PREFIX}{section}__{key}".upper()
                raise ConfigError(f"{variable}: there is no such variable; nearest: {meant}, with two underscores")


def _value(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return merged
