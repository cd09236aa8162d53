"""Text, before any model: sentences, span proposals, mentions, overlaps."""
