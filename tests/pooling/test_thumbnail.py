"""TS-LLaVA's thumbnail and sampled tokens, and that the tower really sees them."""

import json

import numpy as np
import pytest
import torch

from videopool.features import ClipJob, ReadPlan, in_order
from videopool.inference.read_plan import read_plan
from videopool.models import load_backbone
from videopool.pooling import PoolingContext, PoolingContractError, PoolingShapeError, Subsample, ThumbnailSampling
from videopool.reading.module import VideoLM
from videopool.shapes.clips import write_mp4
from videopool.video import UniformSampler, open_clip, to_pixels

GRIDS = [(1, 1, 1), (2, 3, 5), (7, 4, 4), (50, 3, 3)]


@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize("tokens", [1, 5, 1000])
def test_thumbnail_then_evenly_spread_tokens(size, tokens):
    rng = np.random.default_rng(0)
    grid, image = rng.random((2, *size, 3)), rng.random((2, *size[1:], 3))
    pooling = ThumbnailSampling(3, 2, tokens)
    got = pooling(torch.from_numpy(grid), PoolingContext(thumbnail=torch.from_numpy(image)))
    total, kept = int(np.prod(size)), min(tokens, int(np.prod(size)))
    chosen = range(total) if kept == total else np.rint(np.linspace(0, total - 1, kept)).astype(int)
    if kept == 1 and total > 1:
        chosen = [0]
    flat = grid.reshape(2, -1, 3)
    for clip in range(2):
        wanted = [*image[clip].reshape(-1, 3), *(flat[clip, place] for place in chosen)]
        np.testing.assert_array_equal(got[clip].numpy(), np.array(wanted))
    assert got.shape[1] == pooling.num_tokens(*size) == size[1] * size[2] + kept


def test_as_published():
    pooling = ThumbnailSampling()
    assert pooling.num_tokens(50, 24, 24) == 576 + 2880
    assert pooling.shown(50) == [0, 10, 20, 29, 39, 49]
    assert pooling.shown(1) == [0] * 6
    assert pooling.shown(3) == [0, 0, 1, 1, 2, 2]


def test_what_is_wrong_is_said():
    with pytest.raises(PoolingShapeError, match=r"pooling\.tokens"):
        ThumbnailSampling(tokens=0)
    grid = torch.rand(1, 4, 3, 3, 2)
    with pytest.raises(PoolingContractError, match=r"needs thumbnail of \(1, 3, 3, 2\) beside its grid, got none"):
        ThumbnailSampling()(grid)
    with pytest.raises(PoolingContractError, match=r"got one of \(1, 2, 2, 2\)"):
        ThumbnailSampling()(grid, PoolingContext(thumbnail=torch.rand(1, 2, 2, 2)))


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("videopool:shapes/mini_llava", name="mini")


@pytest.mark.parametrize("stage", ["projector", "encoder"])
def test_the_model_reads_both(backbone, stage):
    """Against the tower's features put together by hand."""
    pooling = ThumbnailSampling(1, 2, 40)
    rng = torch.Generator().manual_seed(0)
    shape = backbone.shape
    features = torch.randn(1, 4, backbone.extra + shape.height * shape.width, shape.vision_dim, generator=rng)
    with torch.inference_mode():
        got = VideoLM(backbone, pooling, stage).visual_tokens(features)
        frames, image = backbone.grid(features[:, :3]), backbone.grid(features[:, 3])
        frames, image = backbone.project(frames), backbone.project(image)
        wanted = torch.cat([image.flatten(1, 2), Subsample(40)(frames)], dim=1)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_views_and_pixels(tmp_path, backbone):
    """Frames first, then the image; pixels are those of the frames and of the tiled image."""
    content = np.random.default_rng(0).integers(0, 255, (12, 32, 48, 3), dtype=np.uint8)
    write_mp4(tmp_path / "a.mp4", content)
    pooling = ThumbnailSampling(2, 1, 10)
    plan: ReadPlan = read_plan(UniformSampler(num=3), "pyav", backbone.image_processor, pooling)
    job = ClipJob(tmp_path / "a.mp4", "a", ())
    with open_clip(job.clip, "pyav") as clip:
        indices, views = plan.choose(job, clip.info)
        assert views == [*indices, (plan.thumbnail.layout, indices[0], indices[2])]
        pixels = plan.pixels(clip, in_order(views), {})
        frames = clip.frames(indices)
    tiled = pooling.thumbnail(frames[[0, 2]])
    assert tiled.shape == (1, 64, 64, 3)
    expected = torch.cat([to_pixels(backbone.image_processor, part) for part in (frames, tiled)])
    torch.testing.assert_close(pixels, expected, rtol=0, atol=0)
    alone = plan.pixels(open_clip(job.clip, "pyav").__enter__(), views[-1:], {})
    torch.testing.assert_close(alone, expected[-1:], rtol=0, atol=0)


