"""The recipe of the mini model: a tower taught by dense patch labels, then a projector and a language
model taught by questions and captions about single images. No clip is ever seen.

Every batch is drawn from a generator seeded by (seed, stage, step), so a run stopped anywhere and
continued is the run that never stopped.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from videopool.benchmarks.prompts import Prompt
from videopool.files import append, json_lines, read_json_lines, whole, write_text
from videopool.runtime.terminal import progress_bar
from videopool.shapes.images import IGNORE, PatchLabels, image_questions, label_sizes, patch_labels, render_image
from videopool.shapes.mini import PATCH, mini_config, mini_image_processor
from videopool.shapes.questions import Question, caption
from videopool.shapes.scene import Clip, random_image
from videopool.shapes.tokenizer import SPECIAL, build_tokenizer
from videopool.shapes.words import spread_words
from videopool.shapes.world import COLOURS, IMAGE_SIZE, SHAPES

TRAIN_STREAM, HELD_OUT_STREAM = 1, 2  # first word of every seed: the two never share a scene
GRID = IMAGE_SIZE // PATCH
STAGES = ("tower", "language", "letters")
LAYER = -1  # of the tower, as in the mini model's configuration
GROUND_WEIGHT = 0.05  # of background patches against object patches, in the losses on shape and colour
CAPTION_WEIGHT = 0.15  # of a caption's token against the deciding token of an answer
MATCH_SCALE = 2.0  # of queries and keys at the start, against transformers' initialisation
LEARNED_LAST = ("attribute_colour", "attribute_shape", "relation_vertical")  # asked twice in the last stage
LAST_LETTER_SHARE = 0.8
VOCABULARY_IMAGES = 400  # from which it is read which words are ever shown
SHAPE_WEIGHT = 2.0  # the hardest label, and the last to be learned


@dataclass(frozen=True)
class Stage:
    """One stage's schedule.

    Args:
        steps: length of the schedule.
        images: in each step.
        rate: peak learning rate.
        stop: steps after which the stage ends, before its schedule does; None for all of it.
    """

    steps: int
    images: int
    rate: float
    warmup: int = 100
    weight_decay: float = 0.05
    stop: int | None = None

    @property
    def length(self) -> int:
        """Steps that are taken."""
        return self.stop or self.steps


@dataclass(frozen=True)
class Recipe:
    """All that determines the weights.

    Args:
        check_images, final_images: held-out images, during training (nothing is chosen on them) and at its end.
        tower, language, letters: the three stages. The last asks mostly for letters, with wrong options that
            are right for other objects of the image, and asks more about what is learned last.
        letter_share: of questions asked with options, answered by a letter, in the language stage after
            its first quarter.
        max_gap: up to so many positions are left out between visual tokens and text in half of the
            images (a fifth in the first quarter), so that text far behind many visual tokens is no surprise.
        auxiliary: weight of the loss by which an object's projected tokens predict the words for it.
    """

    tower: Stage
    language: Stage
    letters: Stage
    seed: int = 0
    letter_share: float = 0.6
    max_gap: int = 2300
    auxiliary: float = 0.15
    log_every: int = 25
    check_every: int = 250
    check_images: int = 160
    final_images: int = 600


def generator(seed: int, stream: int, *place: int) -> np.random.Generator:
    """The random numbers of one place in one stream."""
    return np.random.default_rng([stream, seed, *place])


def to_pixels(images: list[np.ndarray]) -> Tensor:
    """uint8 [H, W, 3] images to CLIP-normalised pixels [B, 3, H, W]."""
    batch = torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (batch - mean) / std


def patch_features(tower: nn.Module, layer: int, pixels: Tensor) -> Tensor:
    """Tower output without CLS [B, GRID * GRID, dim]."""
    return tower(pixels, output_hidden_states=True).hidden_states[layer][:, 1:]


def sincos_positions(grid: int, dim: int) -> Tensor:
    """Fixed 2-D sine-cosine embeddings [1 + grid * grid, dim], the first (CLS) zero; as in MAE (arXiv 2111.06377)."""
    rates = 1.0 / 10000 ** (torch.arange(dim // 4) / (dim // 4))
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    parts = [f(axis.flatten()[:, None] * rates) for axis in (rows, columns) for f in (torch.sin, torch.cos)]
    return torch.cat([torch.zeros(1, dim), torch.cat(parts, dim=1)])


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    if step < stage.warmup:
        return stage.rate * (step + 1) / stage.warmup
    part = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.rate * (0.02 + 0.49 * (1 + math.cos(math.pi * part)))


class TowerTask(nn.Module):
    """The tower under linear heads, one for each dense label."""

    images = 32  # a step; set by the stage
    device = torch.device("cpu")

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.tower = model.model.vision_tower
        self.layer = LAYER
        dim = self.tower.config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(dim, size) for name, size in label_sizes(GRID).items()})

    def parameters_to_train(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        images = [random_image(rng, max_objects=1 if progress < 0.1 else 4) for _ in range(self.images)]
        pixels = to_pixels([render_image(image, rng) for image in images]).to(self.device)
        labels = [patch_labels(image, PATCH) for image in images]
        features = patch_features(self.tower, self.layer, pixels)
        total, shares = torch.zeros((), device=self.device), {}
        for name in PatchLabels.NAMES:
            target = torch.from_numpy(np.stack([getattr(one, name) for one in labels])).long().flatten()
            target = target.to(self.device)
            logits = self.heads[name](features).flatten(0, 1)
            weight = None
            if name in ("shape", "colour"):  # patches of plain background are many and easy
                weight = torch.ones(logits.shape[1], device=self.device)
                weight[-1] = GROUND_WEIGHT
            share = functional.cross_entropy(logits, target, weight, ignore_index=IGNORE)
            total = total + (SHAPE_WEIGHT if name == "shape" else 1.0) * share
            known = target != IGNORE
            if name in ("shape", "colour"):  # the background is easy: tell how well objects are seen
                known &= target < (len(SHAPES) if name == "shape" else len(COLOURS))
            shares[name] = (logits.argmax(-1) == target)[known].float().mean().item()
        return total, shares


@dataclass
class Block:
    """One question or caption about an image, as tokens."""

    ids: list[int]
    weights: list[float]  # of the loss on predicting each token
    task: str
    letter: bool
    decisive: int  # index of the token that decides right or wrong


class LanguageTask(nn.Module):
    """Projector and language model on frozen tower features, many blocks an image behind one block mask."""

    images = 32  # a step; set by the stage
    device = torch.device("cpu")

    def __init__(
        self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, prompt: Prompt, recipe: Recipe
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.prompt, self.recipe = model, tokenizer, prompt, recipe
        self.image_id = model.config.image_token_id
        self.cache: dict[str, list[int]] = {}
        groups = (SHAPES, tuple(COLOURS), ("left", "right"), ("top", "bottom"))
        self.mostly_letters = False  # the last stage
        self.word_groups = [torch.tensor(tokenizer.convert_tokens_to_ids(list(words))) for words in groups]

    def parameters_to_train(self) -> list[nn.Parameter]:
        model = self.model
        parts = (model.model.multi_modal_projector, model.model.language_model)  # the head is the embedding
        return [p for part in parts for p in part.parameters()]

    def ids(self, text: str) -> list[int]:
        if text not in self.cache:
            self.cache[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self.cache[text]

    def after_image(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(text)
        return ids[ids.index(self.image_id) + 1 :]

    def block(self, question: Question, letter: bool) -> Block:
        if letter:
            prompt = self.after_image(self.prompt.text(question.text, question.options))
            chosen = "abcdefgh"[question.options.index(question.answer)]
            answer = self.ids(f"{chosen} ) {question.answer}")
        else:
            prompt, answer = self.after_image(self.prompt.text(question.text)), self.ids(question.answer)
        weights = [0.0] * len(prompt) + [1.0] + [0.2] * len(answer)
        ids = prompt + answer + [self.tokenizer.eos_token_id]
        return Block(ids, weights, question.task, letter, len(prompt))

    def caption_block(self, image: Clip) -> Block:
        prompt = self.after_image(self.prompt.text(self.prompt.describe))
        answer = [*self.ids(caption(image)), self.tokenizer.eos_token_id]
        return Block(
            prompt + answer, [0.0] * len(prompt) + [CAPTION_WEIGHT] * len(answer), "caption", False, len(prompt)
        )

    def pack(self, blocks: list[list[Block]], gaps: list[int], visual: int) -> dict[str, Tensor]:
        """Ids, targets, weights [B, L], positions [B, prefix + L] and additive mask [B, 1, P + L, P + L]."""
        before = self.tokenizer.encode(self.prompt.text(""))
        before = before[: before.index(self.image_id)]
        prefix = len(before) + visual
        length = max(sum(len(b.ids) for b in row) for row in blocks)
        count = len(blocks)
        ids = torch.full((count, length), self.tokenizer.pad_token_id)
        weights = torch.zeros(count, length)
        positions = torch.zeros(count, prefix + length, dtype=torch.long)
        positions[:, :prefix] = torch.arange(prefix)
        owner = torch.full((count, length), -1)
        for row, (row_blocks, gap) in enumerate(zip(blocks, gaps, strict=True)):
            at = 0
            for number, block in enumerate(row_blocks):
                size = len(block.ids)
                ids[row, at : at + size] = torch.tensor(block.ids)
                weights[row, at : at + size] = torch.tensor(block.weights)
                positions[row, prefix + at : prefix + at + size] = prefix + gap + torch.arange(size)
                owner[row, at : at + size] = number
                at += size
        allowed = torch.zeros(count, prefix + length, prefix + length, dtype=torch.bool)
        allowed[:, :prefix, :prefix] = True
        allowed[:, prefix:, :prefix] = True
        allowed[:, prefix:, prefix:] = owner[:, :, None] == owner[:, None, :]
        allowed &= torch.ones(prefix + length, prefix + length, dtype=torch.bool).tril()
        mask = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)[:, None]
        return {
            "before": torch.tensor(before).expand(count, -1),
            "ids": ids,
            "weights": weights,
            "positions": positions,
            "mask": mask,
        }

    def logits(self, projected: Tensor, packed: dict[str, Tensor]) -> Tensor:
        """Logits [B, L, words] for the token *at* each text position, from the position before it."""
        embed = self.model.get_input_embeddings()
        embedded = torch.cat([embed(packed["before"]), projected, embed(packed["ids"])], dim=1)
        hidden = self.model.model.language_model(
            inputs_embeds=embedded,
            attention_mask=packed["mask"],
            position_ids=packed["positions"],
            use_cache=False,
        ).last_hidden_state
        length = packed["ids"].shape[1]
        return self.model.lm_head(hidden[:, -length - 1 : -1])

    def features(self, images: list[Clip], rng: np.random.Generator) -> Tensor:
        with torch.no_grad():
            pixels = to_pixels([render_image(image, rng) for image in images]).to(self.device)
            return patch_features(self.model.model.vision_tower, LAYER, pixels)

    def word_loss(self, projected: Tensor, images: list[Clip]) -> Tensor:
        """Cross-entropy of an object's words (shape, colour, side, height), each within its own group."""
        labels = [patch_labels(image, PATCH) for image in images]
        stacked = {n: torch.from_numpy(np.stack([getattr(o, n) for o in labels])).long() for n in PatchLabels.NAMES}
        on_object = (stacked["is_centre"] != IGNORE).flatten(1).to(self.device)
        tokens = projected[on_object]
        half = GRID // 2
        targets = (
            stacked["shape"],
            stacked["colour"],
            (stacked["centre_column"] >= half).long(),
            (stacked["centre_row"] >= half).long(),
        )
        losses = [
            functional.cross_entropy(
                tokens @ self.model.lm_head.weight[group].T, target.flatten(1).to(self.device)[on_object]
            )
            for group, target in zip(self.word_groups, targets, strict=True)
        ]
        return torch.stack(losses).mean()

    def draw(self, image: Clip, rng: np.random.Generator) -> list[Question]:
        """Questions about an image."""
        questions = image_questions(image, rng)
        if self.mostly_letters:
            questions += [q for q in image_questions(image, rng) if q.task in LEARNED_LAST]
            questions = [hard_options(question, image, rng) for question in questions]
        return questions

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        early = progress < 0.25 and not self.mostly_letters
        few = 1.0 if progress < 0.1 else 0.5 if early else 0.0
        images = [random_image(rng, max_objects=2 if rng.random() < few else 4) for _ in range(self.images)]
        letters, gap_share = (
            (0.25, 0.2) if early else (LAST_LETTER_SHARE if self.mostly_letters else self.recipe.letter_share, 0.5)
        )
        blocks = []
        for image in images:
            row = [self.block(question, bool(rng.random() < letters)) for question in self.draw(image, rng)]
            blocks.append([*row, self.caption_block(image)])
        gaps = [int(rng.integers(self.recipe.max_gap + 1)) if rng.random() < gap_share else 0 for _ in images]
        projected = self.model.model.multi_modal_projector(self.features(images, rng))
        packed = {k: v.to(self.device) for k, v in self.pack(blocks, gaps, projected.shape[1]).items()}
        logits = self.logits(projected, packed)
        each = functional.cross_entropy(logits.flatten(0, 1).float(), packed["ids"].flatten(), reduction="none")
        weights = packed["weights"].flatten()
        loss = (each * weights).sum() / weights.sum()
        words = self.word_loss(projected, images)
        right = (logits.argmax(-1) == packed["ids"])[packed["weights"] == 1].float().mean().item()
        shares = {"answers": right, "text": loss.item(), "words": words.item()}
        return loss + self.recipe.auxiliary * words, shares

    @torch.no_grad()
    def check(self, count: int) -> dict[str, float]:
        """Share of right answers on held-out images, by task, in words and in letters."""
        rng = generator(self.recipe.seed, HELD_OUT_STREAM)
        right: dict[str, list[float]] = defaultdict(list)
        for start in range(0, count, self.images):
            images = [random_image(rng) for _ in range(min(self.images, count - start))]
            questions = [image_questions(image, rng) for image in images]
            blocks = [[self.block(q, letter) for q in row for letter in (False, True)] for row in questions]
            projected = self.model.model.multi_modal_projector(self.features(images, rng))
            packed = self.pack(blocks, [0] * len(images), projected.shape[1])
            packed = {k: v.to(self.device) for k, v in packed.items()}
            guessed = self.logits(projected, packed).argmax(-1)
            for row, row_blocks in enumerate(blocks):
                at = 0
                for block in row_blocks:
                    hit = bool(guessed[row, at + block.decisive] == block.ids[block.decisive])
                    right[f"{'letters' if block.letter else 'words'}/{block.task}"].append(hit)
                    at += len(block.ids)
        return {name: float(np.mean(values)) for name, values in sorted(right.items())}


