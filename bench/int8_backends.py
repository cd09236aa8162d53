"""The int8 of other libraries beside ours: the same packed passes by turns in one process, one thread.

    python bench/int8_backends.py [--members smollm2-135m,gemma3-270m] [--tokens 512,1024] [--rounds 7]
                                  [--only float32,ours,…] [--memory BACKEND] [--json OUT]

In an environment of its own, beside the project's packages: ``pip install torchao openvino nncf onnxruntime onnx
onnxscript``. What is not installed is left out.

A pass is what the default pipeline asks a member about shipped news: a beginning that prompts share, and the rest of
them and their tails as branches behind it, so that attention has a mask of its own. States are those of the middle
layer and of the last one. Seconds are the processor's. Nearness is 1 minus the cosine with float32's states,
standardised as evidence compares them, mean over tokens.

A processor without bfloat16 and VNNI is made of any other by `bench/plain_processor.c`, for all libraries alike; what
they multiply by depends on it. ``--memory``: what one backend takes, resident, in a process of its own, after a pass.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.cli.settings import prepare_process

prepare_process()  # as the command line does

import numpy as np  # noqa: E402
import torch  # noqa: E402
from memory import memory  # noqa: E402
from tag import POOL, sample  # noqa: E402
from torch import nn  # noqa: E402

from el4ner.config import Settings, load_settings  # noqa: E402
from el4ner.engines.packing import TokenTree  # noqa: E402
from el4ner.engines.torch.attention_plans import PassSegment, additive  # noqa: E402
from el4ner.engines.torch.transformers_engine import TransformersEngine  # noqa: E402
from el4ner.loader import load_pipeline  # noqa: E402
from el4ner.models.prepare import default_cache_dir, prepare  # noqa: E402
from el4ner.types import Document  # noqa: E402

SENTENCES: Final = 16
STEPS: Final = 63
"""Weights have 7 bits where a processor's bytes are added in 16: what all of ours have, and FBGEMM's here."""

States = tuple[torch.Tensor, torch.Tensor]
"""Of the middle layer and of the last one, ``[tokens, hidden]``."""


@dataclass(frozen=True)
class Pass:
    """``beginning`` is a chain; ``tree`` hangs behind it."""

    beginning: tuple[int, ...]
    tree: TokenTree

    @property
    def tokens(self) -> int:
        """That it reads."""
        return len(self.beginning) + len(self.tree)

    def inputs(self, window: int | None) -> dict[str, torch.Tensor]:
        """For a model that takes masks: of all layers, and of those with a window."""
        start = len(self.beginning)
        places = torch.cat([torch.arange(start), torch.tensor(self.tree.depths) + start - 1])
        sees = torch.zeros(self.tokens, self.tokens, dtype=torch.bool)
        sees[:start, :start] = torch.ones(start, start).tril().bool()
        sees[start:, :start] = True
        sees[start:, start:] = torch.from_numpy(self.tree.sees())
        near = sees if window is None else sees & (places[None, :] > places[:, None] - window)
        return {
            "ids": torch.tensor([[*self.beginning, *self.tree.tokens]]),
            "places": places[None],
            "mask": additive(sees, torch.float32)[None, None].clamp_(min=-1e9),
            "near": additive(near, torch.float32)[None, None].clamp_(min=-1e9),
        }


Backend = Callable[[Pass], States]


class Body(nn.Module):
    """A model of transformers without its head, for masks that are given."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        ).eval()
        self.body: Any = model.base_model
        self.config = model.config
        self._kinds = "sliding_attention" in (getattr(self.config, "layer_types", None) or ())
        self._middle: list[torch.Tensor] = []
        after = self.config.num_hidden_layers // 2 + 1
        self.body.layers[after].register_forward_pre_hook(lambda _, args: self._middle.append(args[0]))

    @property
    def window(self) -> int | None:
        """Of the layers that have one."""
        return int(self.config.sliding_window) if self._kinds else None

    def forward(self, ids: torch.Tensor, places: torch.Tensor, mask: torch.Tensor, near: torch.Tensor) -> States:
        """States ``[1, tokens, hidden]``."""
        self._middle.clear()
        masks = {"full_attention": mask, "sliding_attention": near} if self._kinds else mask
        last = self.body(input_ids=ids, position_ids=places, attention_mask=masks, use_cache=False).last_hidden_state
        return self._middle.pop(), last

    def read(self, one: Pass) -> States:
        """As a :data:`Backend`."""
        with torch.inference_mode():
            middle, last = self(**one.inputs(self.window))
        return middle[0], last[0]