SHAPES = [((3, 2), (72, 128)), ((3, 2), (128, 72)), ((2, 2), (50, 50)), ((2, 3), (33, 47)), ((4, 2), (40, 64))]


@pytest.mark.parametrize(("cells", "size"), SHAPES)
def test_the_frames_fill_the_image(cells, size):
    """Each frame of one colour gives a cell of that colour, of one size, and there is nothing beside them."""
    (rows, cols), (height, width) = cells, size
    colours = np.random.default_rng(0).integers(0, 256, (rows * cols, 3), dtype=np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (rows * cols, height, width, 3))
    (image,) = ThumbnailSampling(rows, cols).thumbnail(frames)
    side = image.shape[0]
    assert image.shape == (side, side, 3)
    assert (side % rows, side % cols) == (0, 0)
    assert side // rows >= height
    assert side // cols >= width
    wanted = colours.reshape(rows, cols, 3).repeat(side // rows, axis=0).repeat(side // cols, axis=1)
    np.testing.assert_array_equal(image, wanted)


def test_the_tower_sees_what_the_references_grid_shows(backbone):
    """`create_image_grid`, as published: preprocessed square frames shrunk to their cells by area, and tiled."""
    side = backbone.shape.image_size
    y, x = np.mgrid[:side, :side] / side
    waves = [np.stack([np.sin(6.28 * (f * x + (c + 1) * y)) for c in range(3)], -1) for f in range(1, 7)]
    frames = np.rint(127.5 + 100 * np.stack(waves)).astype(np.uint8)
    pixels = to_pixels(backbone.image_processor, frames)
    cells = torch.nn.functional.interpolate(pixels, size=(side // 3, side // 2), mode="area")
    rows = [torch.cat(list(cells[row : row + 2]), dim=2) for row in (0, 2, 4)]
    wanted = torch.cat(rows, dim=1)
    got = to_pixels(backbone.image_processor, ThumbnailSampling(3, 2).thumbnail(frames))[0]
    assert got.shape == wanted.shape
    assert (got - wanted).abs().mean() < 0.1  # of a deviation of about 1; another order of cells or axes has 1


def test_a_sweep_reads_frames_and_image_once(videopool, tmp_path):
    words = ["pooling=thumbnail_sampling", "frames.num=2", "study=t", "job.workers=0", "benchmark.limit=1"]
    videopool("-m", *words, "pooling.tokens=16,64")
    points = sorted((tmp_path / "results" / "t").glob("*/metrics.json"))
    counted = [json.loads(path.read_text()) for path in points]
    runs = sorted((one["frames_decoded"] == 0, one["frames_from_store"] > 0) for one in counted)
    assert runs == [(False, False), (True, True)]
    assert {json.loads((p.parent / "run.json").read_text())["point"]["visual_tokens"] for p in points} == {
        144 + 16,
        144 + 64,
    }
