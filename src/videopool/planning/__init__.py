"""Costs of points, from configuration alone."""
