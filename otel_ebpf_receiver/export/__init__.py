"""Where telemetry goes: bounded queues, senders and one module or folder per destination. Knows bytes and counts, no HTTP semantics."""
