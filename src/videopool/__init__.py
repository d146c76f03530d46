"""Pooling ablations on image-to-video language models."""

__version__ = "0.2.0"
