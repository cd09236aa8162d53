"""The command line: ``el4ner``.

    app         the root command: global options, errors as lines, exit codes
    options     options that several commands share
    settings    from options to checked settings
    output      what goes to standard output: entities marked in text, tables
    progress    what goes to standard error while something takes long
    tag, worker, serve, topics, produce, tail, dlq, schemas, pool, models, local, evaluate, calibrate, demo
                the commands, a module each

Results go to standard output, everything else to standard error. Modules here import what takes long (torch, Faust,
Kafka's client) inside the functions that need it: ``el4ner --help`` answers at once.
"""

from workers.cli.app import main

__all__ = ["main"]
