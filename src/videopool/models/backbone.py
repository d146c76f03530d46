"""One small interface over image-to-text models; families differ in a few methods.

Shapes: pixels [T, 3, S, S]; features [T, C + H*W, Dv] from the tower, where C is 1 for a CLS token, else 0;
grid [T, H, W, Dv] before and [T, H, W, D] behind the projector; embeddings [B, L, D].
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from videopool.models.errors import ModelError
from videopool.models.sizes import ModelShape
from videopool.models.tower import hidden_states
from videopool.video import to_pixels

VISION_CHUNK = 16  # frames that the tower sees at once, so that its memory does not grow with T
MEDIA = ("video", "image")


class Backbone(nn.Module):
    """A LLaVA model in parts: tower, projector, language model, tokenizer, image processor.

    Args:
        model: of transformers, of one of the families.
        tokenizer: its tokenizer.
        image_processor: makes one view of a frame.
        shape: the model's sizes.
        name: for tables.
        identity: what the weights are.
        placed: the weights were spread over devices when they were loaded, and stay there.

    A family is a subclass; its facts stand on the class.

    Attributes:
        model_type: of the family, as in its checkpoints' config.json.
        architecture: class of the family's models, or the name of one in transformers.
        towers: name of the vision tower for each medium; most families have one for both.
        projector_name, language_name: names of the other parts.
        newline: name of the family's newline token; "" if it has none.
        separators: newline tokens behind a clip's visual tokens.
        attention: layers of the language model's attention, which LoRA can be put on.
        base_projector, tuned_projector: weights on the CPU, once a checkpoint with a projector was put on; else None.
        alpha_parts: by name of a layer with LoRA, what its alpha is of that of the checkpoint; 1 where there is none.

    Raises:
        ModelError: the vocabulary has no token for visual tokens.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[type | str]
    towers: ClassVar[Mapping[str, str]] = {"video": "vision_tower", "image": "vision_tower"}
    projector_name: ClassVar[str] = "multi_modal_projector"
    language_name: ClassVar[str] = "language_model"
    newline: ClassVar[str] = ""
    separators: ClassVar[int] = 0
    attention: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj")

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        shape: ModelShape,
        name: str,
        identity: str,
        placed: bool = False,
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.shape = shape
        self.name = name
        self.identity = identity
        self.placed = placed
        self.base_projector: dict[str, Tensor] | None = None
        self.tuned_projector: dict[str, Tensor] | None = None
        self.alpha_parts: dict[str, float] = {}
        self.media_ids = self._media_ids()
        self.image_token = tokenizer.convert_ids_to_tokens(self.media_ids["video"])
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = tokenizer.eos_token_id
        self.end_ids = frozenset(ends if isinstance(ends, list) else [ends])
        self._split: dict[str, tuple[list[int], list[int]]] = {}

    @classmethod
    def transformers_class(cls) -> Any:
        """The class that reads the family's weights."""
        if isinstance(cls.architecture, type):
            return cls.architecture
        import transformers  # here, as it takes seconds and a plan needs none of it

        return getattr(transformers, cls.architecture)

    def _media_ids(self) -> dict[str, int]:
        """Ids of the tokens that stand for visual tokens, by kind of medium."""
        ids = {"image": self.model.config.image_token_id}
        ids["video"] = getattr(self.model.config, "video_token_id", None) or ids["image"]
        for kind, number in ids.items():
            word = self.tokenizer.convert_ids_to_tokens(number) if number < len(self.tokenizer) else None
            if word is None or self.tokenizer.encode(word, add_special_tokens=False) != [number]:
                raise ModelError(
                    f"{self.name}: the configuration says that token {number} stands for an {kind}, but the tokenizer "
                    f"({len(self.tokenizer)} tokens) has no such token; take the tokenizer that belongs to the model, "
                    "or add <image> to it"
                )
        return ids

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Backbone":
        # Whoever moves the module around it (Lightning does) must not gather what was spread on purpose.
        return self if self.placed else super()._apply(fn, recurse)

    @property
    def parts(self) -> Any:
        """The module that holds tower, projector and language model."""
        return self.model.model

    @property
    def device(self) -> torch.device:
        """Where embeddings are."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @property
    def feature_layer(self) -> str:
        return str(self.model.config.vision_feature_layer)

    @property
    def extra(self) -> int:
        """C: how many of a frame's features stand before its patches (the CLS token)."""
        return int(self.shape.cls)

    def tower(self, media: str) -> nn.Module:
        """The vision tower for videos or for images."""
        return getattr(self.parts, self.towers[media])

    @property
    def projector(self) -> nn.Module:
        return getattr(self.parts, self.projector_name)

    @property
    def language_model(self) -> Any:
        return getattr(self.parts, self.language_name)

    def preprocess(self, frames: np.ndarray) -> Tensor:
        """uint8 frames [T, H, W, 3] to pixels [T, 3, S, S], as the model's image processor says."""
        return to_pixels(self.image_processor, frames)

    @torch.inference_mode()
    def features(self, pixels: Tensor, media: str = "video", layers: Sequence[int] | None = None) -> Tensor:
        """Pixels [T, 3, S, S] to all of the tower's features [T, C + H*W, Dv], VISION_CHUNK frames at a time.

        Several feature layers stand side by side in the last dimension.

        Args:
            layers: of the tower, as hidden_states() counts them; None for the model's feature layers.
        """
        tower = self.tower(media)
        at = next(tower.parameters())
        if layers is None:
            layer = self.model.config.vision_feature_layer
            layers = [layer] if isinstance(layer, int) else list(layer)
        parts = []
        for chunk in pixels.split(VISION_CHUNK):
            parts.append(torch.cat(hidden_states(tower, chunk.to(at.device, at.dtype), layers), dim=-1))
        return torch.cat(parts)

    def grid(self, features: Tensor) -> Tensor:
        """Features [..., C + H*W, Dv] to the patch grid [..., H, W, Dv]."""
        return features[..., self.extra :, :].unflatten(-2, (self.shape.height, self.shape.width))

    def cls(self, features: Tensor) -> Tensor | None:
        """Features [..., C + H*W, Dv] to the CLS token [..., Dv]; None for a tower without."""
        return features[..., 0, :] if self.shape.cls else None

    def encode(self, pixels: Tensor, media: str = "video") -> Tensor:
        """Pixels [T, 3, S, S] to the tower's patch grid [T, H, W, Dv], CLS left out."""
        return self.grid(self.features(pixels, media))

    def project(self, grid: Tensor) -> Tensor:
        """The projector: [..., Dv] to [..., D]."""
        return self.projector(grid)

    def finish(self, tokens: Tensor) -> Tensor:
        """What the family puts behind a clip's visual tokens: [B, N, D] to [B, N + separators, D]."""
        if not self.separators:
            return tokens
        newline = getattr(self.parts, self.newline).to(tokens.device, tokens.dtype)
        return torch.cat([tokens, newline.expand(tokens.shape[0], self.separators, -1)], dim=1)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] to embeddings [B, L, D]."""
        return self.model.get_input_embeddings()(ids)

    def text_vector(self, text: str) -> Tensor:
        """A text as one vector [D] in the space of visual tokens: the mean of its tokens' embeddings."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return self.embed(torch.tensor(ids, dtype=torch.long, device=self.device)).mean(dim=0)

    def llm(self, embeddings: Tensor, **options: Any) -> Any:
        """The language model's hidden states and cache; options go to transformers."""
        return self.language_model(inputs_embeds=embeddings, **options)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] to logits [..., vocabulary] in float32."""
        return self.model.lm_head(hidden).float()

    def split_prompt(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the one place for the visual tokens.

        Raises:
            ModelError: there is no such place, or more than one.
        """
        if text not in self._split:  # the points of a sweep ask the same questions
            ids = self.tokenizer.encode(text)
            places = [place for place, number in enumerate(ids) if number in self.media_ids.values()]
            if len(places) != 1:
                raise ModelError(f"the prompt must hold {self.image_token} once, it holds it {len(places)} times")
            self._split[text] = ids[: places[0]], ids[places[0] + 1 :]
        before, after = self._split[text]
        return list(before), list(after)

    def continued(self, text: str, continuations: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Token ids behind the place of the visual tokens: of a prompt, and of each text that goes on from it.

        A space stands between them unless the prompt ends with one. Where tokens join the end of the prompt and a
        continuation, the prompt ends before them.

        Raises:
            ModelError: as split_prompt(); or a continuation adds no token.
        """
        _, question = self.split_prompt(text)
        joint = "" if text[-1:].isspace() else " "
        whole = [self.split_prompt(text + joint + one)[1] for one in continuations]
        together = zip(question, *whole, strict=False)  # the shortest ends it
        kept = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, together))
        for one, ids in zip(continuations, whole, strict=True):
            if len(ids) == kept:
                raise ModelError(f"{one!r} adds no token to the prompt: use benchmark.scoring=generate")
        return question[:kept], [ids[kept:] for ids in whole]

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
