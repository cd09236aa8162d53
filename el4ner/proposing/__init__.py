"""Spans by a member's hidden states: where entities begin and end, as the pool's labelled sentences show it."""
