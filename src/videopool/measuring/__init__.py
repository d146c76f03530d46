"""Measuring: token norms, stage by stage."""
