"""A stage of the method on the stream: batches in, answers out, and what becomes of documents that fail."""
