"""Weights & Biases: runs of points, trainings and studies; workspaces and reports."""
