"""bench/gpu, what of it is not CUDA: shares of time, processes that fail, loads, models' numbers, the report."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

from gpu import method, phases, speed
from gpu.engines import AS_BEFORE, Deadline, in_turns, variants
from gpu.environment import first_errors
from gpu.plan import GOAL_PHASES, PHASES, RUN_SECONDS, Phase, chosen, seconds_for
from gpu.record import Record, read, write_json
from gpu.render import goals, markdown
from gpu.run import main, options_of
from gpu.runner import LOST, Runner
from gpu.shapes import GROUP, SEVEN, Shape, gptq_tensors
from gpu.speed import Sizes, shared_and_not, writing
from gpu.weights import padded_tokenizer, random_model

# --- time -----------------------------------------------------------------------------------------------------------


@given(st.floats(0, 2000), st.lists(st.tuples(st.floats(0, 300), st.floats(0, 100)), min_size=1, max_size=8))
def test_a_phase_takes_of_what_is_kept_for_those_behind_it_no_more_than_its_least(
    left: float, sizes: list[tuple[float, float]]
) -> None:
    phases = [Phase(str(n), "", most=most + least, least=least, quiet=True) for n, (most, least) in enumerate(sizes)]
    first, behind = phases[0], phases[1:]
    given_to = seconds_for(first, left, behind)
    assert given_to == 0 or first.least <= given_to <= min(first.most, left)
    assert given_to <= first.least or left - given_to >= sum(phase.least for phase in behind) - 1e-6
    assert given_to > 0 or left < first.least or first.least == 0 or first.most == 0
    beside = Phase("beside", "", most=first.most, least=0, background=True)
    assert seconds_for(beside, left, behind) == min(first.most, left)


def test_a_phase_that_does_not_measure_may_take_what_nobody_behind_it_needs() -> None:
    first, measures, rest = (
        Phase("a", "", 60, 5),
        Phase("b", "", 100, 40, quiet=True),
        Phase("c", "", 75, 0, quiet=True),
    )
    assert seconds_for(first, 300, [measures, rest]) == 120
    assert seconds_for(first, 210, [measures, rest]) == 110
    assert seconds_for(first, 150, [measures, rest]) == 60
    assert seconds_for(measures, 300, [rest]) == 100
    assert seconds_for(rest, 30, []) == 30


def test_what_is_kept_for_all_phases_fits_the_default_time() -> None:
    minutes = options_of([]).minutes
    assert minutes < 10
    assert sum(phase.least for phase in PHASES) < minutes * 60 * 0.6
    # Everything needs the first two: where time is short they get what importing a library takes.
    assert [phase.least >= 15 for phase in PHASES if phase.name in ("environment", "weights")] == [True, True]


def test_a_run_of_500_seconds_has_everything_that_the_goals_need() -> None:
    """Each phase gets the whole of its limit, though those behind it are kept their least."""
    goal = [phase for phase in PHASES if phase.name in GOAL_PHASES]
    assert RUN_SECONDS == 500
    assert sum(phase.most for phase in goal) <= RUN_SECONDS
    assert not any(phase.background or phase.optional for phase in goal)
    foreground = [phase for phase in PHASES if not (phase.background or phase.optional)]
    left = float(RUN_SECONDS)
    for index, phase in enumerate(foreground):
        seconds = seconds_for(phase, left, foreground[index + 1 :])
        assert seconds >= phase.most or phase.name not in GOAL_PHASES
        left -= phase.most
    needed = {name for phase in goal for name in (*phase.needs, *phase.after)}
    assert all(phase.background for phase in PHASES if phase.name in needed - set(GOAL_PHASES))


def test_tests_come_first_then_the_whole_method_then_ceilings_and_speed() -> None:
    assert [phase.name for phase in PHASES if not (phase.background or phase.optional)] == [
        "environment",
        "weights",
        "tests",
        "tests-exl2",
        "method-small",
        "method-large",
        "ceilings",
        "speed-large",
        "speed-small",
    ]
    quantise = next(phase for phase in PHASES if phase.name == "quantise")
    assert quantise.background


def test_a_phase_waits_only_for_what_comes_before_it() -> None:
    before: set[str] = set()
    for phase in PHASES:
        assert {*phase.needs, *phase.after} <= before
        before.add(phase.name)


def test_phases_that_are_named_bring_what_they_need() -> None:
    names = [phase.name for phase in chosen(["quantise"], cpu=False)]
    assert names == ["environment", "build-exllamav2", "weights", "quantise"]
    assert not any("exllamav3" in phase.name for phase in chosen(None, cpu=False))
    asked = {phase.name for phase in chosen(None, cpu=False, options=["exllamav3"])}
    assert {"build-exllamav3", "speed-exllamav3"} <= asked
    assert not {"build-exllamav2", "quantise", "tests"} & {phase.name for phase in chosen(None, cpu=True)}
    with pytest.raises(ValueError, match="no phase 'quantize'"):
        chosen(["quantize"], cpu=False)


def test_every_process_compiles_for_the_card_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other flags in one of them would compile a library's extension again."""
    seen: list[str | None] = []
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.0")
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setitem(phases._WORK, "tests", lambda *given: seen.append(os.environ.get("TORCH_CUDA_ARCH_LIST")))
    for environment in ({}, {"values": {"capability": "9.0"}}):
        context = {"cpu": False, "work": str(tmp_path), "loads": [], "weights": None, "seconds": 9, "without": []}
        write_json(tmp_path / "given.json", {**context, "results": {"environment": environment}})
        assert phases.run_phase("tests", tmp_path / "given.json", tmp_path / "found.json") == 0
    assert seen == ["7.0", "9.0"]


