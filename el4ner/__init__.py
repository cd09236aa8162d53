"""el4ner: named-entity tagging by an ensemble of small LLMs, prompted in context, with no training."""
