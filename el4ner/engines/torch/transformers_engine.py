"""The default engine: any causal language model of transformers that passes a self-check, on torch.

Everything runs as packed forward passes (:mod:`el4ner.engines.torch.packed_model`): prompts of different lengths
without padding, questions that share a prompt as a tree behind it, and prompts read before from a cache of key-value
states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Final, Literal, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from transformers import __version__ as transformers_version
from typing_extensions import override

from el4ner.engines.base import (
    LAYERS,
    GenerateRequest,
    GenerateResult,
    ScoreRequest,
    ScoreResult,
    StateEngine,
    StateRequest,
    StateResult,
)
from el4ner.engines.constraint import TokenMask
from el4ner.engines.packing import TokenQuestion, plant
from el4ner.engines.token_engine import MarkedTail, PromptQuestions, TokenEngine
from el4ner.engines.torch.decode_graphs import Recorder
from el4ner.engines.torch.heap import give_back_freed_memory
from el4ner.engines.torch.int8_linear import outliers_digest, quantize_linears
from el4ner.engines.torch.model_loading import LoadedModel, choose_device, load_model
from el4ner.engines.torch.number_types import choose_precision
from el4ner.engines.torch.packed_model import Attend, PackedModel
from el4ner.engines.torch.prefix_cache import PrefixCache
from el4ner.engines.torch.prompt_reading import Part, PromptReader, PromptRow
from el4ner.engines.torch.waiting import import_torch
from el4ner.errors import EngineError, EngineOutOfMemoryError, ModelError
from el4ner.models.folder import folder_digest, model_digest
from el4ner.models.prepare import default_cache_dir
from el4ner.models.safety import check_folder
from el4ner.models.self_checks import check_key, has_passed, processor, remember_passed, source_digest
from el4ner.types import Usage

__all__ = ["TransformersEngine"]

DRIVER: Final = 1
"""Part of every fingerprint: counted up when this driver may answer differently."""
ENOUGH_FOR_A_PASS: Final = 2048
"""Row by row, prefill speed is the same for passes of some 400 to 3,000 tokens (measured on two AVX512-BF16 cores);
larger passes only take more memory for masks and activations."""
LARGEST_PASS: Final = {"rows": 4096, "together": 16_384}
"""What ``max_batch_tokens`` is where nobody sets it. Where rows attend together a pass costs the host some thousand
launches, however much it reads."""
DECODED_TOGETHER: Final = 8
"""Rows are decoded together while their key-value states hold at most this many times ``max_batch_tokens``."""
TREE_NODES: Final = 2048
"""The most nodes of one tree of questions, if a single question has no more: a mask grows with their square."""
LEAST_PASS: Final = 1024
_READ_BETWEEN: Final = 8192
"""Tokens that are read before freed memory is given back to the system: some seconds of work, for milliseconds."""
_CHECKED_MODULES: Final = (
    "capturing",
    "device_copies",
    "packing",
    "sdpa",
    "torch/attention_plans",
    "torch/decode_graphs",
    "torch/int8_linear",
    "torch/joint_attention",
    "torch/meta_init",
    "torch/middle_layers",
    "torch/model_loading",
    "torch/packed_model",
    "torch/past_states",
    "torch/row_blocks",
    "torch/stored_tables",
    "torch/transformers_engine",
)
"""What a self-check depends on of this package: a change to one of them has every model checked again."""
OF_FREE_MEMORY: Final = 0.4
"""What the states of rows that are decoded together may take of a GPU."""
PASS_OF_FREE_MEMORY: Final = 0.25
"""What the activations of a pass may take of it, where nobody says how many tokens a pass has."""

P = ParamSpec("P")
R = TypeVar("R")


def _engine_errors(method: Callable[P, R]) -> Callable[P, R]:
    """What torch raises, as errors of this package; nothing records gradients."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with torch.inference_mode():
                return method(*args, **kwargs)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise EngineOutOfMemoryError(f"out of memory: {error}") from error
        except RuntimeError as error:
            if "allocate memory" in str(error) or "out of memory" in str(error).lower():
                raise EngineOutOfMemoryError(f"out of memory: {error}") from error
            raise EngineError(f"the model failed: {error}") from error

    return guarded