def test_options_are_refused_with_the_names_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of(["--only", "speed"])
    assert "there are: environment, build-exllamav2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        options_of(["--minutes", "0"])


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all((phase.name in said) != phase.optional for phase in PHASES)
    assert not (tmp_path / "out").exists()


# --- processes ------------------------------------------------------------------------------------------------------

PROGRAM = """
import json, os, sys, time
given, found = json.load(open(sys.argv[1])), sys.argv[2]
def record(**what):
    json.dump({"values": {}, "rows": {}, "problems": [], "doing": None, **what}, open(found, "w"))
"""


def play(
    tmp_path: Path, phases: Sequence[Phase], programs: Mapping[str, str], seconds: float = 60
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run phases whose programs are given; all outcomes, and what was shown on the way."""
    shown: list[dict[str, Any]] = []
    runner = Runner(
        phases,
        seconds=seconds,
        work=tmp_path,
        command=lambda phase, given, found: [
            sys.executable,
            "-c",
            PROGRAM + programs[phase.name],
            str(given),
            str(found),
        ],
        environment={},
        log=tmp_path / "log.txt",
        context={"cpu": True},
        show=lambda results: shown.append(json.loads(json.dumps(results))),
    )
    return runner.run(), shown


def test_a_phase_that_fails_costs_only_those_that_need_it(tmp_path: Path) -> None:
    phases = [
        Phase("fails", "", 30, 0),
        Phase("needs it", "", 30, 0, needs=("fails",)),
        Phase("after it", "", 30, 0, after=("fails",)),
    ]
    results, shown = play(
        tmp_path,
        phases,
        {
            "fails": 'record(problems=[{"what": "x", "error": "no such thing\\nand more", "kind": "E"}]); sys.exit(1)',
            "needs it": "record()",
            "after it": 'record(values={"saw": given["results"]["fails"]["state"]})',
        },
    )
    assert {name: outcome["state"] for name, outcome in results.items()} == {
        "fails": "failed",
        "needs it": "skipped",
        "after it": "done",
    }
    assert results["needs it"]["why"] == "fails: no such thing"
    assert results["after it"]["values"]["saw"] == "failed"
    assert shown[0]["fails"]["state"] == "failed"


def test_a_phase_that_hangs_is_ended_with_all_that_it_started_and_leaves_what_it_had(tmp_path: Path) -> None:
    program = (
        'record(rows={"r": [{"a": 1}]}, doing="hanging")\n'
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    results, _ = play(
        tmp_path, [Phase("hangs", "", 3, 0), Phase("next", "", 30, 0)], {"hangs": program, "next": "record()"}
    )
    assert results["hangs"]["state"] == "out of time"
    assert "at hanging" in results["hangs"]["why"]
    assert results["hangs"]["rows"] == {"r": [{"a": 1}]}
    assert results["next"]["state"] == "done"
    child = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    assert not child.exists() or child.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.parametrize("death", ["os.abort()", f"os._exit({LOST})"])
def test_a_driver_that_kills_its_process_is_left_out_and_the_rest_is_measured(tmp_path: Path, death: str) -> None:
    program = f"""
if "bad" in given["without"]:
    record(rows={{"r": [{{"engine": "good", "v": 2}}]}})
else:
    record(rows={{"r": [{{"engine": "good", "v": 1}}, {{"engine": "bad", "v": 1}}]}}, doing="bad")
    {death}
"""
    results, _ = play(tmp_path, [Phase("speed", "", 30, 0)], {"speed": program})
    assert results["speed"]["state"] == "done"
    assert results["speed"]["rows"]["r"] == [{"engine": "good", "v": 2}, {"engine": "bad", "v": 1}]
    assert "measured again without it" in results["speed"]["problems"][0]["error"]


def test_what_runs_in_the_background_stands_still_while_something_is_measured(tmp_path: Path) -> None:
    phases = [
        Phase("build", "", 60, 0, background=True),
        Phase("ready", "", 30, 0),
        Phase("measure", "", 30, 0, quiet=True),
        Phase("uses it", "", 30, 0, needs=("build",)),
    ]
    pid, end = tmp_path / "pid", tmp_path / "end"
    programs = {
        # What works may be in a session of its own, as the converter that quantises is.
        "build": f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open({str(pid)!r}, "w").write(str(child.pid))
while not os.path.exists({str(end)!r}): time.sleep(0.01)
child.kill()
child.wait()
record(values={{"built": True}})
""",
        "ready": f"while not os.path.exists({str(pid)!r}) or not open({str(pid)!r}).read(): time.sleep(0.01)\nrecord()",
        "measure": f"""
state = open(f"/proc/{{open({str(pid)!r}).read()}}/stat").read().rsplit(")", 1)[1].split()[0]
open({str(end)!r}, "w").close()
record(values={{"state": state}})
""",
        "uses it": 'record(values=given["results"]["build"]["values"])',
    }
    results, _ = play(tmp_path, phases, programs)
    assert results["measure"]["values"]["state"] == "T"
    assert results["build"]["state"] == "done"
    assert results["uses it"]["values"] == {"built": True}


