// Empty: bcc includes it, and nothing of it is needed.
