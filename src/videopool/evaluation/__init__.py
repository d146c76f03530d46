"""Evaluation: the questions of a benchmark answered, and graded."""
