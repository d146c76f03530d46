"""Windows averaged with weights that grow with the tokens' likeness to the prompt: PPLLaVA (arXiv 2411.02327).

`LLaVACLIP3DMultiModalProjector` in ppllava/models/llava_projector.py and `weighted_adaptive_avg_pool3d_unfold` in
ppllava/models/utils.py of farewellthree/PPLLaVA: s is the cosine of each patch with the prompt, times CLIP's logit
scale (100); a the softmax of s over the whole clip; a token's weight the softmax of a / temperature (0.01) over its
window. Published: 32 frames, windows of 2 x 3 x 3, so 16 x 8 x 8 = 1024 tokens of 24 x 24 patches.

PPLLaVA compares in CLIP's space: patches go through CLIP's last layer norm and visual projection, prompts through its
text tower. Here both are compared in the space of the grid, so whoever gives the prompt chooses the space.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from videopool.pooling.base import PoolingContext, PoolingContractError, number, precise
from videopool.pooling.boxes import BoxPooling, pool_boxes, weighted_mean


class TextGuided(BoxPooling):
    """The mean of each window, weighted by the softmax of its tokens' likeness to the prompt.

    Visual tokens depend on the prompt. A token of zeros is like no prompt: its cosine is 0. A NaN makes its whole
    clip NaN, because the softmax runs over all of it.

    Args:
        shape: output (frames, height, width), as of `Adaptive`.
        scale: of the cosines, at least 0.
        temperature: of the softmax in a window, above 0; null: infinite, which is the plain mean.

    Raises:
        PoolingShapeError: shape is not three positive integers or nulls, or a number is out of range.
        PoolingContractError: the context has no prompt of the grid's batch and dim.
    """

    needs = frozenset({"text"})

    def __init__(
        self,
        shape: Sequence[int | None] = (16, 8, 8),
        scale: float = 100.0,
        temperature: float | None = 0.01,
    ) -> None:
        super().__init__(shape)
        self.scale = number("scale", scale, 0)
        self.temperature = None if temperature is None else number("temperature", temperature, 0, above=True)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        wanted, text = (grid.shape[0], grid.shape[-1]), context.text if context else None
        if text is None or text.shape != wanted:
            got = "none" if text is None else f"one of {tuple(text.shape)}"
            raise PoolingContractError(f"TextGuided needs a prompt of {wanted} (batch, dim) in its context, got {got}")
        values = precise(grid)
        prompt = functional.normalize(text.to(values), dim=-1)[:, None, None, :, None]  # [B, 1, 1, D, 1]
        cosines = functional.normalize(values, dim=-1) @ prompt  # [B, T, H, W, 1]
        shares = (self.scale * cosines).flatten(1).softmax(dim=1).view_as(cosines)
        scores = shares * (0.0 if self.temperature is None else 1 / self.temperature)
        return pool_boxes([grid, scores], self.out_shape(*grid.shape[1:4]), weighted_mean)

    @property
    def label(self) -> str:
        heat = "inf" if self.temperature is None else f"{self.temperature:g}"
        return f"text guided t{heat}{'' if self.scale == 100 else f' scale {self.scale:g}'} {self.sizes}"
