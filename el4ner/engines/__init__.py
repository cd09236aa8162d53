"""What runs the models: the protocol (:mod:`el4ner.engines.base`) and its drivers. Importing this imports none."""
