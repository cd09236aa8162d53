"""For all tests."""

import os

from hypothesis import HealthCheck, settings

# Before any test imports torch: the suite runs brokers and models side by side. The library does the same when it loads
# a model (el4ner.engines.torch.waiting), but many tests import torch themselves.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No test passes or fails by how busy the machine is: an example may take long, and so may making up its data.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