def test_a_build_that_is_not_ready_in_time_is_ended_and_what_needs_it_is_left_out(tmp_path: Path) -> None:
    phases = [
        Phase("build", "", 2, 0, background=True),
        Phase("uses it", "", 30, 0, needs=("build",)),
        Phase("other", "", 30, 0, after=("build",)),
    ]
    results, _ = play(tmp_path, phases, {"build": "time.sleep(600)", "uses it": "record()", "other": "record()"})
    assert [results[name]["state"] for name in ("build", "uses it", "other")] == ["out of time", "skipped", "done"]


def test_what_waits_in_the_background_delays_nobody(tmp_path: Path) -> None:
    """Quantising needs the extension; while that is compiled, what needs neither runs."""
    end = tmp_path / "end"
    phases = [
        Phase("build", "", 60, 0, background=True),
        Phase("quantise", "", 60, 0, needs=("build",), background=True),
        Phase("other", "", 30, 0),
        Phase("uses it", "", 30, 0, needs=("quantise",)),
    ]
    programs = {
        "build": f"while not os.path.exists({str(end)!r}): time.sleep(0.01)\nrecord()",
        "quantise": "record(values={'made': True})",
        "other": f"open({str(end)!r}, 'w').close()\nrecord()",
        "uses it": 'record(values=given["results"]["quantise"]["values"])',
    }
    results, _ = play(tmp_path, phases, programs)
    assert {outcome["state"] for outcome in results.values()} == {"done"}
    assert results["uses it"]["values"] == {"made": True}


