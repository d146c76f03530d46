"""The embedded world: rendered clips and images of coloured shapes, their questions, and the mini model.

Nothing outside this package knows how the world is made; benchmarks read the files it writes.
"""
