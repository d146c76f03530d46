"""The LightningModule: a backbone that reads clips through a pooling."""

import pytorch_lightning as pl
from torch import Tensor

from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError
from videopool.pooling import Pooling, checked

STAGES = ("projector", "encoder")


class VideoLM(pl.LightningModule):
    """Frames -> tower -> projector -> pooling -> language model.

    Args:
        backbone: the model.
        pooling: patch grid to visual tokens.
        stage: "projector" pools behind the projector, "encoder" before it; the two differ, as the
            projector is not linear.

    Raises:
        ModelError: no such stage.
    """

    def __init__(self, backbone: Backbone, pooling: Pooling, stage: str = "projector") -> None:
        super().__init__()
        if stage not in STAGES:
            raise ModelError(f"pooling.stage={stage!r}: choose one of {', '.join(STAGES)}")
        self.backbone = backbone
        self.pooling = pooling
        self.stage = stage

    def visual_tokens(self, grid: Tensor) -> Tensor:
        """Tower features [B, T, H, W, Dv] to what the language model reads [B, N, D]."""
        if self.stage == "encoder":
            return self.backbone.project(checked(self.pooling, grid))
        return checked(self.pooling, self.backbone.project(grid))
