"""Canonical entities on the stream: tagged documents in, entities and trends out."""
