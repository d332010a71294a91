"""InfluxDB by line protocol, in measurements that a source declares as columns. `exporter.py` is the exporter."""
