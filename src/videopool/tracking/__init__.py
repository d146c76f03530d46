"""Weights & Biases: runs, workspaces and reports."""
