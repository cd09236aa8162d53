"""Quantising models for the ExLlama engines, with their own converters."""