class TransformersEngine(TokenEngine, StateEngine):
    """Make one with :meth:`load`."""

    def __init__(
        self,
        name: str,
        loaded: LoadedModel,
        *,
        fingerprint: str,
        digest: str,
        threads: int | None,
        max_batch_tokens: int | None,
        prefix_cache_bytes: int,
        attend: Attend | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        model, self._precision = loaded.model, loaded.precision
        packed = PackedModel(model, dtype=loaded.dtype, attend=attend, recorder=recorder)
        computes_in: object = packed.dtype
        if loaded.precision == "int8":
            computes_in = f"int8 {outliers_digest(loaded.int8_inputs)}"
        listed = getattr(model.generation_config, "eos_token_id", None)
        super().__init__(
            name,
            loaded.tokenizer,
            identity=(DRIVER, fingerprint, computes_in),
            context_length=int(model.config.get_text_config().max_position_embeddings),
            end_tokens=frozenset(listed if isinstance(listed, list) else [listed] if listed is not None else []),
            model=digest,
        )
        self._model = packed
        self._threads = threads
        self._cache = PrefixCache(prefix_cache_bytes)
        free = torch.cuda.mem_get_info(self._model.device)[0] if self._model.device.type == "cuda" else None
        largest = max_batch_tokens or _largest_pass(self._model.attend, self._model.pass_bytes_per_token, free)
        self._pass_tokens = largest if self._model.attend == "together" else min(largest, ENOUGH_FOR_A_PASS)
        self._tree_nodes = min(self._pass_tokens, TREE_NODES)
        self._group_tokens = DECODED_TOGETHER * largest
        if free is not None:
            self._group_tokens = min(self._group_tokens, int(OF_FREE_MEMORY * free) // self._model.bytes_per_token)
        self._tokens_at_giving_back = 0
        self._reader = PromptReader(name, self._model, self._cache, self._pass_tokens)

    @classmethod
    def load(
        cls,
        name: str,
        path: Path,
        *,
        device: str = "auto",
        dtype: Literal["auto", "bfloat16", "float32", "int8"] = "auto",
        threads: int | None = None,
        max_batch_tokens: int | None = None,
        prefix_cache_bytes: int = 256 << 20,
        cache_dir: Path | None = None,
        attend: Attend | None = None,
        recorder: Recorder | None = None,
    ) -> TransformersEngine:
        """Load a folder of safetensors, and check that packed passes agree with plain ones, unless they did before on
        this machine (:mod:`el4ner.models.self_checks`).

        Args:
            name: the member's name.
            path: ``config.json``, safetensors and the tokenizer's files.
            device: ``cpu``, ``cuda`` or ``cuda:1``; ``auto``: the first GPU if there is one.
            dtype: as :func:`~el4ner.engines.torch.number_types.choose_precision` takes it.
            threads: of torch, for the thread that calls the engine; None leaves them.
            max_batch_tokens: the most tokens that one forward pass reads; None: 4,096, on a GPU up to 16,384, by its
                free memory.
            prefix_cache_bytes: for key-value states of prompts read before.
            cache_dir: remembers digests of weights and passed checks; None takes the user's.
            attend: how the rows of a pass attend; None: ``together`` on a GPU, ``rows`` elsewhere.
            recorder: of decoding steps; None: CUDA graphs on a GPU where rows attend together, none elsewhere.

        Raises:
            ModelError: the folder cannot be loaded or holds what is refused (:mod:`el4ner.models.safety`), or its
                architecture fails the self-check; or there is no such device.
        """
        import_torch()  # that is done; its threads are made to wait asleep
        folder = cache_dir or default_cache_dir()
        place = choose_device(name, device)
        try:
            check_folder(path, shared=True)
            loaded = load_model(path, place, choose_precision(name, dtype, place, folder))
            engine = cls(
                name,
                loaded,
                fingerprint=folder_digest(path, folder),
                digest=model_digest(path, folder),
                threads=threads,
                max_batch_tokens=max_batch_tokens,
                prefix_cache_bytes=prefix_cache_bytes,
                attend=attend,
                recorder=recorder,
            )
            engine._check_once(loaded, folder)
            give_back_freed_memory()
        except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError, EngineError) as error:
            raise ModelError(f"{path}: cannot be loaded: {error}") from error
        return engine

    @property
    @override
    def hidden_size(self) -> int:
        return self._model.hidden_size

    def forget_prompts(self) -> None:
        """Drop the key-value states of prompts read before: what follows is read anew."""
        self._cache.clear()

    @property
    def dtype(self) -> str:
        """What the model computes in: ``bfloat16``, ``float32`` or ``int8``."""
        return self._precision

    @property
    def model_seconds(self) -> float:
        """Seconds spent inside the model since it was loaded."""
        return self._model.seconds

    @property
    def forward_tokens(self) -> int:
        """Tokens that the model has read since it was loaded."""
        return self._model.tokens

    @_engine_errors
    def raw_prefill(self, tokens: int, batch: int = 1) -> float:
        """Seconds that the plain model, as transformers runs it, takes to read ``batch`` rows of ``tokens`` tokens.

        What benchmarks compare the engine's own speed with; counted nowhere.
        """
        self._ready()
        return self._model.raw_seconds(tokens, batch)

    @override
    @_engine_errors
    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """Requests with the same prompt share its reading.

        ``usage.prompt_tokens`` counts prompts and the tokens of tails and candidates that were read behind them (what
        they share: once); the second request with the same prompt finds it in the cache.
        """
        self._ready()
        jobs = {
            prefix: PromptQuestions(prefix, questions, self._tree_nodes)
            for prefix, questions in self._questions_by_prompt(requests).items()
        }
        rows = {prefix: PromptRow(prefix, trees=job.trees) for prefix, job in jobs.items()}

        def take(parts: list[Part], hidden: torch.Tensor) -> None:
            places: list[int] = []
            tokens: list[int] = []
            asked: list[tuple[PromptQuestions, int, list[tuple[int, int]]]] = []
            for part in parts:
                if part.tree is None:
                    continue
                job = jobs[part.row.tokens]
                targets = job.targets(part.tree)
                asked.append((job, part.tree, targets))
                places += [part.last + 1 + node for node, _ in targets]  # ROOT is -1: the prompt's last token
                tokens += [token for _, token in targets]
            logprobs = iter(self._model.log_probabilities(hidden, places, tokens))
            for job, tree, targets in asked:
                job.logprobs.update(((tree, node, token), next(logprobs)) for node, token in targets)

        self._reader.read([row for prefix, row in rows.items() if jobs[prefix].asks], take)
        results: dict[int, ScoreResult] = {}
        for prefix, job in jobs.items():
            results.update(job.results(rows[prefix].cached))
        return [results[index] for index in range(len(requests))]

    @override
    @_engine_errors
    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        """Usage as in :meth:`score`."""
        self._ready()
        jobs = [_StateJob(*self._tails(request), self._tree_nodes, request.middle_only) for request in requests]

        def take(parts: list[Part], hidden: torch.Tensor) -> None:
            asked = [(part, jobs_by_row[part.row]) for part in parts if part.tree is not None]
            places = [part.last + 1 + node for part, job in asked for node in job.nodes(part).values()]
            states = iter(self._model.pick(hidden, places).float().cpu().numpy())
            for part, job in asked:
                job.states.update((index, next(states)) for index in job.nodes(part))

        # Requests with equal prompts stay rows of their own: the second finds the first one's states in the cache.
        jobs_by_row = {job.row: job for job in jobs}
        self._reader.read([job.row for job in jobs if job.places], take, with_middle=True)
        return [job.result(self.hidden_size) for job in jobs]

    @override
    @_engine_errors
    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        self._ready()
        prefixes = self._prefixes(requests)
        results: dict[int, GenerateResult] = {
            index: GenerateResult("", False, Usage())
            for index, request in enumerate(requests)
            if request.max_new_tokens <= 0
        }
        sizes = {
            index: len(prefix) + requests[index].max_new_tokens
            for index, prefix in enumerate(prefixes)
            if index not in results
        }
        for group in _groups(sizes, self._group_tokens, self._model.decoding_room):
            answers = [
                _Answer(index, requests[index], PromptRow(prefixes[index], keep=True), self._mask(requests[index]))
                for index in group
            ]
            self._generate_group(answers, capacity=max(sizes[index] for index in group))
            results.update((answer.index, self._result(answer)) for answer in answers)
        return [results[index] for index in range(len(requests))]

    def _generate_group(self, answers: Sequence[_Answer], capacity: int) -> None:
        states = self._model.decoding_group(len(answers), capacity)
        for slot, answer in enumerate(answers):
            answer.row.group, answer.row.slot = states, slot
        by_row = {id(answer.row): answer for answer in answers}

        def take(parts: list[Part], hidden: torch.Tensor) -> None:
            ended = [part for part in parts if part.ends]
            if ended:
                these = [by_row[id(part.row)] for part in ended]
                self._choose(these, self._model.logits(self._model.pick(hidden, [part.last for part in ended])))

        self._reader.read([answer.row for answer in answers], take)
        slots = list(answers)
        while slots := self._close_gaps(states, slots):
            logits = self._model.decode(
                states, [answer.tokens[-1] for answer in slots], [answer.row.past for answer in slots]
            )
            for answer in slots:
                answer.row.past += 1
            self._choose(slots, logits)

    @staticmethod
    def _close_gaps(states: torch.Tensor, slots: list[_Answer]) -> list[_Answer]:
        """Move the last rows that go on into the places of finished ones, so that a pass has no idle rows."""
        slots = list(slots)
        slot = 0
        while slot < len(slots):
            if not slots[slot].finished:
                slot += 1
                continue
            last = slots.pop()
            if slot < len(slots):
                length = last.row.past
                if not last.finished:
                    states[:, :, slot, :, :length] = states[:, :, len(slots), :, :length]
                slots[slot] = last
        return slots

    def _choose(self, answers: Sequence[_Answer], logits: torch.Tensor) -> None:
        """The most probable token of each answer (``logits`` ``[len(answers), vocabulary]``), of those it may have."""
        tokens = self._model.best(
            logits, [None if answer.mask is None else answer.mask.allowed() for answer in answers]
        )
        for answer, token in zip(answers, tokens, strict=True):
            if answer.mask is not None:
                answer.mask.feed(token)
            self._settle(answer, token)

    def _mask(self, request: GenerateRequest) -> TokenMask | None:
        if request.spans_of is None:
            return None
        return self._token_masks(self._model.vocabulary).mask(request.spans_of, request.stop)

    def _settle(self, answer: _Answer, token: int) -> None:
        """Take a new token in, and find out whether the answer ends with it."""
        answer.new_tokens += 1
        if token in self._end_tokens:
            answer.text = self._renderer.decode(answer.tokens)
            answer.finished = answer.ended = True
            return
        answer.tokens.append(token)
        text = self._renderer.decode(answer.tokens) if answer.request.stop else ""
        cut = answer.request.cut(text)
        if cut is not None:
            answer.text, answer.finished, answer.ended = cut, True, True
        elif answer.mask is not None and answer.mask.finished:
            answer.text = self._renderer.decode(answer.tokens)
            answer.finished = answer.ended = True
        elif answer.new_tokens >= answer.request.max_new_tokens:
            answer.text, answer.finished = self._renderer.decode(answer.tokens), True

    @staticmethod
    def _result(answer: _Answer) -> GenerateResult:
        usage = Usage(len(answer.row.tokens), answer.row.cached, answer.new_tokens)
        answer.row.group = None
        return GenerateResult(answer.text, answer.ended, usage)

    @override
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._cache.clear()
            self._model.release()
            del self._model, self._reader

    def _check_once(self, loaded: LoadedModel, cache_dir: Path) -> None:
        """The self-check, if this model has not passed it here before; then its layers are as they will be.

        Packed passes are compared with plain ones in the number type that weights are loaded in. Where layers are to
        multiply int8 that is float32, which shows differences that their rounding would hide. Such a layer treats each
        row alone, so that it cannot tell passes apart; its own products are compared with those of the integers, shape
        by shape.
        """
        device = self._model.device
        key = check_key(
            self._fingerprint,
            self._model.attend,
            torch.__version__,
            transformers_version,
            _own_code(),
            processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
            torch.version.cuda if device.type == "cuda" else "",
        )
        passed = has_passed(key, cache_dir)
        if not passed:
            self._check()
        with torch.inference_mode():
            quantize_linears(loaded.layers, loaded.int8_inputs, check=not passed)
        if not passed:
            remember_passed(key, cache_dir)

    @_engine_errors
    def _check(self) -> None:
        self._ready()
        self._model.check()

    def _ready(self) -> None:
        self._check_open()
        # The number of threads belongs to the calling thread, which may not be the one that loaded the model.
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        if self._model.tokens - self._tokens_at_giving_back >= _READ_BETWEEN:
            self._tokens_at_giving_back = self._model.tokens
            give_back_freed_memory()


class _StateJob:
    """One prompt, the trees of its tails, and where in them the tokens are whose states are wanted."""

    def __init__(self, prefix: tuple[int, ...], tails: Sequence[MarkedTail], max_nodes: int, middle_only: bool) -> None:
        # Every token of a tail is read, the last one too: as a question whose answer stands behind the whole tail.
        trees, planted = plant([TokenQuestion(tail.tokens, (_ANY,)) for tail in tails], max_nodes)
        self.places: list[tuple[int, int]] = []
        """(tree, node) of each wanted state."""
        for tail, question in zip(tails, planted, strict=True):
            path = trees[question.tree].path(question.targets[0][0][0])
            self.places += [(question.tree, path[place]) for place in tail.places]
        self._nodes = sum(map(len, trees))
        self.row = PromptRow(prefix, trees=trees, to_middle=middle_only)
        self.states: dict[int, npt.NDArray[np.float32]] = {}
        """By index in ``places``, as soon as it is read: ``[LAYERS · hidden]``."""

    def nodes(self, part: Part) -> dict[int, int]:
        """By index in ``places``, the node in the tree that a pass read."""
        return {index: node for index, (tree, node) in enumerate(self.places) if tree == part.tree}

    def result(self, hidden_size: int) -> StateResult:
        """The states in the order of ``places``."""
        if not self.places:
            return StateResult(np.zeros((0, LAYERS, hidden_size), dtype=np.float32), Usage())
        states = np.stack([self.states[index] for index in range(len(self.places))])
        shaped = states.reshape(len(self.places), LAYERS, hidden_size)
        return StateResult(shaped, Usage(len(self.row.tokens) + self._nodes, self.row.cached, 0))


_ANY: Final = (0,)
"""A candidate of one token: it is asked for, never read, so the tree ends with the tail's own last token."""


class _Answer:
    """An answer in the making. ``finished``: no further token; ``ended``: not because ``max_new_tokens`` cut it."""

    __slots__ = ("ended", "finished", "index", "mask", "new_tokens", "request", "row", "text", "tokens")

    def __init__(self, index: int, request: GenerateRequest, row: PromptRow, mask: TokenMask | None) -> None:
        self.index = index
        self.mask = mask
        self.request = request
        self.row = row
        self.tokens: list[int] = []
        self.new_tokens = 0
        self.text = ""
        self.finished = False
        self.ended = False


def _largest_pass(attend: Attend, bytes_per_token: int, free: int | None) -> int:
    """Tokens of a pass where ``max_batch_tokens`` is not set; ``free``: bytes of a GPU, None on the processor."""
    most = LARGEST_PASS[attend]
    if free is None:
        return most
    return max(LEAST_PASS, min(most, int(PASS_OF_FREE_MEMORY * free) // bytes_per_token))


def _groups(sizes: dict[int, int], most: int, room: Callable[[int, int], int]) -> Iterator[list[int]]:
    """Requests that are decoded together, of similar sizes: each takes the room of the group's largest. ``room``: what
    so many rows of so many tokens take, which is to be ``most`` at most."""
    group: list[int] = []
    for index in sorted(sizes, key=lambda index: -sizes[index]):
        if group and room(len(group) + 1, sizes[group[0]]) > most:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


@cache
def _own_code() -> str:
    """Of the modules that read packed passes: what a self-check checks."""
    engines = Path(__file__).parents[1]
    return source_digest(engines / f"{name}.py" for name in _CHECKED_MODULES)
