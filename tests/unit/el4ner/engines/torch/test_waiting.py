"""Threads of torch that wait asleep, also where the program imported torch before this library."""

import os
import subprocess
import sys

import pytest

MEASURE = """
import os, sys, time
import torch
from el4ner.engines.torch.waiting import import_torch

def others():
    tasks = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
    return sum(int(open(f"/proc/self/task/{task}/schedstat").read().split()[0]) for task in tasks) / 1e9

def spun():
    '''Processor time of the other threads, as a part of this one's, while only this one has work.'''
    numbers = torch.ones(1 << 18)
    numbers + numbers
    begun, own = others(), time.thread_time()
    for _ in range(25):
        numbers + numbers
        end = time.thread_time() + 0.004
        while time.thread_time() < end:
            pass
    return (others() - begun) / (time.thread_time() - own)

before = spun()
import_torch()
import_torch()
print(torch.get_num_threads(), before, spun(), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.slow
def test_threads_of_a_program_that_imported_torch_first_wait_asleep_too() -> None:
    """Processor times, which others on the machine do not change: waiting for 4 ms costs a spinning thread 4 ms."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    threads, before, after, policy = run.stdout.split()
    assert policy == "None"
    if int(threads) > 1 and float(before) > 0.3:  # with one processor nobody waits; others' settings may be passive
        assert float(after) < 0.5 * float(before)
