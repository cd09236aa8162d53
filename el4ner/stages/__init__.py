"""Stages 2 to 4 of the method: each a function from a batch of sentences to a batch of results, given its engines."""

from el4ner.stages.classify import classify
from el4ner.stages.context import StageContext
from el4ner.stages.extract import SentenceInput, extract
from el4ner.stages.validate import validate

__all__ = ["SentenceInput", "StageContext", "classify", "extract", "validate"]
