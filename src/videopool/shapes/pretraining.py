"""The recipe of the toy model: the tower learns dense patch labels, then projector and language model learn questions
and captions about single images. The model never sees a clip.

Every batch is drawn from a generator seeded by (seed, stage, step), so that a run that was stopped anywhere and
continued equals a run that never stopped.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from videopool.benchmarks.prompts import Prompt
from videopool.files import append, json_lines, read_json_lines, whole, write_text
from videopool.runtime.terminal import progress_bar
from videopool.shapes.mini import mini_config, mini_image_processor
from videopool.shapes.recipe import TRAIN_STREAM, LanguageTask, Recipe, RecipeStage, Task, TowerTask, generator
from videopool.shapes.set_weights import match_queries_and_keys, set_positions, spread_unseen_words, whiten_projector
from videopool.shapes.tokenizer import build_tokenizer

__all__ = ["Recipe", "RecipeStage", "pretrain"]
STAGES = ("tower", "language", "letters")
LOG = "log.jsonl"


def _log(folder: Path, **row: object) -> None:
    append(folder / LOG, json_lines([row]))


def _save(path: Path, state: dict[str, object]) -> None:
    with whole(path) as part:
        torch.save(state, part)


def _run_stage(
    name: str, task: Task, recipe: Recipe, folder: Path, check: Callable[[int], dict[str, float]] | None = None
) -> None:
    """Train one stage, from its last checkpoint if there is one."""
    stage: RecipeStage = getattr(recipe, name)
    task.images = stage.images
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=stage.rate, betas=(0.9, 0.98), weight_decay=stage.weight_decay, fused=True
    )
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
    with progress_bar(f"pretrain {name}", stage.length, first) as advance:
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
    _run_stage("language", language, recipe, folder, language.check)
    language.mostly_letters = True
    _run_stage("letters", language, recipe, folder, language.check)
    language.eval()
    spread_unseen_words(language)
    _log(folder, stage="held-out", step=recipe.letters.length, **language.check(recipe.final_images))
    out = folder / "model"
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    mini_image_processor().save_pretrained(out)
    return out
