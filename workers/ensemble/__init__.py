"""Members of one ensemble in different processes, and the worker that combines what they say."""
