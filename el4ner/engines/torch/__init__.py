"""Models of transformers, on torch: packed passes, shared prefixes, recorded decoding steps."""