def passes(sizes: Sequence[int], members: Sequence[str]) -> dict[str, list[Pass]]:
    """What each member is asked, in passes of so many tokens."""
    overrides = {"method": {"repeats": "off"}, "pools": {"default": POOL, "paths": {POOL: f"shipped:{POOL}"}}}
    settings = load_settings(Settings, overrides=overrides)
    asked: dict[str, list[Any]] = {}
    with load_pipeline(settings) as pipeline:
        for name in members:
            engine = pipeline.engines[name]
            original = engine.states

            def states(requests: Any, name: str = name, original: Any = original) -> Any:
                asked.setdefault(name, []).extend(requests)
                return original(requests)

            engine.states = states
        documents = [Document(str(number), text, POOL) for number, text in enumerate(sample(SENTENCES))]
        pipeline.classify(pipeline.extract(documents))
        read = {name: [pipeline.engines[name]._tails(request) for request in asked[name]] for name in members}
    return {name: [_pass(rows, size) for size in sizes] for name, rows in read.items()}


def _pass(rows: Sequence[tuple[tuple[int, ...], Sequence[Any]]], size: int) -> Pass:
    """Prompts of ``rows`` that begin alike, and their tails."""
    together = [row for row in rows if row[0][:32] == rows[-1][0][:32]]
    shared = 0
    while len({row[0][shared : shared + 1] for row in together}) == 1 and shared < min(len(r[0]) for r in together):
        shared += 1
    beginning = together[0][0][: min(shared, size // 2)]
    tree = TokenTree()
    for prompt, tails in itertools.cycle(together):
        behind = tree.add((len(tree) + 1000, *prompt[shared:]))  # a token of its own: no row is a copy of another
        for tail in tails:
            tree.add(tail.tokens[: size - len(beginning) - len(tree)], at=behind)
        if len(beginning) + len(tree) >= size:
            break
    keep = size - len(beginning)
    cut = TokenTree(tree.tokens[:keep], tree.parents[:keep], tree.depths[:keep])
    return Pass(beginning, cut)


def ours(folder: Path, dtype: Any) -> Backend:
    """The default engine's own passes."""
    engine = TransformersEngine.load("member", folder, dtype=dtype)
    model = engine._model

    def read(one: Pass) -> States:
        with torch.inference_mode():
            group = model.new_group(1, one.tokens)
            hidden = model.forward([PassSegment(group, 0, 0, one.beginning, one.tree)], with_middle=True)
        return hidden[:, : model.hidden_size], hidden[:, model.hidden_size :]

    return read


class Fbgemm(nn.Module):
    """torch's ``quantized`` operators. ``rows``: a scale for each row of the input, otherwise one for all."""

    def __init__(self, linear: nn.Linear, rows: bool) -> None:
        super().__init__()
        weight, self._rows = linear.weight.detach(), rows
        scale = weight.abs().amax(1) / STEPS
        steps = (weight / scale[:, None]).round().to(torch.int8)
        zeros = torch.zeros(len(scale), dtype=torch.long)
        packed = torch._make_per_channel_quantized_tensor(steps, scale.double(), zeros, 0)
        self._packed = torch.ops.quantized.linear_prepack(packed, linear.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``states`` in float32."""
        product: torch.Tensor
        if not self._rows:
            product = torch.ops.quantized.linear_dynamic(states, self._packed, False)
            return product
        largest = torch.linalg.vector_norm(states, float("inf"), -1, keepdim=True)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            states / largest, 1 / 127, 128, self._packed
        )
        return product.mul_(largest)


def fbgemm(folder: Path, *, rows: bool) -> Backend:
    """torch's older int8."""
    torch.backends.quantized.engine = "fbgemm"
    body = Body(folder)
    for parent in list(body.body.layers.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Fbgemm(child, rows))
    return body.read


def torchao(folder: Path) -> Backend:
    """Its int8 for inputs (a scale for each row) and weights, not compiled."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    body = Body(folder)
    quantize_(body.body.layers, Int8DynamicActivationInt8WeightConfig(version=2))
    return body.read


def openvino(folder: Path, *, weights: str, group: int | None = None) -> Backend:
    """``weights``: float32 or int8 (NNCF); ``group``: inputs are rounded, this many columns by one scale."""
    import openvino as ov

    body = Body(folder)
    window, example = body.window, _example(body)
    path = _scratch(folder) / f"{weights}.xml"
    if path.exists():
        model = ov.Core().read_model(path)
    else:
        with torch.inference_mode():
            model = ov.convert_model(body, example_input=example)
        if weights == "int8":
            import nncf

            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        ov.save_model(model, path, compress_to_fp16=False)
    del body
    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group or 0
    compiled = ov.Core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    names = [next(name for name in port.get_names() if name in example) for port in compiled.inputs]

    def read(one: Pass) -> States:
        inputs = one.inputs(window)
        found = request.infer({name: inputs[name].numpy() for name in names})
        middle, last = (torch.from_numpy(np.array(found[port])) for port in compiled.outputs)
        return middle[0], last[0]

    return read


def onnx(folder: Path, *, how: str) -> Backend:
    """``how``: float32, dynamic (one scale for a whole input), or blocks (32 columns of a row by one scale)."""
    import onnxruntime as ort

    body = Body(folder)
    window, example = body.window, _example(body)
    scratch = _scratch(folder)
    path, whole = scratch / f"{how}.onnx", scratch / "float32.onnx"
    if not whole.exists():
        tokens = torch.export.Dim("tokens", min=2, max=4096)
        square = {2: tokens, 3: tokens}
        shapes = {"ids": {1: tokens}, "places": {1: tokens}, "mask": square, "near": square}
        with torch.inference_mode():
            torch.onnx.export(body, (), whole, kwargs=example, dynamo=True, dynamic_shapes=shapes, external_data=True)
    del body
    if how == "dynamic" and not path.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            whole,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            use_external_data_format=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
    if how == "blocks" and not path.exists():
        import onnx as onnx_files
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        model = onnx_files.load(whole)
        quantizer = MatMulNBitsQuantizer(model, bits=8, block_size=32, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path), use_external_data_format=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def read(one: Pass) -> States:
        inputs = one.inputs(window)
        middle, last = session.run(None, {name: inputs[name].numpy() for name in names})
        return torch.from_numpy(middle[0]), torch.from_numpy(last[0])

    return read


def _scratch(folder: Path) -> Path:
    """What was converted once: it takes minutes."""
    path = Path(tempfile.gettempdir()) / f"int8-backends-{folder.name}"
    path.mkdir(exist_ok=True)
    return path


def _example(body: Body) -> dict[str, torch.Tensor]:
    tree = TokenTree()
    tree.add(tuple(range(20, 36)))
    return Pass(tuple(range(10, 26)), tree).inputs(body.window)


BACKENDS: Final[Mapping[str, tuple[str, Callable[[Path], Backend]]]] = {
    "float32": ("torch", lambda folder: ours(folder, "float32")),
    "ours": ("torch", lambda folder: ours(folder, "int8")),
    "sdpa": ("torch", lambda folder: Body(folder).read),
    "fbgemm": ("torch", lambda folder: fbgemm(folder, rows=False)),
    "fbgemm-rows": ("torch", lambda folder: fbgemm(folder, rows=True)),
    "torchao": ("torchao", torchao),
    "openvino-float32": ("openvino", lambda folder: openvino(folder, weights="float32")),
    "openvino-weights": ("openvino", lambda folder: openvino(folder, weights="int8")),
    "openvino-32": ("openvino", lambda folder: openvino(folder, weights="int8", group=32)),
    "openvino-rows": ("openvino", lambda folder: openvino(folder, weights="int8", group=2**32 - 1)),
    "onnx-float32": ("onnxruntime", lambda folder: onnx(folder, how="float32")),
    "onnx-dynamic": ("onnxruntime", lambda folder: onnx(folder, how="dynamic")),
    "onnx-blocks": ("onnxruntime", lambda folder: onnx(folder, how="blocks")),
}
"""Where they are from, and what makes them of a folder of safetensors."""


def nearness(states: States, expected: States) -> list[float]:
    """Of the middle layer and the last one. The first token's states are many times as large, and compared with
    nothing."""
    apart = []
    for each, reference in zip(states, expected, strict=True):
        rows, wanted = each[1:].float(), reference[1:].float()
        centre, spread = wanted.mean(0), wanted.std(0)
        spread = spread.clamp(min=0.005 * float(spread.max()))
        cosine = torch.cosine_similarity((rows - centre) / spread, (wanted - centre) / spread, dim=-1)
        apart.append(float((1 - cosine).mean()))
    return apart


def turns(backends: Mapping[str, Backend], one: Pass, rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each pass."""
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    for number in range(rounds + 1):
        for name in list(backends)[:: 1 if number % 2 else -1]:
            clock = time.process_time()
            backends[name](one)
            if number:
                seconds[name].append(time.process_time() - clock)
    return seconds


def measured(folder: Path, wanted: Sequence[str], asked: Sequence[Pass], rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each backend and pass."""
    backends: dict[str, Backend] = {}
    for name in wanted:
        package, make = BACKENDS[name]
        if importlib.util.find_spec(package) is None:
            print(f"  {name}: {package} is not installed", flush=True)
            continue
        clock = time.perf_counter()
        try:
            backends[name] = make(folder)
            backends[name](asked[0])
        except Exception as error:
            backends.pop(name, None)
            print(f"  {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            continue
        print(f"  {name}: ready after {time.perf_counter() - clock:.0f} s", flush=True)
    for one in asked:
        expected = backends["float32"](one)
        seconds = turns(backends, one, rounds)
        for name, backend in backends.items():
            ratios = [base / own for base, own in zip(seconds["float32"], seconds[name], strict=True)]
            yield {
                "backend": name,
                "tokens": one.tokens,
                "shared": len(one.beginning),
                "seconds": statistics.median(seconds[name]),
                "times_float32": statistics.median(ratios),
                "range": [min(ratios), max(ratios)],
                "apart": nearness(backend(one), expected),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", default="smollm2-135m,gemma3-270m")
    parser.add_argument("--tokens", default="512,1024")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default=",".join(BACKENDS))
    parser.add_argument("--memory", choices=list(BACKENDS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    members, sizes = options.members.split(","), [int(size) for size in options.tokens.split(",")]
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(BACKENDS):
        parser.error(f"--only {', '.join(unknown)}: there are {', '.join(BACKENDS)}")
    settings = load_settings(Settings)
    folders = {name: prepare(settings.models[name].source, default_cache_dir()) for name in members}
    torch.set_num_threads(1)
    asked = passes(sizes, members)
    if options.memory:
        before = memory()
        backends = [BACKENDS[options.memory][1](folders[name]) for name in members]
        for name, backend in zip(members, backends, strict=True):
            backend(asked[name][-1])
        print({key: round(value - before[key]) for key, value in memory().items()}, "MB more than without a model")
        return
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, python {sys.version.split()[0]}")
    rows = []
    for name in members:
        print(name, flush=True)
        for row in measured(folders[name], list(dict.fromkeys(["float32", *wanted])), asked[name], options.rounds):
            rows.append({"member": name, **row})
            low, high = row["range"]
            print(
                f"  {row['backend']:18} {row['tokens']:5} tokens ({row['shared']} shared) "
                f"{row['seconds'] * 1e3:7.0f} ms"
                f"  {row['times_float32']:5.2f} x float32 ({low:.2f} to {high:.2f})  apart "
                + ", ".join(f"{value:.4f}" for value in row["apart"]),
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
