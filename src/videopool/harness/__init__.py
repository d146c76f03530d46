"""Harness: points answer lmms-eval's requests."""
