"""For all tests."""

from workers.threads import wait_passively

# Before any test imports torch: the suite runs brokers and models side by side.
wait_passively()
