"""For developers: the AsyncAPI document, and whether schemas keep what a release promised. Not installed."""
