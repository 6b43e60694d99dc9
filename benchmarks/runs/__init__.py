"""Runs: their configuration, training one, many at once, and the file that keeps their rows."""
