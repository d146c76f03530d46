"""Half precision is rounded once, and powers of large features stay finite."""

import pytest
import torch

from videopool.pooling import Adaptive, FrameCls, GridPyramid, NormWeighted, PoolingContext


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    grid = torch.randn(2, 5, 9, 7, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    cls = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    for pooling in (Adaptive((3, 4, 5)), Adaptive((9, 4, 9), expand=True), GridPyramid((4,), (1,)),
                    FrameCls(Adaptive((2, 3, 3)))):  # fmt: skip
        exact = pooling(grid.double(), PoolingContext(cls=cls.double()))
        found = pooling(grid, PoolingContext(cls=cls))
        torch.testing.assert_close(found, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_high_powers_of_large_features_stay_finite(dtype):
    grid = (torch.randn(1, 1, 4, 4, 8, generator=torch.Generator().manual_seed(0)).clamp(-4, 4) * 15000).to(dtype)
    pooling = NormWeighted(stride=2, p=12, temperature=1e5)
    torch.testing.assert_close(pooling(grid), pooling(grid.double()).to(dtype), rtol=1e-2, atol=1)
    zeros = pooling(torch.zeros_like(grid))
    assert torch.equal(zeros, torch.zeros_like(zeros))