def hard_options(question: Question, image: Clip, rng: np.random.Generator) -> Question:
    """The question with wrong options that other objects of the image have, as far as there are any.

    With options drawn at random, "the one that is in the image" is right too often to learn more.
    """
    seen = {"attribute_colour": {t.colour for t in image.tracks}, "attribute_shape": {t.shape for t in image.tracks}}
    others = sorted(seen.get(question.task, set()) - {question.answer})
    if not others:
        return question
    wrong = [o for o in question.options if o != question.answer]
    chosen = list(dict.fromkeys([*others, *wrong]))[: len(wrong)]
    mixed = [question.answer, *chosen]
    return Question(question.task, question.text, question.answer, tuple(mixed[i] for i in rng.permutation(len(mixed))))


@torch.no_grad()
def whiten_projector(task: LanguageTask) -> None:
    """Start the projector's first layer as a whitening of the tower's features, turned at random."""
    rng = generator(task.recipe.seed, TRAIN_STREAM, 99)
    features = task.features([random_image(rng) for _ in range(64)], rng).flatten(0, 1).double()
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((features - mean).T))
    whiten = vectors @ torch.diag((values + 1e-2 * values.mean()).rsqrt()) @ vectors.T
    layer = task.model.model.multi_modal_projector.linear_1
    turn = torch.empty(layer.weight.shape, dtype=torch.double, device=features.device)
    nn.init.orthogonal_(turn, generator=None)
    weight = turn @ whiten
    layer.weight.copy_(weight)
    layer.bias.copy_(-(weight @ mean))


