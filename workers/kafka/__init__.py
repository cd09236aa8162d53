"""Kafka itself: clients, consumers that keep the promises, deliveries, transactions, rights."""
