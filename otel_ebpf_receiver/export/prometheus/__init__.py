"""A scrape endpoint for Prometheus. `exporter.py` is the exporter."""
