"""All stages in one process: a document in, its outcome out, in one transaction with its offset."""
