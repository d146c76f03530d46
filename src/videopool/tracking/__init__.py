"""Weights & Biases: runs of points, trainings and studies; workspace and report."""
