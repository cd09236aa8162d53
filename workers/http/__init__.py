"""What our HTTP services have in common (`el4ner serve`, `el4ner ui`): bounded connections, problems as JSON, what of a
request is refused before anything else is looked at."""
