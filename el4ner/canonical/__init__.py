"""Canonical entities: mentions of one thing, in all documents, under one id. Pure: no clock, no Kafka."""
