"""Pooling ablations on image-to-video language models."""

__version__ = "0.1.0"
