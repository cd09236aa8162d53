"""Pools that are taught while workers run: the topic of examples, who follows it, and who writes to it."""
