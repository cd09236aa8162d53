"""Schema registries: the framing of values, the registry's REST interface, values as their schemas say."""
