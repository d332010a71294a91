"""What exporters over HTTP share: the agent's own, registered connections, and one POST at a time over them."""