def test_a_phase_that_lost_patience_is_done_last_or_goes_on_without(tmp_path: Path) -> None:
    end, order = tmp_path / "end", tmp_path / "order"
    note = f"open({str(order)!r}, 'a').write(given['name'] + ' ')\nrecord()"
    phases = [
        Phase("quantise", "", 60, 0, background=True),
        Phase("needs it", "", 30, 0, needs=("quantise",), patience=0.5),
        Phase("would like it", "", 30, 0, after=("quantise",), patience=0.5),
        Phase("last", "", 30, 0),
    ]
    programs = {
        "quantise": f"while not os.path.exists({str(end)!r}): time.sleep(0.01)\nrecord()",
        "needs it": note.replace("given['name']", "'needs'"),
        "would like it": note.replace("given['name']", "'likes'"),
        "last": note.replace("given['name']", "'last'") + f"\nopen({str(end)!r}, 'w').close()",
    }
    results, _ = play(tmp_path, phases, programs)
    assert {outcome["state"] for outcome in results.values()} == {"done"}
    assert order.read_text().split() == ["likes", "last", "needs"]


def test_the_record_is_whole_at_any_time_and_says_what_was_being_done(tmp_path: Path) -> None:
    record = Record(tmp_path / "r.json")
    record.columns(model="small")
    record.doing("exllamav2")
    record.row("prefill", engine="exllamav2", median=1.0)
    record.problem("load", RuntimeError("first\n" * 40))
    found = read(tmp_path / "r.json")
    assert found["doing"] == "exllamav2"
    assert found["rows"]["prefill"] == [{"model": "small", "engine": "exllamav2", "median": 1.0}]
    assert found["problems"][0]["error"].count("\n") == 11
    for median in (2.0, 3.0):
        record.replace("prefill", ("engine",), engine="transformers", median=median)
    rows = read(tmp_path / "r.json")["rows"]["prefill"]
    assert [(row["engine"], row["median"]) for row in rows] == [("exllamav2", 1.0), ("transformers", 3.0)]
    assert read(tmp_path / "nothing.json") == {}


# --- turns ----------------------------------------------------------------------------------------------------------


def test_engines_take_turns_and_one_that_fails_is_taken_out(tmp_path: Path) -> None:
    record = Record(tmp_path / "r.json")
    order: list[str] = []
    engines = {"a": "a", "b": "b", "c": "c"}

    def work(engine: str) -> int:
        order.append(engine)
        if engine == "b" and order.count("b") == 2:
            raise RuntimeError("it broke")
        return order.count(engine)

    written: list[tuple[str, int]] = []
    found = in_turns(
        engines,
        work,
        record,
        Deadline.within(60),
        what="prefill",
        repeats=2,
        each=lambda label, results: written.append((label, len(results))),
    )
    assert written == [("a", 1), ("c", 1), ("a", 2), ("c", 2)]
    assert order == ["a", "b", "c", "a", "b", "c", "a", "c"]
    assert found == {"a": [2, 3], "b": [], "c": [2, 3]}
    assert set(engines) == {"a", "c"}
    assert read(tmp_path / "r.json")["problems"] == [
        {"what": "prefill, b", "error": "it broke", "kind": "RuntimeError"}
    ]


def test_nothing_is_begun_when_there_is_no_time(tmp_path: Path) -> None:
    found = in_turns({"a": 1}, lambda engine: engine, Record(tmp_path / "r"), Deadline.within(-1), what="", repeats=3)
    assert found == {"a": []}


def test_each_engine_is_measured_with_the_weights_that_it_reads() -> None:
    models = {
        name: {"folder": f"/{name}", "bits": bits}
        for name, bits in {"small": 16, "small-exl2": 4, "large": 16, "large-gptq": 4.16}.items()
    }
    labels = [one.label for one in variants("large", models, ready=["transformers", "exllamav2", "exllamav3"])]
    assert labels == ["transformers", "exllamav2", "exllamav2 gptq", "exllamav3"]
    assert [one.folder for one in variants("small", models, ready=["transformers"])] == ["/small"]
    before, now = variants("small", models, ready=["transformers"], as_before=True)
    assert (before.label, before.attend, now.label, now.attend) == (AS_BEFORE, "rows", "transformers", None)


