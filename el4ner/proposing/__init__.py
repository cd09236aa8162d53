"""A sentence's words by a member's hidden states: where entities begin and end, as the pool's labelled sentences show,
and what a span is in its place."""
