"""Quantising without a GPU: all but the converter. A small program stands for it, with its files and lines."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from safetensors.numpy import save_file

from el4ner.engines.model_facts import facts_of
from el4ner.errors import ModelError
from el4ner.models.prepare import list_models, prepare, resolve, verify, weights_digest
from el4ner.models.quantized import QuantizedName
from el4ner.quantizing import machine as machines
from el4ner.quantizing import quantize as quantizing
from el4ner.quantizing.converters import Exl2Converter, Exl3Converter, Places, reason_of
from el4ner.quantizing.machine import Machine
from el4ner.quantizing.quantize import quantize

SHAPE = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
}
ABLE = Machine(installed=True, gpus=(80_000_000_000,), compiled=True, missing=(), memory=0)

PROGRAM = """
import argparse, json, os, pathlib, shutil, sys
parser = argparse.ArgumentParser()
for option in ("-i", "-o", "-cf", "-b", "-hb", "-m"):
    parser.add_argument(option)
parser.add_argument("--status_output", action="store_true")
given = parser.parse_args()
job, made = pathlib.Path(given.o), pathlib.Path(given.cf)
state = job / "job_new.json"
def status(stage, done):
    print("[STATUS]" + json.dumps({"stage": stage, "completion": done}) + "[/STATUS]")
def fail(stage):
    wish = pathlib.Path(os.environ["FAIL"])
    if wish.exists() and wish.read_text() == stage:
        print(" ## Error: " + stage + " went wrong")
        sys.exit()  # as the real one does: with 0
def save(progress):
    state.write_text(json.dumps({"progress": progress, "in_dir": given.i, "compile_full": given.cf,
                                 "bits": float(given.b), "head_bits": int(given.hb)}))
progress = json.loads(state.read_text())["progress"] if state.exists() else "begin"
print(" -- Resuming job" if state.exists() else " -- Beginning new job")
print("sees", os.environ["CUDA_VISIBLE_DEVICES"], "theta", json.load(open(given.i + "/config.json")).get("rope_theta"))
print("path", os.environ.get("PYTHONPATH"))
save(progress)
if progress == "begin" and not given.m:
    status("Measuring", 0.0)
    fail("measuring")
    status("Measuring", 0.5)
    (job / "measurement.json").write_text(json.dumps({"measurement": {"a": 1}, "last_module_idx": 3}))
    status("Measuring", 1.0)
save("quant")
status("Quantizing", 0.25)
fail("quantizing")
status("Quantizing", 1.0)
made.mkdir()
for file in pathlib.Path(given.i).iterdir():
    if file.suffix != ".safetensors":
        shutil.copy(file, made / file.name)
shutil.copy(given.i + "/model.safetensors", made / "output.safetensors")
fail("compiling")
config = json.load(open(given.i + "/config.json"))
config["quantization_config"] = {"quant_method": "exl2", "bits": float(given.b), "head_bits": int(given.hb)}
(made / "config.json").write_text(json.dumps(config))
save("finished")
print(" -- Finished")
"""


class Recorded(Exl2Converter):
    """The format's own converter, but for the program that is run."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.commands: list[list[str]] = []

    def command(self, name: QuantizedName, places: Places) -> list[str]:
        command = super().command(name, places)
        self.commands.append(command[3:])
        return [sys.executable, str(self.program), *command[3:]]


@dataclass
class Told:
    """Progress, as lines."""

    labels: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    open: int = 0

    def start(self, label: str, total: int) -> None:
        self.labels.append(label)
        self.totals.append(total)
        self.steps.append(0)
        self.open += 1

    def advance(self, steps: int) -> None:
        self.steps[-1] += steps

    def done(self) -> None:
        self.open -= 1


