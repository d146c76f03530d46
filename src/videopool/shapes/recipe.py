"""The recipe of the toy model: its settings, and its tasks."""

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from videopool.benchmarks.prompts import Prompt
from videopool.shapes.mini import PATCH
from videopool.shapes.questions import Question, caption, image_questions, mixed
from videopool.shapes.render import IGNORE, label_sizes, patch_labels, render_image
from videopool.shapes.scene import COLOURS, IMAGE_SIZE, MAX_OBJECTS, SHAPES, Clip, random_image

TRAIN_STREAM, HELD_OUT_STREAM = 1, 2  # first number of every seed: the two never share a scene
GRID = IMAGE_SIZE // PATCH
LAYER = -1  # of the tower, as in the toy model's configuration
OBJECT_CLASSES = {"shape": len(SHAPES), "colour": len(COLOURS)}  # labels with one more class, the background
GROUND_WEIGHT = 0.05  # of background patches relative to object patches, in the losses on shape and colour
SHAPE_WEIGHT = 2.0  # the hardest label, and the last to be learned
CAPTION_WEIGHT = 0.15  # of a caption's token relative to the deciding token of an answer
LEARNED_LAST = ("attribute_colour", "attribute_shape", "relation_vertical")  # asked twice in the last stage
LAST_LETTER_SHARE = 0.8


@dataclass(frozen=True)
class RecipeStage:
    """One stage's schedule."""

    steps: int
    images: int  # per step
    rate: float  # peak learning rate
    warmup: int = 100
    weight_decay: float = 0.05
    stop: int | None = None  # steps after which the stage ends, before its schedule does

    def __post_init__(self) -> None:
        _refuse_below(self, 1, "steps", "images")
        _refuse_below(self, 0, "rate", "warmup", "weight_decay")

    @property
    def length(self) -> int:
        """Number of steps taken."""
        return self.stop or self.steps

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, from 0: a linear warm-up, then a cosine down to 2 % of the peak."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.02 + 0.49 * (1 + math.cos(math.pi * part)))


@dataclass(frozen=True)
class Recipe:
    """All settings that determine the weights.

    The last stage asks mostly for letters, with wrong options that are right for other objects of the image, and
    repeats the tasks that are learned last.
    """

    tower: RecipeStage
    language: RecipeStage
    letters: RecipeStage
    seed: int = 0
    letter_share: float = 0.6  # of questions answered by a letter, in the language stage after its first quarter
    # Most positions left out between visual tokens and text, in half of the images (a fifth in the first quarter), so
    # that text far after many visual tokens is no surprise.
    max_gap: int = 2300
    auxiliary: float = 0.15  # weight of the loss by which an object's projected tokens predict the words for it
    log_every: int = 25
    check_every: int = 250
    check_images: int = 160  # held out; nothing is chosen on them
    final_images: int = 600  # held out, at the end

    def __post_init__(self) -> None:
        _refuse_below(self, 1, "log_every", "check_every", "check_images", "final_images")
        _refuse_below(self, 0, "letter_share", "max_gap", "auxiliary", "seed")
        if self.letter_share > 1:
            raise ValueError(f"letter_share={self.letter_share}: give a share of at most 1")


def _refuse_below(settings: object, least: int, *names: str) -> None:
    """Raises ValueError for a setting that is no number of at least `least`."""
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, (int, float)) or not value >= least:
            raise ValueError(f"{name}={value!r}: give a number of at least {least}")


def generator(seed: int, stream: int, *place: int) -> np.random.Generator:
    """The random numbers of one place in one stream."""
    return np.random.default_rng([stream, seed, *place])


