"""For all tests."""

import os

# Before any test imports torch: the suite runs brokers and models side by side. The library does the same when it loads
# a model (el4ner.engines.waiting), but many tests import torch themselves.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
