"""The join of the stages' answers into tagged documents, each written once."""