class Task(nn.Module):
    """Something to learn from random images, `images` per step."""

    images = 32

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step, `progress` (0..1) through the schedule, and figures for the log."""
        raise NotImplementedError

    def patch_features(self, tower: nn.Module, images: list[Clip], rng: np.random.Generator) -> Tensor:
        """Tower output without CLS [B, GRID * GRID, dim], for uint8 images made CLIP-normalised pixels."""
        pixels = np.stack([render_image(image, rng) for image in images])
        batch = torch.from_numpy(pixels).float().permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        batch = ((batch - mean) / std).to(self.device)
        return tower(batch, output_hidden_states=True).hidden_states[LAYER][:, 1:]

    def dense_labels(self, images: list[Clip]) -> dict[str, Tensor]:
        """Patch labels [B, GRID * GRID] by name."""
        labels = [patch_labels(image, PATCH) for image in images]
        stacked = {name: np.stack([one[name] for one in labels]) for name in labels[0]}
        return {name: torch.from_numpy(values).long().flatten(1).to(self.device) for name, values in stacked.items()}


class TowerTask(Task):
    """The tower under linear heads, one for each dense label."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.tower = model.model.vision_tower
        dim = self.tower.config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(dim, size) for name, size in label_sizes(GRID).items()})

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        images = [random_image(rng, max_objects=1 if progress < 0.1 else 4) for _ in range(self.images)]
        features = self.patch_features(self.tower, images, rng)
        labels = self.dense_labels(images)
        total, shares = torch.zeros((), device=self.device), {}
        for name, head in self.heads.items():
            target, logits = labels[name].flatten(), head(features).flatten(0, 1)
            known, weight = target != IGNORE, None
            if name in OBJECT_CLASSES:  # background patches are many and easy: they weigh less, and are not logged
                known &= target < OBJECT_CLASSES[name]
                weight = torch.ones(logits.shape[1], device=self.device)
                weight[-1] = GROUND_WEIGHT
            share = functional.cross_entropy(logits, target, weight, ignore_index=IGNORE)
            total = total + (SHAPE_WEIGHT if name == "shape" else 1.0) * share
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


