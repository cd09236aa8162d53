"""Redacted documents on the stream: tagged documents in, texts without their names out."""
