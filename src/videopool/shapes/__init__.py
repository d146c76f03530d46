"""Shapes: synthetic benchmark and bundled toy model.

Rendered clips and images of coloured shapes, their questions, and the recipe of the toy model. Nothing outside this
package knows how they are made; benchmarks read the files that it writes.
"""
