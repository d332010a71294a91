"""The live page: its files, and the streams that feed it. What is told comes from above; here nothing is known of it."""
