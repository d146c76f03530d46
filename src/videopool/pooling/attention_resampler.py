"""Learned queries that attend to all tokens: the perceiver resampler of Flamingo (arXiv 2204.14198, appendix A.1.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from videopool.pooling.base import Pooling, PoolingContext, PoolingShapeError
from videopool.pooling.checks import positive, whole

SCALE = 0.02  # standard deviation of the first weights


class ResamplerLayer(nn.Module):
    """Queries [B, Q, D] after one look at tokens [B, N, D]."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_tokens, self.norm_queries = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_query = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_key_value = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, dim, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
        )

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        normed = self.norm_queries(queries)
        keys, values = self.to_key_value(torch.cat([self.norm_tokens(tokens), normed], dim=1)).chunk(2, dim=-1)
        query, keys, values = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.to_query(normed), keys, values)
        )  # [B, heads, Q or N + Q, head_dim]
        attended = functional.scaled_dot_product_attention(query, keys, values)
        queries = queries + self.to_out(attended.transpose(1, 2).flatten(2))
        return queries + self.feed_forward(queries)


class AttentionResampler(Pooling):
    """So many learned queries, whatever the grid. Until its parameters are trained or loaded, its tokens mean nothing.

    Tokens get a learned embedding of their frame, interpolated linearly for another number of frames; places in a frame
    get none. Each layer computes x + attention(q=x, kv=[tokens, x]), then x + feed-forward(x), with layer norms before
    each and one at the end; the feed-forward layer is four times as wide, with GELU; linear layers have no bias
    (flamingo_pytorch of lucidrains/flamingo-pytorch). All is computed in the dtype of the parameters.

    Args:
        queries: tokens per clip; Flamingo: 64.
        dim: D of the grid at its stage.
        depth: layers; Flamingo: 6.
        heads, head_dim: of the attention.
        frames: with an embedding.
        seed: of the first weights.

    Raises PoolingShapeError for a grid of another D.
    """

    def __init__(
        self,
        queries: int = 64,
        dim: int = 1024,
        depth: int = 2,
        heads: int = 8,
        head_dim: int = 64,
        frames: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dim = positive("dim", dim)
        self.depth = positive("depth", depth)
        self.queries = nn.Parameter(torch.empty(positive("queries", queries), dim))
        self.frames = nn.Parameter(torch.empty(positive("frames", frames), dim))
        shape = (positive("heads", heads), positive("head_dim", head_dim))
        self.layers = nn.ModuleList(ResamplerLayer(dim, *shape) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self._label = f"attention resampler {queries} depth {depth}"
        generator = torch.Generator().manual_seed(whole("seed", seed))
        for weights in self.parameters():
            if weights.dim() == 2:  # layer norms start at one and zero
                nn.init.normal_(weights, std=SCALE, generator=generator)

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        if grid.shape[-1] != self.dim:
            raise PoolingShapeError(
                f"pooling.dim={self.dim}, but the grid has {grid.shape[-1]} features where the pooling acts: say "
                f"pooling.dim={grid.shape[-1]}"
            )
        times = self.frames.T.unsqueeze(0)  # [1, D, frames]
        if grid.shape[1] != times.shape[-1]:
            times = functional.interpolate(times, size=grid.shape[1], mode="linear", align_corners=False)
        tokens = (grid.to(self.queries.dtype) + times[0].T[:, None, None]).flatten(1, 3)
        queries = self.queries.expand(grid.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, tokens)
        return self.norm(queries).to(grid.dtype)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return self.queries.shape[0]
