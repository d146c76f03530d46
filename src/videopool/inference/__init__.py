"""Inference: batches of clips through a backbone."""