def test_prompts_that_are_not_shared_are_as_long_and_differ_from_their_beginning_on() -> None:
    shared, apart = shared_and_not(3, 4, 20)
    assert len(shared) == 3
    assert len(apart) == 12
    assert [item for request in shared for item in request.items] == [item for one in apart for item in one.items]
    assert len({request.prompt.system for request in apart}) == 12
    assert {len(request.prompt.user.split()) for request in (*shared, *apart)} == {20}
    assert len({request.prompt.system for request in writing(8, 5, 1, "x")}) == 8


def test_every_mode_is_measured_at_every_batch_size_what_matters_most_first() -> None:
    done = list(method.jobs(method.CARD))
    assert {(mode, batch) for mode, batch, _ in done} == {
        (mode, batch) for mode in method.MODES for batch in (1, 8, 32, 128)
    }
    assert done[0][:2] == method.GOAL == ("in context", 32)
    assert {(mode, batch) for mode, batch, _ in method.jobs({2: 2})} == {(mode, 2) for mode in method.MODES}


# --- models ---------------------------------------------------------------------------------------------------------


def test_the_large_model_has_the_size_that_it_is_said_to_have() -> None:
    assert SEVEN.parameters == pytest.approx(7.61e9, rel=0.005)
    assert SEVEN.flop_per_token(0) == 2 * SEVEN.in_layers
    assert SEVEN.cache_bytes_per_token() == 57_344
    assert Shape(576, 1536, 30, 9, 3, 64, 49152, tied=True, bias=False).parameters == pytest.approx(134.5e6, rel=0.001)


@pytest.mark.parametrize("matrix", list(SEVEN.linears()), ids=lambda matrix: matrix[0])
def test_four_bits_take_a_quarter_and_a_little(matrix: tuple[str, int, int]) -> None:
    _, inputs, outputs = matrix
    width = {"int32": 4, "float16": 2}
    packed = {name: a * b * width[kind] for name, ((a, b), kind) in gptq_tensors(inputs, outputs).items()}
    assert packed["qweight"] * 4 == inputs * outputs * 2
    assert sum(packed.values()) * 8 / (inputs * outputs) == pytest.approx(4 + (16 + 4) / GROUP)


def test_a_matrix_that_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ValueError, match="576 × 192"):
        gptq_tensors(576, 192)


def tokenizer_folder(folder: Path) -> Path:
    from tests.support.tiny_models import byte_tokenizer

    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shape = Shape(64, 128, 2, 4, 2, 16, 512, tied=True, bias=True, positions=512)
    random_model(folder, shape, tokenizer_folder(folder.with_name("tokenizer")), device="cpu", spread=0.3)
    assert Shape.of(folder).parameters == shape.parameters
    return folder


def test_a_random_model_loads_and_answers_in_its_own_tokens(tiny: Path) -> None:
    from el4ner.engines.base import GenerateRequest, Prompt
    from el4ner.engines.torch.transformers_engine import TransformersEngine

    engine = TransformersEngine.load("random", tiny, dtype="float32", threads=1)
    (result,) = engine.generate([GenerateRequest(Prompt("", "the quick brown fox"), 6)])
    engine.close()
    assert 1 <= result.usage.new_tokens <= 6


def test_a_packed_random_model_has_the_tensors_that_its_format_names(tmp_path: Path) -> None:
    from safetensors import safe_open

    shape = Shape(256, 512, 1, 4, 2, 64, 512, tied=False, bias=True)
    folder = tmp_path / "model"
    random_model(folder, shape, tokenizer_folder(tmp_path / "tokenizer"), device="cpu", bits=4)
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": GROUP,
        "desc_act": False,
        "sym": True,
    }
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == set(found)
    for name, inputs, outputs in shape.linears():
        for part, (size, kind) in gptq_tensors(inputs, outputs).items():
            tensor = found[f"model.layers.0.{name}.{part}"]
            assert tuple(tensor.shape) == size
            assert str(tensor.dtype) == f"torch.{kind}"
    assert found["model.layers.0.self_attn.q_proj.bias"].any()
    assert "model.layers.0.mlp.down_proj.bias" not in found


