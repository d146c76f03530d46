"""The LightningModule: a backbone that reads clips through a pooling."""

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from transformers import DynamicCache

from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError
from videopool.models.merging import IGNORED, Merged, merge
from videopool.models.stages import CLS, FRAME_TIMES, STAGES, TEXT, THUMBNAIL, check_needs
from videopool.pooling import Pooling, PoolingContext, checked

LONG = 1024  # positions in common from which on reading them apart is faster


class VideoLM(pl.LightningModule):
    """Frames -> tower -> projector -> pooling -> language model.

    Args:
        backbone: the model.
        pooling: patch grid to visual tokens.
        stage: "projector" pools behind the projector, "encoder" before it; the two differ, as the
            projector is not linear.

    Raises:
        ModelError: no such stage, or the pooling needs what this model does not have.
    """

    def __init__(self, backbone: Backbone, pooling: Pooling, stage: str = "projector") -> None:
        super().__init__()
        if stage not in STAGES:
            raise ModelError(f"pooling.stage={stage!r}: choose one of {', '.join(STAGES)}")
        check_needs(pooling, backbone.shape, backbone.name, stage)
        self.backbone = backbone
        self.pooling = pooling
        self.stage = stage

    def visual_tokens(self, features: Tensor, text: Tensor | None = None, frame_times: Tensor | None = None) -> Tensor:
        """Tower features [B, T, C + H*W, Dv] to what the language model reads for a clip [B, N, D].

        Where the pooling needs a thumbnail, its features come behind those of the frames: [B, T + 1, C + H*W, Dv].

        Args:
            text: [B, D] prompts as Backbone.text_vector() gives them, for a pooling that needs them.
            frame_times: [T] seconds of the frames of all clips, for a pooling that needs them.
        """
        tokens = checked(self.pooling, *self.pooling_input(features, text, frame_times))
        return self.backbone.finish(self.backbone.project(tokens) if self.stage == "encoder" else tokens)

    def pooling_input(
        self, features: Tensor, text: Tensor | None = None, frame_times: Tensor | None = None
    ) -> tuple[Tensor, PoolingContext]:
        """What visual_tokens() pools of the same: the patch grid [B, T, H, W, D] at the stage, and its context."""
        backbone, needs = self.backbone, self.pooling.needs
        frames, image = (features[:, :-1], features[:, -1]) if THUMBNAIL in needs else (features, None)
        grid, cls = backbone.grid(frames), backbone.cls(frames) if CLS in needs else None
        thumbnail = None if image is None else backbone.grid(image)
        if self.stage == "projector":
            grid = backbone.project(grid)
            cls = None if cls is None else backbone.project(cls)
            thumbnail = None if thumbnail is None else backbone.project(thumbnail)
        context = PoolingContext(
            frame_times=frame_times if FRAME_TIMES in needs else None,
            cls=cls,
            text=text if TEXT in needs else None,
            thumbnail=thumbnail,
        )
        return grid, context

    def image_tokens(self, features: Tensor) -> Tensor:
        """Tower features [B, C + H*W, Dv] of still images to visual tokens [B, H*W, D]: no pooling."""
        return self.backbone.project(self.backbone.grid(features)).flatten(1, 2)

    def forward(
        self,
        ids: Tensor,
        media: Sequence[Sequence[Tensor]],
        mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Read prompts with images and videos in them.

        Args:
            ids: [B, L] token ids with a place for each medium.
            media: visual tokens [N, D] by row and place, from visual_tokens() or image_tokens().
            mask: [B, L] 1 for tokens, 0 for padding, on either side.
            labels: [B, L] token ids; IGNORED (-100) where no loss is taken.

        Returns:
            Logits [B, L', vocabulary] in float32, where L' counts visual tokens, and the mean cross-entropy
            over labelled positions (None without labels).

        Raises:
            ModelError: a row has more or fewer places than media.
        """
        merged = merge(self.backbone, ids, media, mask, labels)
        hidden = self.backbone.llm(
            merged.embeddings, attention_mask=merged.attention, position_ids=merged.positions, use_cache=False
        ).last_hidden_state
        logits = self.backbone.logits(hidden)
        if labels is None:
            return logits, None
        wanted = merged.labels[:, 1:].to(logits.device)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
        return logits, loss

    def token_losses(
        self,
        ids: Tensor,
        media: Sequence[Sequence[Tensor]],
        mask: Tensor,
        labels: Tensor,
        rounds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each labelled token, row after row; logits are made for these alone.

        Args:
            ids, media, mask, labels: as in forward().
            rounds: [B, L] of independent rounds, as merge() takes them.

        Returns:
            Losses [labelled tokens] in float32, and the row [labelled tokens] that each is of.
        """
        merged = merge(self.backbone, ids, media, mask, labels, rounds)
        hidden, start = self._hidden(merged)
        wanted = merged.labels[:, start + 1 :].to(hidden.device)
        chosen = wanted != IGNORED
        logits = self.backbone.logits(hidden[:, :-1][chosen])
        losses = torch.nn.functional.cross_entropy(logits, wanted[chosen], reduction="none")
        return losses, chosen.nonzero()[:, 0]

    def _hidden(self, merged: Merged) -> tuple[Tensor, int]:
        """Last hidden states [B, L - start, D] of a merged batch, from a position on before which nothing is predicted.

        Independent rounds are read behind what they have in common, as evaluation reads questions: that part is then
        plainly causal, which takes half the attention of a mask over all, and visual tokens are most of it.
        """
        llm, common = self.backbone.llm, merged.common
        recomputed = getattr(self.backbone.language_model, "gradient_checkpointing", False)
        if common < LONG or recomputed:  # recomputed layers keep no keys and values
            hidden = llm(
                merged.embeddings, attention_mask=merged.attention, position_ids=merged.positions, use_cache=False
            ).last_hidden_state
            return hidden, 0
        cache = DynamicCache(config=self.backbone.model.config.text_config)
        positions = merged.positions
        llm(merged.embeddings[:, :common], position_ids=positions[:, :common], past_key_values=cache, use_cache=True)
        hidden = llm(
            merged.embeddings[:, common:],
            attention_mask=merged.attention[:, :, common:],
            position_ids=positions[:, common:],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden, common
