"""What workers tell of themselves: metrics, traces, logs, probes."""
