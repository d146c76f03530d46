"""Weights that the toy model's recipe sets by a formula: at the start, and of words that it never shows."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from videopool.shapes.images import image_questions
from videopool.shapes.recipe import GRID, TRAIN_STREAM, LanguageTask, generator
from videopool.shapes.scene import random_image
from videopool.shapes.tokenizer import SPECIAL

MATCH_SCALE = 2.0  # of queries and keys at the start, relative to transformers' initialisation
VOCABULARY_IMAGES = 400  # whose texts tell which words the recipe shows
SHARED = 0.3  # cosine of two words that were never shown, as of "left" and "right", which were learned


@torch.no_grad()
def set_positions(embeddings: nn.Embedding) -> None:
    """Fixed 2-D sine-cosine embeddings [1 + GRID * GRID, dim], the first (CLS) zero; as in MAE (arXiv 2111.06377)."""
    dim = embeddings.weight.shape[1]
    rates = 1.0 / 10000 ** (torch.arange(dim // 4) / (dim // 4))
    rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    parts = [f(axis.flatten()[:, None] * rates) for axis in (rows, columns) for f in (torch.sin, torch.cos)]
    embeddings.weight.copy_(torch.cat([torch.zeros(1, dim), torch.cat(parts, dim=1)]))


@torch.no_grad()
def whiten_projector(task: LanguageTask) -> None:
    """Start the projector's first layer as a whitening of the tower's features, rotated at random."""
    rng = generator(task.recipe.seed, TRAIN_STREAM, 99)
    features = task.features([random_image(rng) for _ in range(64)], rng).flatten(0, 1).double()
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((features - mean).T))
    whiten = vectors @ torch.diag((values + 1e-2 * values.mean()).rsqrt()) @ vectors.T
    layer = task.model.model.multi_modal_projector.linear_1
    rotation = torch.empty(layer.weight.shape, dtype=torch.double, device=features.device)
    nn.init.orthogonal_(rotation)
    weight = rotation @ whiten
    layer.weight.copy_(weight)
    layer.bias.copy_(-(weight @ mean))


@torch.no_grad()
def match_queries_and_keys(task: LanguageTask) -> None:
    """Start every layer's keys equal to its queries, so that tokens attend to tokens like themselves.

    The word "star" then finds the patches of a star from the first step on. From independent random weights, learning
    that lookup took longer than all the rest.
    """
    for layer in task.model.model.language_model.layers:
        layer.self_attn.q_proj.weight.mul_(MATCH_SCALE)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


def spread_unseen_words(task: LanguageTask) -> None:
    """Keep words that no question, answer or caption has apart, so that fine-tuning can give them meanings."""
    rng = generator(task.recipe.seed, TRAIN_STREAM, 98)
    seen = set(task.tokenizer.encode(task.prompt.text("")))
    for _ in range(VOCABULARY_IMAGES):
        image = random_image(rng)
        blocks = [task.block(question, letter) for question in image_questions(image, rng) for letter in (False, True)]
        seen.update(*(block.ids for block in [*blocks, task.caption_block(image)]))
    special = {task.tokenizer.convert_tokens_to_ids(word) for word in SPECIAL}
    unseen = [word for word in range(len(task.tokenizer)) if word not in seen | special]
    embeddings: Any = task.model.get_input_embeddings().weight
    spread_words(embeddings, sorted(seen - special), unseen, torch.Generator().manual_seed(task.recipe.seed))


@torch.no_grad()
def spread_words(embeddings: Tensor, seen: list[int], unseen: list[int], generator: torch.Generator) -> None:
    """Give words that were never seen directions of their own, in place.

    Input and output embeddings are one matrix, so that a word that is never the next one is pushed away from all
    answers. Nothing else moves words that are never read either: "first" and "last" end up with a cosine of 0.995,
    and no model can learn from clips to tell them apart.

    Each becomes L (sqrt(SHARED) d + sqrt(1 - SHARED) r). L is the mean length of the seen words; d is the common
    direction of the unseen ones, which keeps them unlikely answers; r is random, at right angles to d.

    Args:
        embeddings: [words, dim].
        seen: rows of words that were seen.
        unseen: rows to set; rows in neither list stay, as do all if there are none.
        generator: of r.
    """
    if not unseen:
        return
    length = embeddings[seen].norm(dim=1).mean()
    common = nn.functional.normalize(embeddings[unseen].mean(dim=0), dim=0)
    own = torch.randn(len(unseen), embeddings.shape[1], generator=generator).to(embeddings)
    own = nn.functional.normalize(own - (own @ common)[:, None] * common, dim=1)
    embeddings[unseen] = length * (math.sqrt(SHARED) * common + math.sqrt(1 - SHARED) * own)
