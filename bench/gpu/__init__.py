"""The parts of bench/gpu/run.py: phases with a time each, what they measure, and how it is shown."""
