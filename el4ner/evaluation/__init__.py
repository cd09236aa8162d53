"""How good the tags are: labelled data sets, strict entity-level scores, what it cost."""

from el4ner.evaluation.dataset import Dataset, LabelledSentence, load_dataset
from el4ner.evaluation.run import EvaluationResult, evaluate
from el4ner.evaluation.scoring import Scores, score

__all__ = ["Dataset", "EvaluationResult", "LabelledSentence", "Scores", "evaluate", "load_dataset", "score"]
