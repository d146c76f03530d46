"""How much of the language model's attention goes to which visual tokens.

Attention is that of one layer from the last position of the prompt, which the first word of the answer is drawn
from, averaged over heads. What a visual token gets is held against its norm.
"""

from typing import Any

import numpy as np

from videopool.norms.outliers import IN_CLIP
from videopool.norms.ranks import spearman
from videopool.norms.stage import ClipNorms
from videopool.norms.tally import Tally

PER_OCTAVE, OCTAVES = 4, 8  # of the norm over the clip's median, for the curve of attention against it
CELLS = 2 * OCTAVES * PER_OCTAVE


class AttentionNorms:
    """Attention of one layer against the norms of the tokens that the language model reads.

    Attributes:
        tally: sums over clips.
    """

    def __init__(self) -> None:
        self.tally = Tally()

    def add(self, attention: np.ndarray, read: ClipNorms, entering: np.ndarray) -> None:
        """Add a clip. Where attention is not finite, as behind a token with a NaN, the clip is counted and left out.

        Args:
            attention: [N] that the visual tokens get, of 1 for all positions.
            read: norms [N] of the visual tokens as the language model reads them.
            entering: [N] norms of their hidden states where they enter the layer.
        """
        valid, norms = read.valid.reshape(-1), read.norms.reshape(-1)
        total = float(attention.sum())
        self.tally.add("clips", 1)
        if not np.isfinite(total):
            self.tally.add("not_finite_clips", 1)
            return
        self.tally.add("used_clips", 1)
        self.tally.add("visual_share", total)
        for name, values in (("spearman", norms), ("spearman_entering", entering)):
            usable = valid & np.isfinite(values)
            correlation = spearman(attention[usable], values[usable])
            if correlation is not None:
                self.tally.add(name, correlation)
                self.tally.add(f"{name}.clips", 1)
        if not valid.any() or total <= 0:
            return
        for rule in IN_CLIP:
            chosen = read.outliers[rule].reshape(-1)
            if chosen.any():
                self.tally.add(f"{rule}.attention", attention[chosen].sum() / total)
                self.tally.add(f"{rule}.tokens", chosen.mean())
                self.tally.add(f"{rule}.clips", 1)
        relative = norms[valid] / np.median(norms[valid])
        places = np.floor((np.log2(relative) + OCTAVES) * PER_OCTAVE).astype(int).clip(0, CELLS - 1)
        fair = attention[valid] * norms.size / total
        self.tally.add("curve.attention", np.bincount(places, fair, minlength=CELLS))
        self.tally.add("curve.tokens", np.bincount(places, minlength=CELLS))

    def numbers(self) -> dict[str, Any]:
        """The numbers of norms.json; None for what is undefined."""
        tally = self.tally
        return {
            "clips": int(tally["clips"]),
            "not_finite_clips": int(tally["not_finite_clips"]),
            "visual_share": tally.number("visual_share", "used_clips"),
            "spearman": tally.number("spearman", "spearman.clips"),
            "spearman_entering": tally.number("spearman_entering", "spearman_entering.clips"),
            "outliers": {
                rule: {
                    "clips": int(tally[f"{rule}.clips"]),
                    "attention": tally.number(f"{rule}.attention", f"{rule}.clips"),
                    "tokens": tally.number(f"{rule}.tokens", f"{rule}.clips"),
                }
                for rule in IN_CLIP
            },
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of norms.safetensors."""
        edges = 2.0 ** (np.arange(CELLS + 1) / PER_OCTAVE - OCTAVES)
        if "curve.tokens" not in self.tally.sums:
            return {"curve.edges": edges}
        curve = self.tally.ratio("curve.attention", "curve.tokens")
        return {"curve.edges": edges, "curve.attention": curve, "curve.tokens": self.tally["curve.tokens"]}

    def state(self) -> dict[str, np.ndarray]:
        """All that add() has gathered."""
        return dict(self.tally.sums)

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state."""
        self.tally.sums = dict(state)
