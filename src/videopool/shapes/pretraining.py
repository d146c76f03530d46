"""The recipe of the toy model: the tower learns dense patch labels, then projector and language model learn questions
and captions about single images. The model never sees a clip.

Every batch is drawn from a generator seeded by (seed, stage, step), so that a run that was stopped anywhere and
continued equals a run that never stopped.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from videopool.benchmarks.prompts import Prompt
from videopool.files import append, json_lines, read_json_lines, whole, write_text
from videopool.runtime.progress import progress
from videopool.shapes.kept import Encode, KeptTask
from videopool.shapes.mini import mini_config, mini_image_processor
from videopool.shapes.recipe import GRID, TRAIN_STREAM, LanguageTask, Recipe, RecipeStage, Task, TowerTask, generator
from videopool.shapes.scene import random_image
from videopool.shapes.tokenizer import SPECIAL, build_tokenizer

__all__ = ["Recipe", "RecipeStage", "pretrain", "pretrain_on"]
STAGES = ("tower", "language", "letters")
LOG = "log.jsonl"
MATCH_SCALE = 2.0  # of queries and keys at the start, relative to transformers' initialisation
VOCABULARY_IMAGES = 400  # whose texts tell which words the recipe shows
SHARED = 0.3  # cosine of two words that were never shown, as of "left" and "right", which were learned


def _log(folder: Path, **row: object) -> None:
    append(folder / LOG, json_lines([row]))


def _run_stage(
    name: str, task: Task, recipe: Recipe, folder: Path, check: Callable[[int], dict[str, float]] | None = None
) -> None:
    """Train one stage, from its last checkpoint if there is one."""
    stage: RecipeStage = getattr(recipe, name)
    task.images = stage.images
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    decay = stage.weight_decay
    optimiser = torch.optim.AdamW(parameters, lr=stage.rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    path = folder / f"{name}.ckpt"
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=task.device)
        task.load_state_dict(state["task"])
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["step"])
        rows = read_json_lines(folder / LOG)
        kept = [row for row in rows if row["stage"] != name or row["step"] <= first]  # later steps are taken again
        write_text(folder / LOG, json_lines(kept))
    task.train()
    started = time.perf_counter()
    with progress(f"pretrain {name}", stage.length, first) as advance:
        for step in range(first, stage.length):
            for group in optimiser.param_groups:
                group["lr"] = stage.rate_at(step)
            rng = generator(recipe.seed, TRAIN_STREAM, STAGES.index(name), step)
            loss, shares = task.loss(rng, step / stage.steps)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            done = step + 1
            if done % recipe.log_every == 0:
                seconds = round(time.perf_counter() - started, 1)
                _log(folder, stage=name, step=done, seconds=seconds, loss=loss.item(), **shares)
                advance(0, f"loss {loss.item():.3f}")
            if check is not None and done % recipe.check_every == 0:
                task.eval()
                _log(folder, stage=f"{name}-check", step=done, **check(recipe.check_images))
                task.train()
            if done % recipe.check_every == 0 or done == stage.length:
                _save(path, {"task": task.state_dict(), "optimiser": optimiser.state_dict(), "step": done})
            advance(1)


def _save(path: Path, state: dict[str, Any]) -> None:
    with whole(path) as part:
        torch.save(state, part)


def pretrain(recipe: Recipe, prompt: Prompt, folder: Path, device: str = "cpu") -> Path:
    """Make the toy model. Returns the folder with the model as transformers saves it, in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer()
    model: Any = LlavaForConditionalGeneration(mini_config(tokenizer))
    model.to(device)
    set_positions(model.model.vision_tower.embeddings.position_embedding)
    _run_stage("tower", TowerTask(model).to(device), recipe, folder)
    model.model.vision_tower.requires_grad_(False)
    language = LanguageTask(model, tokenizer, prompt, recipe)
    if not (folder / "language.ckpt").exists():
        torch.manual_seed(recipe.seed + 1)
        whiten_projector(language)
        match_queries_and_keys(language)
    _learn_to_read(language, folder)
    return _saved(language, mini_image_processor(), folder)


def pretrain_on(
    model: Any, tokenizer: Any, processor: Any, encode: Encode, identity: str, images: int, recipe: Recipe,
    prompt: Prompt, folder: Path,
) -> Path:  # fmt: skip
    """Train projector and language model of a LLaVA with the toy model's words; its tower stays as it is.

    `encode` is the tower's, named `identity`; so many `images` are drawn for training. Returns as pretrain().
    """
    features = folder / f"features-{identity}"
    language = KeptTask(model.requires_grad_(True), tokenizer, prompt, recipe, encode, features, images)
    tower, model.model.vision_tower = model.model.vision_tower, None  # not in checkpoints
    _learn_to_read(language, folder)
    model.model.vision_tower = tower
    return _saved(language, processor, folder)


def _learn_to_read(language: LanguageTask, folder: Path) -> None:
    """The stages of projector and language model."""
    recipe = language.recipe
    _run_stage("language", language, recipe, folder, language.check)
    language.mostly_letters = True
    _run_stage("letters", language, recipe, folder, language.check)
    language.eval()
    spread_unseen_words(language)
    _log(folder, stage="held-out", step=recipe.letters.length, **language.check(recipe.final_images))


def _saved(language: LanguageTask, processor: Any, folder: Path) -> Path:
    out = folder / "model"
    language.model.half().save_pretrained(out)
    language.tokenizer.save_pretrained(out)
    processor.save_pretrained(out)
    return out


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
    images = [random_image(rng) for _ in range(64)]
    features = task.patch_features(task.model.model.vision_tower, images, rng).flatten(0, 1).double()
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((features - mean).T))
    whiten = vectors @ torch.diag((values + 1e-2 * values.mean()).rsqrt()) @ vectors.T
    layer = task.model.model.multi_modal_projector.linear_1
    rotation = nn.init.orthogonal_(torch.empty(layer.weight.shape, dtype=torch.double, device=features.device))
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
        seen.update(*(block.ids for block in [*task.both_ways(image, rng), task.caption_block(image)]))
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

    `embeddings` is [words, dim]. `seen` and `unseen` are rows; rows in neither list stay, as do all if none is unseen.
    `generator` is r's.
    """
    if not unseen:
        return
    length = embeddings[seen].norm(dim=1).mean()
    common = nn.functional.normalize(embeddings[unseen].mean(dim=0), dim=0)
    own = torch.randn(len(unseen), embeddings.shape[1], generator=generator).to(embeddings)
    own = nn.functional.normalize(own - (own @ common)[:, None] * common, dim=1)
    embeddings[unseen] = length * (math.sqrt(SHARED) * common + math.sqrt(1 - SHARED) * own)
