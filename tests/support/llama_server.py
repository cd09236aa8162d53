"""llama.cpp's own HTTP server, from the Python package xllamacpp, in a process of its own.

As a program: ``python tests/support/llama_server.py MODEL.gguf [--key KEY] [--slots N] [--context TOKENS] [--exact]``.
It prints its address when it listens, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LlamaServer:
    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@contextmanager
def llama_server(
    model: Path,
    log: Path,
    *,
    key: str | None = None,
    slots: int = 4,
    context: int = 8192,
    port: int = 0,
    exact: bool = False,
) -> Iterator[LlamaServer]:
    """A server, stopped at the end.

    Args:
        model: a GGUF file.
        log: what it says goes to the end of this file.
        key: that it demands.
        slots: requests that it works on at the same time; each has an equal share of ``context`` tokens.
        context: of all slots.
        port: 0: a free one.
        exact: keys and values in 32 bits, not in 16.
    """
    command = [sys.executable, str(Path(__file__).resolve()), str(model)]
    command += ["--slots", str(slots), "--context", str(context), "--port", str(port)]
    command += ["--key", key] if key is not None else []
    command += ["--exact"] if exact else []
    with log.open("a") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            assert line.startswith("http"), log.read_text()
            yield LlamaServer(line, process)
        finally:
            process.kill()
            process.wait(30)
            process.stdin.close()
            process.stdout.close()


def dequantised(source: Path, target: Path) -> None:
    """The model of a GGUF file with weights in 32 bits, rounded as el4ner rounds them when it converts such a file: the
    server then has the very weights of the engine in torch."""
    import gguf
    import torch

    reader = gguf.GGUFReader(source)
    made = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        made.add_key_value(name, field.contents(), field.types[0], inner)
    made.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        numbers = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
        made.add_tensor(tensor.name, numbers.to(torch.bfloat16).float().numpy())
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_tensors_to_file()
    made.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--key")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_parallel = options.slots
    params.n_ctx = options.context
    params.n_gpu_layers = 0
    params.warmup = False
    # Its threads wait for each other without sleeping: more of them than idle cores make it slower by far.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    if options.exact:
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if options.key is not None:
        params.api_keys = [options.key]
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()  # until whoever started this is gone


if __name__ == "__main__":
    main()
