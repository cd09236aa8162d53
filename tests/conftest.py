"""For all tests."""

import os

from hypothesis import HealthCheck, settings

# Before any test imports torch: the suite runs brokers and models side by side. The library does the same when it loads
# a model (el4ner.engines.torch.waiting), but many tests import torch themselves.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Two workers of pytest-xdist share the processors.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test passes or fails by how busy the machine is: an example may take long, and so may making up its data.
# `make test-slow` and CI draw half as many examples as Hypothesis does by default (--hypothesis-profile=thorough),
# others a tenth. A test that wants more or fewer asks tests.support.examples. They all draw the same ones each time: a
# change passes or fails by what it is. `make test-search` draws twenty times as many, and others each time: what it
# finds is mended, and becomes a test of its own.
_any_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("search", _any_machine, max_examples=1000, derandomize=False)
settings.register_profile("thorough", _any_machine, max_examples=50)
settings.register_profile("quick", _any_machine, max_examples=10)
settings.load_profile("quick")
