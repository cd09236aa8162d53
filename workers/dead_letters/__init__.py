"""Documents that could not be processed: what their letters say, and sending them again."""
