"""What the agent says about itself: counters, its own telemetry, and a local server for probes and scrapes."""
