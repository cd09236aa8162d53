"""The parts of bench/quality.py: which rows there are, how one is measured, and how the table is shown."""
