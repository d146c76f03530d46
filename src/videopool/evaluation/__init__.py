"""Evaluation: questions answered, answers scored."""
