"""Speed: the program timed on random models."""