@dataclass
class Bench:
    """A model, a cache, and the program."""

    source: Path
    cache: Path
    wish: Path
    converter: Recorded

    def make(self, bits: float = 4.0, **more: Any) -> Path:
        name = QuantizedName(str(self.source), bits)
        return quantize(name, self.cache, machine=ABLE, converter=self.converter, **more)

    def logs(self) -> str:
        return "".join(file.read_text(encoding="utf-8") for file in self.cache.rglob("log.txt"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    source = tmp_path / "small"
    source.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "rope_parameters": {"rope_theta": 7.0}, **SHAPE}
    (source / "config.json").write_bytes(orjson.dumps(config))
    (source / "tokenizer.json").write_bytes(b"{}")
    (source / "el4ner-model.json").write_bytes(b'{"files": {}}')
    (source / "model.safetensors.index.json").write_bytes(b'{"weight_map": {"a": "model.safetensors"}}')
    save_file({"lm_head.weight": np.ones((32, 8), dtype=np.float16)}, source / "model.safetensors")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setenv("FAIL", str(tmp_path / "fail"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Bench(source, tmp_path / "cache", tmp_path / "fail", Recorded(program))


def test_a_model_is_made_once_and_found_by_its_name(bench: Bench) -> None:
    told = Told()
    folder = bench.make(progress=told)
    source = f"quantized:{bench.source}@4.0bpw"
    assert prepare(source, bench.cache) == resolve(source, bench.cache) == folder
    assert orjson.loads((folder / "config.json").read_bytes())["rope_theta"] == 7.0
    assert not (folder / "model.safetensors.index.json").exists()
    assert weights_digest(folder) != weights_digest(bench.source)
    verify(source, bench.cache)
    made = list_models(bench.cache)[-1]
    assert (made.source, made.format, made.bits, made.prepared) == (source, "exl2", 4.0, True)
    stages = [label.rpartition(": ")[2] for label in told.labels]
    assert stages == ["digest", "measuring", "quantizing", "digest"]
    assert told.steps == told.totals
    assert told.open == 0
    assert bench.make() == folder
    assert len(bench.converter.commands) == 1
    assert not any(bench.cache.glob("quantized-work/*/job"))


def test_what_was_measured_serves_other_numbers_of_bits(bench: Bench) -> None:
    bench.make(4.0)
    bench.make(3.0)
    first, second = bench.converter.commands
    assert "-m" not in first
    kept = Path(second[second.index("-m") + 1])
    assert orjson.loads(kept.read_bytes())["last_module_idx"] == 3
    own = bench.source.parent / "own.json"
    own.write_bytes(kept.read_bytes())
    bench.make(5.0, measurement=own)
    assert bench.converter.commands[-1][-1] == str(own)


def test_what_is_interrupted_goes_on_where_it_was(bench: Bench) -> None:
    bench.wish.write_text("quantizing")
    with pytest.raises(ModelError, match=r"made nothing: Error: quantizing went wrong \(all that it said: .*goes on"):
        bench.make()
    assert resolve(f"quantized:{bench.source}@4.0bpw", bench.cache) is None
    assert any(bench.cache.glob("quantized/measurements/*-exl2.json"))
    bench.wish.unlink()
    told = Told()
    folder = bench.make(progress=told)
    assert (folder / "output.safetensors").is_file()
    assert not any("measuring" in label for label in told.labels)


def test_half_a_result_never_has_the_results_name(bench: Bench) -> None:
    bench.wish.write_text("compiling")
    with pytest.raises(ModelError, match="compiling went wrong"):
        bench.make()
    assert resolve(f"quantized:{bench.source}@4.0bpw", bench.cache) is None
    bench.wish.unlink()
    bench.make()


def test_other_weights_under_the_same_name_are_begun_anew(bench: Bench) -> None:
    bench.wish.write_text("quantizing")
    with pytest.raises(ModelError):
        bench.make()
    save_file({"lm_head.weight": np.zeros((32, 8), dtype=np.float16)}, bench.source / "model.safetensors")
    bench.wish.unlink()
    told = Told()
    bench.make(progress=told)
    assert any("measuring" in label for label in told.labels)
    assert "-m" not in bench.converter.commands[-1]


def test_a_damaged_result_is_made_again(bench: Bench) -> None:
    folder = bench.make()
    (folder / "output.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is not there: run `el4ner models quantize"):
        prepare(f"quantized:{bench.source}@4.0bpw", bench.cache)
    assert bench.make() == folder
    assert (folder / "output.safetensors").stat().st_size > 0


def test_changed_bytes_are_found_by_verify(bench: Bench) -> None:
    folder = bench.make()
    content = bytearray((folder / "output.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "output.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"output\.safetensors: is damaged"):
        verify(f"quantized:{bench.source}@4.0bpw", bench.cache)


def test_a_folder_of_ones_own_is_used_by_its_path(bench: Bench, tmp_path: Path) -> None:
    output = tmp_path / "mine" / "small-4"
    assert bench.make(output=output) == output
    assert prepare(str(output), bench.cache) == output
    with pytest.raises(ModelError, match="is there already"):
        bench.make(output=output)


def test_the_gpu_that_was_asked_for_is_the_only_one_that_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Machine(installed=True, gpus=(1 << 40, 1 << 40), compiled=True, missing=(), memory=0)
    for visible, gpu, seen in ((None, 1, "1"), ("4,6", 1, "6")):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        bench.wish.write_text("quantizing")
        with pytest.raises(ModelError):
            quantize(QuantizedName(str(bench.source)), bench.cache, machine=two, gpu=gpu, converter=bench.converter)
        assert f"sees {seen} theta 7.0" in bench.logs()


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine(False, (), False, (), 0), r"needs exllamav2: install el4ner\[gpu\]"),
        (Machine(True, (), False, (), 0), "needs an NVIDIA GPU"),
        (
            Machine(True, (1 << 40,), False, ("no nvcc: x", "no ninja: y"), 0),
            "be compiled, and no nvcc: x; no ninja: y$",
        ),
        (Machine(True, (1 << 20,), True, (), 0), "of GPU 0, and 0.0 GB are free"),
        (Machine(True, (1 << 40,), True, (), 1), "of memory, and 0.0 GB are free"),
    ],
)
def test_what_is_missing_is_a_line_before_anything_is_done(bench: Bench, machine: Machine, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        quantize(QuantizedName(str(bench.source)), bench.cache, machine=machine, converter=bench.converter)
    assert "\n" not in str(caught.value)
    assert not bench.converter.commands


def test_the_converter_finds_the_compiled_extension(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own import would compile anew, and needs to have the compiler found for it."""
    asked = []

    def extension_environ(library: str, cache_dir: Path, progress: Any) -> dict[str, str]:
        asked.append((library, cache_dir))
        return {"PYTHONPATH": "/extensions/exllamav2"}

    monkeypatch.setattr(quantizing, "look", lambda form, cache_dir: ABLE)
    monkeypatch.setattr(quantizing, "extension_environ", extension_environ)
    bench.wish.write_text("quantizing")
    with pytest.raises(ModelError):
        quantize(QuantizedName(str(bench.source)), bench.cache, converter=bench.converter)
    assert asked == [("exllamav2", bench.cache)]
    assert "path /extensions/exllamav2" in bench.logs()


def test_each_formats_own_library_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looked_for: list[str] = []
    monkeypatch.setattr(machines.importlib.util, "find_spec", looked_for.append)
    assert [machines.look(form, tmp_path).installed for form in ("exl2", "exl3")] == [False, False]
    assert looked_for == ["exllamav2", "exllamav3"]


def test_a_gpu_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(ModelError, match="there is no GPU 3"):
        bench.make(gpu=3)


def test_a_full_disk_is_said_with_what_is_needed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines.Machine, "free_disk", lambda self, folder: 1000)
    with pytest.raises(ModelError, match=r"of disk there, and 0\.0 GB are free: set EL4NER_CACHE_DIR"):
        bench.make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["ChatGLMModel"]}, "does not support ChatGLMModel"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is in GPTQ already"),
    ],
)
def test_a_model_that_cannot_be_quantised_is_refused(bench: Bench, change: dict[str, Any], message: str) -> None:
    config = orjson.loads((bench.source / "config.json").read_bytes())
    (bench.source / "config.json").write_bytes(orjson.dumps({**config, **change}))
    with pytest.raises(ModelError, match=message):
        bench.make()
    assert not bench.converter.commands


def test_a_converter_that_dies_says_its_last_words(bench: Bench) -> None:
    bench.converter.program.write_text("print('all well'); raise RuntimeError('out of cheese')", encoding="utf-8")
    with pytest.raises(ModelError, match=r"ended with 1: RuntimeError: out of cheese"):
        bench.make()


def test_stopping_us_stops_the_converter(bench: Bench) -> None:
    pid = bench.source.parent / "pid"
    bench.converter.program.write_text(
        f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        'print(\'[STATUS]{"stage": "Measuring", "completion": 0.1}[/STATUS]\', flush=True)\ntime.sleep(600)\n',
        encoding="utf-8",
    )

    class Interrupted(Told):
        def advance(self, steps: int) -> None:
            if "measuring" in self.labels[-1]:
                raise KeyboardInterrupt
            super().advance(steps)

    with pytest.raises(KeyboardInterrupt):
        bench.make(progress=Interrupted())
    assert not Path(f"/proc/{pid.read_text()}").exists()


@pytest.mark.parametrize(
    ("text", "source", "bits", "head", "form"),
    [
        ("quantized:microsoft/phi-4@4.0bpw", "microsoft/phi-4", 4.0, 6, "exl2"),
        ("quantized:org/name@rev1@3.5bpw-h8", "org/name@rev1", 3.5, 8, "exl2"),
        ("quantized:packaged:gemma3-270m@6bpw-exl3", "packaged:gemma3-270m", 6.0, 6, "exl3"),
    ],
)
def test_a_name_says_all_that_a_model_was_made_by(
    text: str, source: str, bits: float, head: int, form: str, tmp_path: Path
) -> None:
    name = QuantizedName.parse(text)
    assert (name.source, name.bits, name.head_bits, name.format) == (source, bits, head, form)
    assert QuantizedName.parse(name.text) == name
    assert name.folder(tmp_path).parent == tmp_path / "quantized"


def test_different_models_have_different_folders(tmp_path: Path) -> None:
    sources = ["org/name", "org--name", "./name", "../name", "/name", "org/name@rev", "packaged:name"]
    folders = {QuantizedName(source).folder(tmp_path) for source in sources}
    assert len(folders) == len(sources)
    assert all(folder.parent == tmp_path / "quantized" for folder in folders)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantized:phi", "is not spelt quantized:SOURCE@4.0bpw"),
        ("quantized:@4.0bpw", "is not spelt"),
        ("quantized:org/name@4bits", "is not spelt"),
        ("quantized:org/name@9.0bpw", "exl2 has 2 to 8 bits, not 9"),
        ("quantized:org/name@1.5bpw", "exl2 has 2 to 8 bits, not 1.5"),
        ("quantized:org/name@4.0bpw-h7", "head bits 2, 3, 4, 5, 6, 8, not 7"),
        ("quantized:quantized:org/name@4.0bpw@4.0bpw", "nothing that can be quantised"),
    ],
)
def test_a_misspelt_name_is_a_model_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        prepare(text, tmp_path)


def test_a_model_that_has_not_been_made_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        prepare("quantized:microsoft/phi-4@4.5bpw-h8-exl3", tmp_path)
    command = "el4ner models quantize microsoft/phi-4 --bits 4.5 --head-bits 8 --format exl3"
    assert str(caught.value) == f"quantized:microsoft/phi-4@4.5bpw-h8-exl3: is not there: run `{command}`"


def test_facts_of_a_made_model_are_of_its_files(bench: Bench) -> None:
    source = f"quantized:{bench.source}@4.0bpw"
    before = facts_of(source, bench.cache)
    assert before is not None
    assert (before.basis, before.format) == ("arithmetic", "exl2")
    bench.make()
    after = facts_of(source, bench.cache)
    assert after is not None
    assert (after.basis, after.weights) == ("files", 32 * 8 * 2)


def test_exl3_goes_on_only_from_a_checkpoint(tmp_path: Path) -> None:
    converter = Exl3Converter()
    name = QuantizedName("org/name", 3.5, 6, "exl3")
    places = Places(tmp_path / "source", tmp_path / "job", tmp_path / "made")
    fresh = converter.command(name, places)
    assert fresh[1:3] == ["-m", "exllamav3.conversion.convert_model"]
    assert fresh[fresh.index("-b") + 1] == "3.5"
    (places.job / "ckpt").mkdir(parents=True)
    arguments = {"in_dir": str(places.source), "out_dir": str(places.made), "bits": 3.5, "head_bits": 6.0}
    (places.job / "args.json").write_bytes(orjson.dumps(arguments))
    (places.job / "ckpt" / "job.json").write_bytes(b'{"next_module_idx": 0}')
    assert not converter.resumes(name, places)
    (places.job / "ckpt" / "state.safetensors").write_bytes(b"")
    assert converter.resumes(name, places)
    assert converter.command(name, places)[3:] == ["-w", str(places.job), "-r"]
    assert not converter.resumes(QuantizedName("org/name", 4.0, 6, "exl3"), places)


def test_exl3s_layers_are_counted_as_they_are_begun() -> None:
    told = Told()
    reader = Exl3Converter().reader("model", 3, told)
    for key in ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.2", "model.norm", "lm_head"):
        reader.read(f" -- Loading unquantized module: {key}\n")
        reader.read(f" -- Quantized: {key}.self_attn.q_proj  bpw:  4.00  proxy_err: 0.001\n")
    reader.close()
    assert (told.labels, told.steps, told.totals, told.open) == (["model: quantizing"], [3], [3], 0)


def test_lines_that_are_no_status_are_passed_over() -> None:
    told = Told()
    reader = Exl2Converter().reader("model", 2, told)
    for line in ("", "[STATUS]{broken}[/STATUS]", '[STATUS]{"stage": "A"}[/STATUS]', "[STATUS]{}[/STATUS]", "layer 1"):
        reader.read(line)
    reader.close()
    assert told.labels == []


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([" -- a", " ## Error: b", " -- c"], "Error: b"),
        (["Traceback", "ValueError: d"], "ValueError: d"),
        ([" !! Error: no such folder"], "Error: no such folder"),
        ([], "it said nothing"),
    ],
)
def test_the_line_that_says_why_is_found(lines: list[str], reason: str) -> None:
    assert reason_of(lines) == reason
