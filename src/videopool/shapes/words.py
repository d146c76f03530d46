"""Words of the vocabulary that training on images never showed, kept apart from each other.

Input and output embeddings are one matrix here, and a word that is never the next one is pushed away from all answers.
Words that are never read either are pushed by nothing else: "first" and "last" end up with a cosine of 0.995, and a
model that is to learn from clips what they mean cannot tell them apart. A language model of use has read such words.
"""

import math

import torch
from torch import Tensor

SHARED = 0.3  # cosine of two such words: that of "left" and "right", which were learned


@torch.no_grad()
def spread_words(embeddings: Tensor, seen: list[int], unseen: list[int], generator: torch.Generator) -> None:
    """Give words that were never seen directions of their own, in place.

    Each becomes L (sqrt(SHARED) d + sqrt(1 - SHARED) r): L is the mean length of the words that were seen, d the
    direction that the unseen ones have in common, by which they are still no likely answers, and r a random one of
    its own at right angles to d.

    Args:
        embeddings: [words, dim].
        seen: rows of words that were.
        unseen: rows to set; rows in neither list stay as they are, as do all if there are none.
        generator: of r.
    """
    if not unseen:
        return
    length = embeddings[seen].norm(dim=1).mean()
    common = torch.nn.functional.normalize(embeddings[unseen].mean(dim=0), dim=0)
    own = torch.randn(len(unseen), embeddings.shape[1], generator=generator).to(embeddings)
    own = torch.nn.functional.normalize(own - (own @ common)[:, None] * common, dim=1)
    embeddings[unseen] = length * (math.sqrt(SHARED) * common + math.sqrt(1 - SHARED) * own)
