"""OTLP over gRPC and HTTP/protobuf. `destination.py` is the exporter, `options.py` its options from the standard variables."""
