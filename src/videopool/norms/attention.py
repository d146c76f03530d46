"""Attention and other scores of visual tokens, against their norms.

Attention of the language model is that of one layer from the last position of the prompt, which generates the first
word of the answer, averaged over heads. Scores of the tower are attention that its patches receive in a block, or the
norms of their values there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from videopool.norms.stage import ClipNorms
from videopool.norms.statistics import Sums, spearman

PER_OCTAVE, OCTAVES = 4, 8  # of the norm over the clip's median, for the curve of attention against norm
CELLS = 2 * OCTAVES * PER_OCTAVE


class AttentionNorms(Sums):
    """Attention of one layer against the norms of the same tokens, summed over clips; outliers are those of `rules`."""

    def __init__(self, rules: Sequence[str]) -> None:
        super().__init__()
        self.rules = rules

    def add(self, attention: np.ndarray, read: ClipNorms, entering: np.ndarray | None = None) -> None:
        """Add a clip. A clip whose attention is not finite (a NaN in a token spreads to all) is counted and left out.

        Attention [N] is that of the visual tokens, of 1 over all positions, or [T, H*W] in frames, each of 1; `read`
        are their norms as the language model reads them, or at the tower's feature layer, `entering` [N] those of their
        hidden states where they enter the layer.
        """
        valid, norms = read.valid.reshape(-1), read.norms.reshape(-1)
        rows = np.atleast_2d(attention)
        attention = rows.reshape(-1) / len(rows)
        total = float(attention.sum())
        self.accumulate({"clips": 1, "not_finite_clips": not np.isfinite(total)})
        if not np.isfinite(total):
            return
        self.accumulate({"used_clips": 1, "visual_share": total})
        medians = np.median(rows, axis=1)
        if (medians > 0).all():
            self.add_mean("max_over_median", float((rows.max(axis=1) / medians).mean()))
        for name, values in (("spearman", norms), ("spearman_entering", entering)):
            if values is not None:
                usable = valid & np.isfinite(values)
                self.add_mean(name, spearman(attention[usable], values[usable]))
        if not valid.any() or total <= 0:
            return
        for rule in self.rules:
            chosen = read.outliers[rule].reshape(-1)
            if chosen.any():
                share = attention[chosen].sum() / total
                self.accumulate({f"{rule}.attention": share, f"{rule}.tokens": chosen.mean(), f"{rule}.clips": 1})
        relative = norms[valid] / np.median(norms[valid])
        cells = np.floor((np.log2(relative) + OCTAVES) * PER_OCTAVE).astype(int).clip(0, CELLS - 1)
        fair = attention[valid] * norms.size / total
        attention_of, tokens_of = (np.bincount(cells, weights, minlength=CELLS) for weights in (fair, None))
        self.accumulate({"curve.attention": attention_of, "curve.tokens": tokens_of})

    def numbers(self) -> dict[str, Any]:
        """The numbers of norms.json; None if undefined."""
        return {
            "clips": int(self["clips"]),
            "not_finite_clips": int(self["not_finite_clips"]),
            "visual_share": self.number("visual_share", "used_clips"),
            "max_over_median": self.mean("max_over_median"),
            "spearman": self.mean("spearman"),
            "spearman_entering": self.mean("spearman_entering"),
            "outliers": {
                rule: {
                    "clips": int(self[f"{rule}.clips"]),
                    "attention": self.number(f"{rule}.attention", f"{rule}.clips"),
                    "tokens": self.number(f"{rule}.tokens", f"{rule}.clips"),
                }
                for rule in self.rules
            },
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of norms.safetensors."""
        edges = 2.0 ** (np.arange(CELLS + 1) / PER_OCTAVE - OCTAVES)
        if "curve.tokens" not in self.sums:
            return {"curve.edges": edges}
        curve = self.ratio("curve.attention", "curve.tokens")
        return {"curve.edges": edges, "curve.attention": curve, "curve.tokens": self["curve.tokens"]}
