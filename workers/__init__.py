"""The streaming shell around :mod:`el4ner`: Kafka, Faust, Redis, local services and the command line."""
