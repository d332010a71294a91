"""What the live page tells: tables of the last minute and a sample of exchanges, made only while somebody looks."""
