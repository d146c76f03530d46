"""One small interface over image-to-text models; families differ in a few methods.

Shapes: pixels [T, 3, S, S]; features [T, C + H*W, Dv] from the tower, where C is 1 for a CLS token, else 0 (of a family
that merges M x M patches [T, C + H*M*W*M, Dv / M^2]);
grid [T, H, W, Dv] before and [T, H, W, D] after the projector; embeddings [B, L, D]. A family with DeepStack reads more
layers of the tower, behind the features' own columns, and adds each to the states after one of the language model's
first layers: embeddings [B, L, W] of its visual tokens have these levels as further columns, W = (1 + levels) * D.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import takewhile
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from videopool.models.errors import ModelError
from videopool.models.passes import Clock, device_of, tower_pass
from videopool.models.sizes import ModelShape, feature_layers
from videopool.models.texts import BLOCK, FrameTexts, Stamps
from videopool.models.tower_outputs import LayerStates, NormedStates, TowerOutput
from videopool.video import to_pixels

VISION_CHUNK = 16  # frames that the tower sees at once by default, so that its memory does not grow with T


class Backbone(nn.Module):
    """A LLaVA model in parts: tower, projector, language model, tokenizer, image processor (one view of a frame).

    Parts may be on several devices; methods return tensors on `device`, features excepted, which stay with the tower.

    A family is a subclass that declares its facts as class attributes. `name` is for tables, `identity` that of the
    weights, from identity(); `placed` says that loading spread the weights over devices, where they stay. Raises
    ModelError if the vocabulary has no token for visual tokens.
    """

    model_type: ClassVar[str]  # in the config.json of the family's checkpoints
    architecture: ClassVar[type | str]  # the model's class, or its name in transformers
    towers: ClassVar[Mapping[str, str]] = {"video": "vision_tower", "image": "vision_tower"}  # name by medium
    projector_name: ClassVar[str] = "multi_modal_projector"
    language_name: ClassVar[str] = "language_model"
    newline: ClassVar[str] = ""  # name of the newline token; "" if there is none
    separators: ClassVar[int] = 0  # newline tokens after a clip's visual tokens
    row_newlines: ClassVar[bool] = False  # a newline token after each row of patches; with layout=block, after the clip
    frame_text: ClassVar[int] = 0  # tokens, about, of what frame_texts() says between two frames
    image_tags: ClassVar[tuple[str, str]] = ("", "")  # before and behind a still image
    tower_kind: ClassVar[str] = ""  # of ModelShape.tower
    projector_layers: ClassVar[int] = 2
    projector_norm: ClassVar[bool] = False
    projector_bias: ClassVar[bool] = True  # where the configuration does not say
    frame_size: ClassVar[int] = 0  # default side of views in pixels, of a tower that takes any; 0: the tower's own
    whole_clip: ClassVar[bool] = False  # its video processor limits the pixels of all frames of a clip together
    together: ClassVar[int] = 1  # frames that are one view of the tower, and one moment of the grid
    mrope: ClassVar[bool] = False  # positions have three axes; see grid_positions()
    clip_words: ClassVar[tuple[str, ...]] = ()  # what chat templates write for a clip beside the placeholders
    final_norm: ClassVar[str] = ""  # name of the norm that features of the tower's last layer pass; "": none
    attention: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj")  # attention layers that take LoRA

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
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.shape, self.name, self.identity, self.placed = shape, name, identity, placed
        # Weights on the CPU, once a checkpoint with a projector is attached.
        self.base_projector: dict[str, Tensor] | None = None
        self.tuned_projector: dict[str, Tensor] | None = None
        self.tower_changes: dict[str, Any] | None = None  # see TowerChanges.identity
        self.alpha_parts: dict[str, float] = {}  # by LoRA layer: alpha relative to the checkpoint's, where it differs
        self.media_ids = self._media_ids()
        self.image_token = tokenizer.convert_ids_to_tokens(self.media_ids["video"])
        ends = model.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        self.end_ids = frozenset(ends if isinstance(ends, list) else [ends])
        self.tower_hashes: dict[tuple[Any, ...], str] = {}  # by the state of a tower, for keys of features
        self._split: dict[str, tuple[list[int], list[int]]] = {}
        self._texts: dict[str, list[int]] = {}

    @classmethod
    def merged(cls, config: Any) -> int:
        """Patches on a side that are put side by side into one of the grid."""
        return 1

    @classmethod
    def inner_width(cls, width: int) -> int | None:
        """Between the projector's layers, of one that reads so wide a grid; None: as behind them."""
        return None

    @classmethod
    def transformers_class(cls) -> Any:
        """The class that reads the family's weights."""
        if isinstance(cls.architecture, type):
            return cls.architecture
        import transformers  # here, because it takes seconds and a plan needs none of it

        return getattr(transformers, cls.architecture)

    def _media_ids(self) -> dict[str, int]:
        """Ids of the placeholder tokens for visual tokens, by medium."""
        ids = {"image": self.model.config.image_token_id}
        ids["video"] = getattr(self.model.config, "video_token_id", None) or ids["image"]
        for medium, number in ids.items():
            word = self.tokenizer.convert_ids_to_tokens(number) if number < len(self.tokenizer) else None
            if word is None or self.tokenizer.encode(word, add_special_tokens=False) != [number]:
                raise ModelError(
                    f"{self.name}: the configuration says that token {number} stands for an {medium}, but the "
                    f"tokenizer ({len(self.tokenizer)} tokens) has no such token; take the tokenizer that belongs to "
                    "the model, or add <image> to it"
                )
        return ids

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Backbone":
        # Moving the module around it (as Lightning does) must not gather weights that were spread on purpose.
        return self if self.placed else super()._apply(fn, recurse)

    @property
    def parts(self) -> Any:
        """The module that holds tower, projector and language model."""
        return self.model.model

    @property
    def device(self) -> torch.device:
        """The device of the embeddings."""
        return device_of(self.model.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @property
    def extra(self) -> int:
        """C, a frame's features before its patches (the CLS token)."""
        return int(self.shape.cls)

    def tower(self, media: str) -> nn.Module:
        """The vision tower for videos or for images."""
        return getattr(self.parts, self.towers[media])

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.parts.get_submodule(self.projector_name)
        return projector

    @property
    def language_model(self) -> Any:
        return getattr(self.parts, self.language_name)

    def preprocess(self, frames: np.ndarray) -> Tensor:
        """uint8 frames [T, H, W, 3] to pixels [T, 3, S, S], or those of their proportions, by its image processor."""
        return to_pixels(self.image_processor, frames)

    @property
    def feature_states(self) -> LayerStates:
        """What a pass of the tower gives as features, the hidden states of the feature layers."""
        shape, depth = self.shape, self.shape.vision_layers
        layers = [layer if layer >= 0 else depth + 1 + layer for layer in feature_layers(self.model.config)]
        size = shape.tower_rows, shape.tower_dim * shape.feature_layers
        name = str(getattr(self.model.config, "vision_feature_layer", -1))
        if self.final_norm and feature_layers(self.model.config) == [-1]:
            return NormedStates(f"{name}, {self.final_norm}", size, (depth,), norm=self.final_norm)
        return LayerStates(name, size, tuple(layers))

    def features(self, pixels: Tensor, media: str = "video") -> Tensor:
        """Pixels [T, 3, S, S] to the tower's features [T, C + H*W, Dv], VISION_CHUNK frames at a time."""
        own = [self.feature_states]
        return torch.cat([self.encode_at_once(chunk, media, own)[0] for chunk in pixels.split(VISION_CHUNK)])

    @torch.inference_mode()
    def encode_at_once(
        self, frames: Sequence[Tensor] | Tensor, media: str, outputs: Sequence[TowerOutput], clock: Clock = nullcontext
    ) -> list[Tensor]:
        """Outputs [T, rows, width] of one call of the tower for frames [3, S, S]; see tower_pass()."""
        tower = self.tower(media)
        device = device_of(tower)
        # Pinned frames are copied while the device works.
        pixels = torch.stack([frame.to(device, non_blocking=True) for frame in frames])
        return tower_pass(tower, pixels, outputs, clock)

    def grid(self, features: Tensor) -> Tensor:
        """Features [..., C + P, Dt] to the patch grid [..., H, W, Dv]: M x M of the P patches side by side.

        Views that keep their clip's proportions come as [..., H * M, W * M, Dt].
        """
        height, width, merge = self.shape.height, self.shape.width, self.shape.merge
        if self.shape.by_clip:
            height, width = (side // merge for side in features.shape[-3:-1])
            features = features.flatten(-3, -2)
        patches = features[..., self.extra :, : self.shape.tower_dim * self.shape.feature_layers]
        if merge == 1:
            return patches.unflatten(-2, (height, width))
        return patches.unflatten(-2, (height, merge, width, merge)).transpose(-4, -3).flatten(-3)

    def level_grids(self, features: Tensor) -> list[Tensor]:
        """Features [..., C + P, W] to the grids [..., H, W, Dv] of the other levels of a family with DeepStack."""
        width = self.shape.tower_dim
        return [self.grid(features[..., width * level :]) for level in range(1, self.shape.levels + 1)]

    def project_level(self, level: int, grid: Tensor) -> Tensor:
        """The projector of a level, counted from 0: [..., Dv] to [..., D]."""
        raise NotImplementedError

    def cells(self, values: Tensor) -> Tensor:
        """Values [..., C + P, K] of patches to those of the grid's cells [..., H, W, K], their means."""
        merged = self.grid(values)
        return merged if self.shape.merge == 1 else merged.unflatten(-1, (-1, values.shape[-1])).mean(-2)

    def encode(self, pixels: Tensor, media: str = "video") -> Tensor:
        """Pixels [T, 3, S, S] to the tower's patch grid [T, H, W, Dv], without CLS."""
        return self.grid(self.features(pixels, media))

    def project(self, grid: Tensor) -> Tensor:
        """The projector: [..., Dv] to [..., D]."""
        # As rows: of a strided grid, as without CLS, torch multiplies each by a copy of the weights of its own.
        tokens = self.projector(grid.reshape(-1, grid.shape[-1]))
        return tokens.unflatten(0, grid.shape[:-1]).to(self.device)

    def newline_vector(self) -> Tensor:
        """The newline token [D]."""
        from accelerate.utils import align_module_device  # here, because a plan needs none of it

        with align_module_device(self.parts):  # brings an offloaded one
            return getattr(self.parts, self.newline).to(self.device)

    @classmethod
    def separators_in(cls, layout: str) -> int:
        """Newline tokens after the clip under a layout."""
        return max(cls.separators, int(cls.row_newlines)) if layout == BLOCK else cls.separators

    @property
    def spreads(self) -> bool:
        """Whether something stands between the tokens of a clip, so that their frames and rows matter."""
        return self.row_newlines or self.frame_text > 0

    def frame_texts(self, stamps: Stamps) -> FrameTexts:
        """What the family writes around the frames of a clip."""
        return FrameTexts()

    def texts_of(self, stamps: Stamps) -> FrameTexts:
        """The same; around a still image its tags alone."""
        opening, closing = self.image_tags
        return FrameTexts("", [opening], [closing], "", opening, closing) if stamps.still else self.frame_texts(stamps)

    def grid_positions(self, size: tuple[int, int, int], frames: int, stamps: Stamps) -> Tensor:
        """[T * H * W, 3] positions of a grid of this size, of a family with `mrope`."""
        raise NotImplementedError

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text between two placeholders."""
        if text not in self._texts:
            self._texts[text] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return self._texts[text]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] to embeddings [B, L, D]."""
        return self.model.get_input_embeddings()(ids)

    def words(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] to embeddings [B, L, W], which stand among visual tokens; the other levels are zero."""
        return pad(self.embed(ids), (0, self.shape.levels * self.shape.dim))

    def main(self, states: Tensor) -> Tensor:
        """States [..., W] without the columns of other levels, [..., D]."""
        return states[..., : self.shape.dim]

    def deepened(self, states: Tensor, embeddings: Tensor, layer: int) -> Tensor:
        """States [B, L, D] after a layer, counted from 1, with what embeddings [B, L, W] add there; 0: as they are."""
        width = self.shape.dim
        level = embeddings[..., layer * width : (layer + 1) * width]
        return states + level.to(states) if layer and level.shape[-1] else states

    def text_vector(self, text: str) -> Tensor:
        """A text as one vector [D] in the space of visual tokens: the mean of its tokens' embeddings."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return self.embed(torch.tensor(ids, dtype=torch.long, device=self.device)).mean(dim=0)

    def llm(self, embeddings: Tensor, **options: Any) -> Any:
        """The language model's hidden states and cache from embeddings [B, L, D or W]; options go to transformers."""
        return self.language_model(inputs_embeds=embeddings, **options)

    def read(
        self, embeddings: Tensor, mask: Tensor | None = None, positions: Tensor | None = None, cache: Any = None
    ) -> Tensor:
        """Last hidden states [B, L, D] of embeddings; a cache holds what precedes them, and grows by them."""
        options = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        return self.llm(embeddings, **options, use_cache=cache is not None).last_hidden_state.to(self.device)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] to logits [..., vocabulary] in float32."""
        return self.model.lm_head(hidden).to(self.device).float()

    def split_prompt(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the placeholder of the visual tokens. Raises ModelError if there is not one."""
        if text not in self._split:  # the points of a sweep ask the same questions
            ids = self.tokenizer.encode(text)
            if ids[:2] == [self.tokenizer.bos_token_id] * 2:  # the text has one, as chat templates write it
                ids = ids[1:]
            places = [place for place, number in enumerate(ids) if number in self.media_ids.values()]
            if len(places) != 1:
                raise ModelError(f"the prompt must hold {self.image_token} once, it holds it {len(places)} times")
            self._split[text] = ids[: places[0]], ids[places[0] + 1 :]
        before, after = self._split[text]
        return list(before), list(after)

    def continued(self, text: str, continuations: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Token ids after the placeholder: of a prompt, and of each continuation of it.

        A space separates them unless the prompt ends with one. Where the tokenizer merges the end of the prompt with a
        continuation, the prompt ends before the merged token. Raises ModelError as split_prompt(), and if a
        continuation adds no token.
        """
        _, question = self.split_prompt(text)
        space = "" if text[-1:].isspace() else " "
        texts = [self.split_prompt(text + space + continuation)[1] for continuation in continuations]
        together = zip(question, *texts, strict=False)  # the shortest ends it
        common = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, together))
        for continuation, ids in zip(continuations, texts, strict=True):
            if len(ids) == common:
                raise ModelError(f"{continuation!r} adds no token to the prompt: use benchmark.scoring=generate")
        return question[:common], [ids[common:] for ids in texts]

    def next_token_ids(self, context: str, words: Sequence[str]) -> list[int]:
        """The token that each word adds right after a text. Raises ModelError if a word is not exactly one token."""
        before = self.tokenizer.encode(context)
        ids = []
        for word in words:
            after = self.tokenizer.encode(context + word)
            if after[: len(before)] != before or len(after) != len(before) + 1:
                raise ModelError(f"{word!r} is not one token after {context[-12:]!r}: use benchmark.scoring=generate")
            ids.append(after[-1])
        return ids