class LanguageTask(Task):
    """Projector and language model on frozen tower features, many blocks per image under one block mask."""

    def __init__(
        self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, prompt: Prompt, recipe: Recipe
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.prompt, self.recipe = model, tokenizer, prompt, recipe
        self.encoded = lru_cache(1 << 14)(tokenizer.encode)  # most texts come again and again
        self.image_id = model.config.image_token_id
        self.mostly_letters = False  # the last stage
        groups = (SHAPES, tuple(COLOURS), ("left", "right"), ("top", "bottom"))
        self.word_groups = [torch.tensor(tokenizer.convert_tokens_to_ids(list(words))) for words in groups]

    def image(self, rng: np.random.Generator, number: int, max_objects: int = MAX_OBJECTS) -> Clip:
        """The image of this number in a step or a check."""
        return random_image(rng, max_objects)

    def answer_ids(self, text: str) -> list[int]:
        return [*self.encoded(text, add_special_tokens=False), self.tokenizer.eos_token_id]

    def after_image(self, text: str) -> list[int]:
        ids = self.encoded(text)
        return ids[ids.index(self.image_id) + 1 :]

    def block(self, question: Question, letter: bool) -> Block:
        """A question, answered by an option's letter or in words."""
        options, answer = question.options if letter else (), question.answer
        if letter:
            answer = f"{'abcdefgh'[options.index(answer)]} ) {answer}"
        prompt, ids = self.after_image(self.prompt.text(question.text, options)), self.answer_ids(answer)
        weights = [0.0] * len(prompt) + [1.0] + [0.2] * (len(ids) - 1)
        return Block(prompt + ids, weights, question.task, letter, len(prompt))

    def caption_block(self, image: Clip) -> Block:
        prompt, ids = self.after_image(self.prompt.text(self.prompt.describe)), self.answer_ids(caption(image))
        weights = [0.0] * len(prompt) + [CAPTION_WEIGHT] * len(ids)
        return Block(prompt + ids, weights, "caption", False, len(prompt))

    def both_ways(self, image: Clip, rng: np.random.Generator) -> list[Block]:
        """Questions about an image, each answered in words and by a letter."""
        return [self.block(question, letter) for question in image_questions(image, rng) for letter in (False, True)]

    def pack(self, blocks: list[list[Block]], gaps: list[int], visual: int) -> dict[str, Tensor]:
        """One row per image: its blocks, after the visual tokens and `gaps` positions, blind to each other.

        These are `before` [B, ...], `ids`, `weights` [B, L], `positions` [B, P + L] and the additive `mask`
        [B, 1, P + L, P + L], where P is the length of `before` and the visual tokens.
        """
        before = self.tokenizer.encode(self.prompt.text(""))
        before = before[: before.index(self.image_id)]
        prefix, count = len(before) + visual, len(blocks)

        def rows(values: list[list[Any]], padding: float) -> Tensor:
            return pad_sequence([torch.tensor(row) for row in values], batch_first=True, padding_value=padding)

        ids = rows([[token for block in row for token in block.ids] for row in blocks], self.tokenizer.pad_token_id)
        weights = rows([[weight for block in row for weight in block.weights] for row in blocks], 0)
        owner = rows([[number for number, block in enumerate(row) for _ in block.ids] for row in blocks], -1)
        texts = [
            [prefix + gap + place for block in row for place in range(len(block.ids))]
            for row, gap in zip(blocks, gaps, strict=True)
        ]
        positions = torch.cat([torch.arange(prefix).expand(count, -1), rows(texts, 0)], dim=1)
        length = positions.shape[1]
        allowed = torch.ones(count, length, length, dtype=torch.bool)
        allowed[:, prefix:, prefix:] = owner[:, :, None] == owner[:, None, :]
        mask = torch.zeros(allowed.shape).masked_fill_(~allowed.tril(), torch.finfo(torch.float32).min)[:, None]
        before = torch.tensor(before).expand(count, -1)
        packed = {"before": before, "ids": ids, "weights": weights, "positions": positions, "mask": mask}
        return {name: values.to(self.device) for name, values in packed.items()}

    def logits(self, projected: Tensor, packed: dict[str, Tensor]) -> Tensor:
        """Logits [B, L, words] for the token *at* each text position, from the position before it."""
        embed = self.model.get_input_embeddings()
        embedded = torch.cat([embed(packed["before"]), projected, embed(packed["ids"])], dim=1)
        hidden = self.model.model.language_model(
            inputs_embeds=embedded, attention_mask=packed["mask"], position_ids=packed["positions"], use_cache=False
        ).last_hidden_state
        return self.model.lm_head(hidden[:, -packed["ids"].shape[1] - 1 : -1])

    def read(
        self, images: list[Clip], blocks: list[list[Block]], gaps: list[int], rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Projected visual tokens of images, their packed blocks, and the logits of these."""
        features = self.patch_features(self.model.model.vision_tower, images, rng)
        projected = self.model.model.multi_modal_projector(features)
        packed = self.pack(blocks, gaps, projected.shape[1])
        return projected, packed, self.logits(projected, packed)

    def word_loss(self, projected: Tensor, images: list[Clip]) -> Tensor:
        """Cross-entropy of an object's words (shape, colour, side, height), each within its own group."""
        labels = self.dense_labels(images)
        on_object, half = labels["is_centre"] != IGNORE, GRID // 2
        right, low = (labels[name] >= half for name in ("centre_column", "centre_row"))
        tokens, losses = projected[on_object], []
        for group, target in zip(self.word_groups, (labels["shape"], labels["colour"], right, low), strict=True):
            logits = tokens @ self.model.lm_head.weight[group].T
            losses.append(functional.cross_entropy(logits, target.long()[on_object]))
        return torch.stack(losses).mean()

    def draw(self, image: Clip, rng: np.random.Generator) -> list[Question]:
        questions = image_questions(image, rng)
        if self.mostly_letters:
            questions += [question for question in image_questions(image, rng) if question.task in LEARNED_LAST]
            questions = [hard_options(question, image, rng) for question in questions]
        return questions

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        early = progress < 0.25 and not self.mostly_letters
        few = 1.0 if progress < 0.1 else 0.5 if early else 0.0
        images = [self.image(rng, number, 2 if rng.random() < few else 4) for number in range(self.images)]
        letters, gap_share = LAST_LETTER_SHARE if self.mostly_letters else self.recipe.letter_share, 0.5
        if early:
            letters, gap_share = 0.25, 0.2
        blocks = []
        for image in images:
            blocks.append([self.block(question, bool(rng.random() < letters)) for question in self.draw(image, rng)])
            blocks[-1].append(self.caption_block(image))
        gaps = [int(rng.integers(self.recipe.max_gap + 1)) if rng.random() < gap_share else 0 for _ in images]
        projected, packed, logits = self.read(images, blocks, gaps, rng)
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
            images = [self.image(rng, number) for number in range(start, min(start + self.images, count))]
            blocks = [self.both_ways(image, rng) for image in images]
            guessed = self.read(images, blocks, [0] * len(images), rng)[2].argmax(-1)
            for row, row_blocks in enumerate(blocks):
                at = 0
                for block in row_blocks:
                    hit = bool(guessed[row, at + block.decisive] == block.ids[block.decisive])
                    right[f"{'letters' if block.letter else 'words'}/{block.task}"].append(hit)
                    at += len(block.ids)
        return {name: float(np.mean(values)) for name, values in sorted(right.items())}


def hard_options(question: Question, image: Clip, rng: np.random.Generator) -> Question:
    """The question with wrong options that other objects of the image have, as far as there are any.

    With options drawn at random, "the one in the image" is right too often to learn more.
    """
    seen = {"attribute_colour": {t.colour for t in image.tracks}, "attribute_shape": {t.shape for t in image.tracks}}
    others = sorted(seen.get(question.task, set()) - {question.answer})
    if not others:
        return question
    wrong = [option for option in question.options if option != question.answer]
    chosen = list(dict.fromkeys([*others, *wrong]))[: len(wrong)]
    return Question(question.task, question.text, question.answer, mixed([question.answer, *chosen], rng))