@torch.no_grad()
def match_queries_and_keys(task: LanguageTask) -> None:
    """Start every layer's keys equal to its queries, so that tokens look at tokens like themselves.

    The word "star" then finds the patches of a star from the first step on; from independent random
    weights, finding that lookup took longer than all the rest.
    """
    for layer in task.model.model.language_model.layers:
        layer.self_attn.q_proj.weight.mul_(MATCH_SCALE)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


def words_read(task: LanguageTask) -> set[int]:
    """Ids of all words that questions, answers and captions about images are made of."""
    rng = generator(task.recipe.seed, TRAIN_STREAM, 98)
    found = set(task.tokenizer.encode(task.prompt.text("")))
    for _ in range(VOCABULARY_IMAGES):
        image = random_image(rng)
        blocks = [task.block(question, letter) for question in image_questions(image, rng) for letter in (False, True)]
        found.update(*(block.ids for block in [*blocks, task.caption_block(image)]))
    return found


def spread_unseen_words(task: LanguageTask) -> None:
    """Keep the words that the recipe never shows apart, so that fine-tuning can give them meanings."""
    special = {task.tokenizer.convert_tokens_to_ids(word) for word in SPECIAL}
    seen = words_read(task) - special
    unseen = [word for word in range(len(task.tokenizer)) if word not in seen | special]
    embeddings: Any = task.model.get_input_embeddings().weight
    spread_words(embeddings, sorted(seen), unseen, torch.Generator().manual_seed(task.recipe.seed))


