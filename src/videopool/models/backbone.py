"""One small interface over image-to-text models, and its implementation for the LLaVA family.

Shapes: pixels [T, 3, S, S]; grid [T, H, W, Dv] from the tower, [T, H, W, D] after the projector;
embeddings [B, L, D].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration
from transformers.utils import logging as transformers_logging

from videopool.models.errors import ModelError
from videopool.models.identity import identity, locate
from videopool.video import to_pixels

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
VISION_CHUNK = 32  # frames that the tower sees at once, so that its memory does not grow with T


@dataclass(frozen=True)
class ModelShape:
    """Sizes that are known from a model's configuration, without its weights.

    Attributes:
        height, width: of the patch grid.
        vision_dim, dim: before and after the projector.
        context: positions that the language model was made for.
        layers, heads, kv_heads, head_dim, intermediate, vocabulary: of the language model.
    """

    height: int
    width: int
    vision_dim: int
    dim: int
    context: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int


def model_shape(config: Any) -> ModelShape:
    """Sizes from a transformers LLaVA configuration."""
    text, vision = config.text_config, config.vision_config
    side = vision.image_size // vision.patch_size
    return ModelShape(
        height=side,
        width=side,
        vision_dim=vision.hidden_size,
        dim=text.hidden_size,
        context=text.max_position_embeddings,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
    )


def load_config(source: str, revision: str | None = None) -> Any:
    """A model's transformers configuration.

    Raises:
        ModelError: there is none, or it is of a family that is not supported.
    """
    folder = locate(source)
    try:
        config = AutoConfig.from_pretrained(str(folder or source), revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model.source={source}: no configuration could be read ({_first_line(error)})") from error
    if config.model_type != "llava":
        raise ModelError(f"model.source={source}: model type {config.model_type!r} is not supported; supported: llava")
    return config


class Backbone(nn.Module):
    """A LLaVA model in parts: tower, projector, language model, tokenizer, image processor."""

    def __init__(
        self, model: LlavaForConditionalGeneration, tokenizer: Any, image_processor: Any, name: str, identity: str
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.name = name
        self.identity = identity
        self.shape = model_shape(model.config)
        self.image_token = self.tokenizer.convert_ids_to_tokens(model.config.image_token_id)
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = tokenizer.eos_token_id
        self.end_ids = frozenset(ends if isinstance(ends, list) else [ends])

    @property
    def device(self) -> torch.device:
        return self.model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.lm_head.weight.dtype

    @property
    def feature_layer(self) -> str:
        return f"{self.model.config.vision_feature_layer}/{self.model.config.vision_feature_select_strategy}"

    def preprocess(self, frames: np.ndarray) -> Tensor:
        """uint8 frames [T, H, W, 3] to pixels [T, 3, S, S], as the model's image processor says."""
        return to_pixels(self.image_processor, frames)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [T, 3, S, S] to the tower's patch grid [T, H, W, Dv], CLS left out; VISION_CHUNK frames at a time."""
        layer = self.model.config.vision_feature_layer
        first = 1 if self.model.config.vision_feature_select_strategy == "default" else 0
        parts = []
        for chunk in pixels.split(VISION_CHUNK):
            states = self.model.model.vision_tower(
                chunk.to(self.device, self.dtype), output_hidden_states=True
            ).hidden_states[layer]
            parts.append(states[:, first:])
        return torch.cat(parts).unflatten(1, (self.shape.height, self.shape.width))

    def project(self, grid: Tensor) -> Tensor:
        """The projector: [..., Dv] to [..., D]."""
        return self.model.model.multi_modal_projector(grid)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] to embeddings [B, L, D]."""
        return self.model.get_input_embeddings()(ids)

    def llm(self, embeddings: Tensor, **options: Any) -> Any:
        """The language model's hidden states and cache; options go to transformers."""
        return self.model.model.language_model(inputs_embeds=embeddings, **options)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] to logits [..., vocabulary] in float32."""
        return self.model.lm_head(hidden).float()

    def split_prompt(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the one place for the visual tokens."""
        ids = self.tokenizer.encode(text)
        marker = self.model.config.image_token_id
        if ids.count(marker) != 1:
            raise ModelError(f"the prompt must hold {self.image_token} once, it holds it {ids.count(marker)} times")
        place = ids.index(marker)
        return ids[:place], ids[place + 1 :]

    def next_token_ids(self, context: str, words: Sequence[str]) -> list[int]:
        """The token that each word adds when it is written right behind a text.

        Raises:
            ModelError: a word is more than one token there, or changes the tokens before it.
        """
        before = self.tokenizer.encode(context)
        ids = []
        for word in words:
            after = self.tokenizer.encode(context + word)
            if after[: len(before)] != before or len(after) != len(before) + 1:
                raise ModelError(f"{word!r} is not one token behind {context[-12:]!r}: use benchmark.scoring=generate")
            ids.append(after[-1])
        return ids


def load_image_processor(source: str, revision: str | None = None) -> Any:
    """A model's image processor; always Pillow's arithmetic, whatever else is installed."""
    folder = locate(source)
    try:
        return AutoImageProcessor.from_pretrained(str(folder or source), revision=revision, backend="pil")
    except (OSError, ValueError) as error:
        raise ModelError(f"model.source={source}: no image processor could be read ({_first_line(error)})") from error


def load_backbone(
    source: str,
    name: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str = "sdpa",
    revision: str | None = None,
) -> Backbone:
    """Load a model from a folder, from this package ("videopool:..."), or by its Hugging Face id.

    Args:
        source: where the model is.
        name: for tables; the last part of source if not given.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda", "cuda:1" ...
        attention: transformers' attention implementation, "sdpa" or "eager".
        revision: commit or branch on the hub.

    Raises:
        ModelError: anything that keeps the model from loading whole.
    """
    if dtype not in DTYPES:
        raise ModelError(f"model.dtype={dtype}: choose one of {', '.join(DTYPES)}")
    config = load_config(source, revision)
    folder = locate(source)
    place = str(folder or source)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        loaded: Any = LlavaForConditionalGeneration.from_pretrained(
            place,
            config=config,
            dtype=DTYPES[dtype],
            attn_implementation=attention,
            revision=revision or "main",
            output_loading_info=True,
            use_safetensors=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelError(f"model.source={source}: {_first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
    model, report = loaded
    wrong = {kind: sorted(report[kind]) for kind in ("missing_keys", "unexpected_keys") if report[kind]}
    if wrong:
        listed = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(keys[:4])}" for kind, keys in wrong.items())
        raise ModelError(f"model.source={source}: the weights do not fit the configuration: {listed}")
    name = name or Path(source.removeprefix("videopool:")).name
    return Backbone(
        model.to(device), tokenizer, load_image_processor(source, revision), name, identity(source, revision)
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
