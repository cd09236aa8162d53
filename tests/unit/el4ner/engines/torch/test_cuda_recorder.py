"""What a recording asks of torch.cuda, on a stand-in that writes it down: device, stream, pool of memory, order."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from el4ner.engines.capturing import RECORDING
from el4ner.engines.exllama.timing import Stopwatch
from el4ner.engines.torch.decode_graphs import CudaRecorder

SECOND = torch.device("cuda", 1)


class Stream:
    def __init__(self, device: int) -> None:
        self.device = device

    def wait_stream(self, other: Stream) -> None:
        assert other.device == self.device


class Cuda:
    """torch.cuda of two devices: each has a current stream; a new stream is of the current device. As in torch 2.11 a
    recording that fails leaves its own stream the current one."""

    def __init__(self) -> None:
        self.current = 0
        self.streams = {0: Stream(0), 1: Stream(1)}
        self.pools = 0
        self.recordings: list[tuple[int, Stream]] = []
        self.fails = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("device", "stream", "graph", "current_stream", "set_stream", "graph_pool_handle"):
            patch.setattr(torch.cuda, name, getattr(self, name))
        patch.setattr(torch.cuda, "Stream", lambda: Stream(self.current))
        patch.setattr(torch.cuda, "CUDAGraph", type("Graph", (), {"replay": lambda self: None}))
        patch.setattr(torch.cuda, "Event", lambda **_: Event(self))

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device.index
        yield
        self.current = before

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before = self.streams[stream.device]
        self.set_stream(stream)
        yield
        self.set_stream(before)

    @contextmanager
    def graph(self, graph: Any, *, pool: int, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        assert RECORDING._is_owned()  # type: ignore[attr-defined]
        self.recordings.append((pool, stream))
        before = self.streams[stream.device]
        self.set_stream(stream)
        yield
        if self.fails:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.set_stream(before)

    def current_stream(self, device: torch.device | None = None) -> Stream:
        return self.streams[self.current if device is None else device.index]

    def set_stream(self, stream: Stream) -> None:
        self.streams[stream.device] = stream

    def graph_pool_handle(self) -> int:
        self.pools += 1
        return self.pools


class Event:
    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.device: int | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.device = (stream or self._cuda.current_stream()).device

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        if self.device != other.device:
            raise RuntimeError("invalid resource handle")
        assert self.device == SECOND.index, "the work is there"
        return 1000.0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    stand_in = Cuda()
    stand_in.install(monkeypatch)
    return stand_in


def test_a_model_on_the_second_device_is_recorded_there(cuda: Cuda) -> None:
    used: list[SimpleNamespace] = []

    def work() -> torch.Tensor:
        used.append(SimpleNamespace(device=cuda.current, stream=cuda.streams[1]))
        return torch.zeros(1)

    CudaRecorder(SECOND).record(work)
    ((_, stream),) = cuda.recordings
    assert [one.device for one in used] == [1, 1]
    assert all(one.stream is stream for one in used), "what a stream needs is there before it is recorded"
    assert cuda.current == 0


def test_a_pool_is_shared_as_long_as_a_graph_uses_it(cuda: Cuda) -> None:
    recorder = CudaRecorder(SECOND)
    kept = [recorder.record(lambda: torch.zeros(1)) for _ in range(2)]
    kept.clear()
    gc.collect()
    kept.append(recorder.record(lambda: torch.zeros(1)))
    pools = [pool for pool, _ in cuda.recordings]
    assert pools == [1, 1, 2], "torch refuses a pool that nobody uses any more while some of its memory is in use"
    assert len({stream for _, stream in cuda.recordings}) == 1


def test_a_recording_that_fails_leaves_the_threads_stream_as_it_was(cuda: Cuda) -> None:
    before = cuda.streams[1]
    cuda.fails = True
    with pytest.raises(RuntimeError, match="previous error"):
        CudaRecorder(SECOND).record(lambda: torch.zeros(1))
    assert cuda.streams[1] is before


def test_seconds_are_those_of_the_works_device(cuda: Cuda) -> None:
    watch = Stopwatch(("rows",), SECOND)
    with watch.measure("rows"):
        cuda.current = 1  # the library sets a stream, and with it the device
    cuda.current = 0
    with watch.measure("rows"):
        pass
    assert watch.seconds() == {"rows": 2.0}