class Log:
    """Lines of JSON, appended; lines past the step that a run resumes from are dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, stage: str, step: int) -> None:
        kept = [row for row in read_json_lines(self.path) if row["stage"] != stage or row["step"] <= step]
        write_text(self.path, json_lines(kept))

    def write(self, **row: object) -> None:
        append(self.path, json_lines([row]))


def _save(path: Path, state: dict[str, object]) -> None:
    with whole(path) as part:
        torch.save(state, part)


def _run_stage(
    name: str,
    task: TowerTask | LanguageTask,
    stage: Stage,
    recipe: Recipe,
    folder: Path,
    on_check: Callable[[int], dict[str, float]] | None,
) -> None:
    """Train one stage, from its last checkpoint if there is one."""
    task.images = stage.images
    task.device = next(task.parameters()).device
    parameters = task.parameters_to_train()
    optimiser = torch.optim.AdamW(
        parameters, lr=stage.rate, betas=(0.9, 0.98), weight_decay=stage.weight_decay, fused=True
    )
    path, log = folder / f"{name}.ckpt", Log(folder / "log.jsonl")
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=task.device)
        task.load_state_dict(state["task"])
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["step"])
        log.cut(name, first)
    task.train()
    started = time.perf_counter()
    with progress_bar(f"pretrain {name}", stage.length, first) as advance:
        for step in range(first, stage.length):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(stage, step)
            rng = generator(recipe.seed, TRAIN_STREAM, STAGES.index(name), step)
            loss, shares = task.loss(rng, step / stage.steps)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            done = step + 1
            if done % recipe.log_every == 0:
                seconds = time.perf_counter() - started
                log.write(stage=name, step=done, seconds=round(seconds, 1), loss=loss.item(), **shares)
                advance(0, f"loss {loss.item():.3f}")
            if on_check is not None and done % recipe.check_every == 0:
                task.eval()
                log.write(stage=f"{name}-check", step=done, **on_check(recipe.check_images))
                task.train()
            if done % recipe.check_every == 0 or done == stage.length:
                _save(path, {"task": task.state_dict(), "optimiser": optimiser.state_dict(), "step": done})
            advance(1)


def pretrain(recipe: Recipe, prompt: Prompt, folder: Path, device: str = "cpu") -> Path:
    """Make the mini model. Returns the folder with the model as transformers saves it, in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer()
    model: Any = LlavaForConditionalGeneration(mini_config(tokenizer))
    model.to(device)
    embeddings = model.model.vision_tower.embeddings.position_embedding
    with torch.no_grad():
        embeddings.weight.copy_(sincos_positions(GRID, embeddings.weight.shape[1]))
    _run_stage("tower", TowerTask(model), recipe.tower, recipe, folder, None)
    model.model.vision_tower.requires_grad_(False)
    language = LanguageTask(model, tokenizer, prompt, recipe)
    language.device = torch.device(device)
    if not (folder / "language.ckpt").exists():
        torch.manual_seed(recipe.seed + 1)
        whiten_projector(language)
        match_queries_and_keys(language)
    _run_stage("language", language, recipe.language, recipe, folder, language.check)
    language.mostly_letters = True
    _run_stage("letters", language, recipe.letters, recipe, folder, language.check)
    language.eval()
    spread_unseen_words(language)
    Log(folder / "log.jsonl").write(stage="held-out", step=recipe.letters.length, **language.check(recipe.final_images))
    out = folder / "model"
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    mini_image_processor().save_pretrained(out)
    return out
