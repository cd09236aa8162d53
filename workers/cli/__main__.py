"""``python -m workers.cli``: the same as ``el4ner``."""

from workers.cli.app import main

main()
