"""How the model libraries' threads wait for each other."""

from __future__ import annotations

import os

__all__ = ["wait_passively"]


def wait_passively() -> None:
    """Have OpenMP's threads sleep while they wait, unless ``OMP_WAIT_POLICY`` says otherwise; before torch is imported.

    They spin by default: fast where nothing else wants the cores, but beside a broker they burn what the others need.
    On 2 cores with a load of 5, one batch took 181 s (90 s of CPU) spinning, and 52 s (30 s of CPU) sleeping.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
