"""How good the tags are: labelled data sets, strict scores with intervals, where entities are lost, what it cost."""

from el4ner.evaluation.dataset import Dataset, LabelledSentence, load_dataset
from el4ner.evaluation.evaluate import evaluate
from el4ner.evaluation.scoring import Scores, score
from el4ner.evaluation.sentence_records import EvaluationError, SentenceRecord, read_records, write_records
from el4ner.evaluation.summary import EvaluationResult, compare_with, summarise

__all__ = [
    "Dataset",
    "EvaluationError",
    "EvaluationResult",
    "LabelledSentence",
    "Scores",
    "SentenceRecord",
    "compare_with",
    "evaluate",
    "load_dataset",
    "read_records",
    "score",
    "summarise",
    "write_records",
]