def test_a_padded_tokenizer_reads_as_before_and_knows_every_token_of_the_model(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    text = json.loads((tokenizer_folder(tmp_path) / "tokenizer.json").read_text())
    before, after = (Tokenizer.from_str(json.dumps(one)) for one in (text, padded_tokenizer(text, 600)))
    assert before.encode("in an <unused-7> hour").ids == after.encode("in an <unused-7> hour").ids
    assert after.get_vocab_size() == 600
    assert all(after.id_to_token(number) for number in range(600))
    with pytest.raises(ValueError, match="the model 100"):
        padded_tokenizer(text, 100)


# --- reports --------------------------------------------------------------------------------------------------------


def results_of(*, ratio: float, rate: float) -> dict[str, Any]:
    facts = {"folder": "/large", "bits": 16, "shape": SEVEN.facts()}
    method_rows = [
        {"engine": engine, "model": "large", "mode": "in context", "batch": 32, "sentences": 64, "tokens": 900}
        | {"new_tokens": 0, "prompt_tokens": 2000, "in_model": 0.5, "median": value, "least": value, "most": value}
        for engine, value in (("transformers", 5.0), ("exllamav2", 5.0 * ratio))
    ]
    speed_rows = {
        "prefill": [{"engine": "exllamav2", "model": "large", "prompts": 32, "tokens": 32_000, "median": rate}],
        "decode": [{"engine": "exllamav2 gptq", "model": "large", "batch": 8, "new_tokens": 64, "median": 800.0}],
    }
    for rows in speed_rows.values():
        rows[0] |= {"least": rows[0]["median"], "most": rows[0]["median"]}
    products = [{"what": "8192³", "kind": "bfloat16", "model": None, "tflops": 700.0, "least": 690.0, "most": 710.0}]
    return {
        "environment": {"state": "done", "seconds": 3, "values": {"gpu": "a card", "python": "3.12", "cores": 16}},
        "weights": {
            "state": "done",
            "seconds": 9,
            "rows": {"models": [{"name": "large", **facts}, {"name": "large-gptq", **facts, "bits": 4.16}]},
        },
        "ceilings": {
            "state": "done",
            "seconds": 9,
            "values": {"gigabytes_per_second": 4000.0},
            "rows": {"products": products},
        },
        "speed-large": {"state": "done", "seconds": 60, "rows": speed_rows},
        "method-large": {"state": "out of time", "seconds": 60, "why": "ended | at x", "rows": {"method": method_rows}},
    }


def test_goals_are_measured_against_the_ceiling_and_the_reference() -> None:
    rate = 0.6 * 700e12 / SEVEN.flop_per_token(1000)
    results = results_of(ratio=5.0, rate=rate)
    small, large, prefill = goals(results)
    assert small[1] is None
    assert large[1] == pytest.approx(5.0)
    assert prefill[1] == pytest.approx(0.6)
    assert [value for _, value, _ in goals({})] == [None, None, None]
    # The transformers engine got faster since the goal was set: the goal is about what it was.
    rows = results["method-large"]["rows"]["method"]
    rows.append({**rows[0], "engine": AS_BEFORE, "median": 2.0})
    _, large, _ = goals(results)
    assert "as before, large model" in large[0]
    assert large[1] == pytest.approx(12.5)
    assert "| 12.5× | 5.0× |" in markdown(results)


def test_the_report_shows_ratios_shares_and_what_went_wrong() -> None:
    results = results_of(ratio=3.0, rate=0.4 * 700e12 / SEVEN.flop_per_token(1000))
    results["speed-large"]["problems"] = [{"what": "load exllamav3", "error": "a `tick` | and\nlines", "kind": "E"}]
    results["tests"] = {
        "state": "failed",
        "seconds": 5,
        "values": {
            "passed": 3,
            "failed": 1,
            "skipped": 2,
            "failures": [["T.x", "broke"]],
            "reasons": [["T.y", "no exllamav3"], ["T.z", "no exllamav3"]],
        },
    }
    text = markdown(results)
    assert "| large | in context | exllamav2 | 32 | 15 | 15 – 15 | 900 + 0 | 50% |" in text
    assert "| 3.0× |" in text
    assert "40%" in text
    assert "- speed-large, load exllamav3: `a 'tick' \\| and lines`" in text
    assert "3 passed, 1 failed, 2 skipped" in text
    assert "- 2 skipped: no exllamav3" in text
    assert "3.0× at best (at least 4×: missed)" in text
    weights = SEVEN.read_bytes(4.16) + 8 * 80 * SEVEN.cache_bytes_per_token()
    assert f"{800 / 8 * weights / 4e12:.0%}" in text
    for line in text.splitlines():
        assert line.count("\n") == 0
    assert "nothing is known of the machine" in markdown({})


def test_of_a_compilers_output_the_errors_are_shown() -> None:
    text = (
        "Error building extension 'x'\n[1/41] nvcc -c a.cu\n" + "note\n" * 500 + "a.cu(7): error: no cub\nFAILED: b\n"
    )
    assert first_errors(text) == ["a.cu(7): error: no cub"]
    assert first_errors("ninja: not found\nsomething") == ["ninja: not found", "something"]
    assert first_errors("") == []


# --- all of it ------------------------------------------------------------------------------------------------------


def test_prefill_decoding_and_shared_prompts_are_measured_of_a_real_model(tmp_path: Path, tiny: Path) -> None:
    from el4ner.engines.torch.transformers_engine import TransformersEngine

    record = Record(tmp_path / "r.json")
    engine = TransformersEngine.load("tiny", tiny, dtype="float32", threads=1)
    try:
        speed.measure({"transformers": engine}, record, Sizes(2, 20, (2, 1), 3, 2, 3, 2), Deadline.within(100))
    finally:
        engine.close()
    found = read(tmp_path / "r.json")
    assert not found["problems"]
    rows = found["rows"]
    assert {row["engine"] for row in rows["prefill"]} == {"transformers", "plain transformers forward"}
    assert {row["batch"] for row in rows["decode"]} == {1, 2}
    assert all(row["times"] == 2 for row in (*rows["decode"], *rows["sharing"]))
    assert all(0 < row["least"] <= row["median"] <= row["most"] for table in rows.values() for row in table)


def test_the_whole_method_is_measured_in_every_mode(tmp_path: Path) -> None:
    from el4ner.engines.instant import InstantEngine

    record = Record(tmp_path / "r.json")
    engines: dict[str, Any] = {name: InstantEngine(name) for name in (AS_BEFORE, "transformers", "exllamav2")}
    deadline = Deadline.within(100)
    method.measure(engines, record, {1: 2, 8: 9}, deadline, cache_dir=tmp_path, embedder=False, repeats=2)
    found = read(tmp_path / "r.json")
    assert not found["problems"]
    rows = found["rows"]["method"]
    assert {(row["engine"], row["mode"], row["batch"]) for row in rows} == {
        *((label, mode, batch) for label in engines for mode in method.MODES for batch in (1, 8)),
        (AS_BEFORE, *next((mode, batch) for mode, batch, _ in method.jobs({1: 2, 8: 9}))),
    }
    assert AS_BEFORE not in engines
    assert all(row["times"] == 2 and row["median"] > 0 for row in rows)
    assert found["values"] == {"retrieval": "random"}


@pytest.mark.slow
def test_without_a_gpu_the_command_measures_what_is_not_cuda_and_writes_its_tables(tmp_path: Path) -> None:
    arguments = ["--cpu", "--only", "ceilings", "--minutes", "4", "--out", str(tmp_path / "out")]
    arguments += ["--work", str(tmp_path / "work"), "--loads", str(tmp_path)]
    assert main(arguments) == 0, (tmp_path / "out" / "log.txt").read_text()
    found = read(tmp_path / "out" / "results.json")
    assert {name: outcome["state"] for name, outcome in found["results"].items()} == {
        "environment": "done",
        "ceilings": "done",
    }
    assert found["results"]["ceilings"]["values"]["gigabytes_per_second"] > 0
    assert "### Ceilings" in (tmp_path / "out" / "table.md").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "table.md", "log.txt"}
