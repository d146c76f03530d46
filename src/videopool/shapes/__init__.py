"""The synthetic benchmark (rendered clips and images of coloured shapes) and the recipe of the bundled toy model.

No other room knows how clips are made: benchmarks read the files written here.
"""
