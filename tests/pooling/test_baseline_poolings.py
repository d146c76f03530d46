"""Published baselines against plain loops in float64, against other implementations, and their contract."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.models.llava_next_video.modeling_llava_next_video import LlavaNextVideoPooler
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from videopool.config.build import build
from videopool.pooling import (
    Adaptive,
    Chain,
    DualMean,
    FrameCls,
    Horizontal,
    ImageGrid,
    NoPooling,
    Pooling,
    PoolingContext,
    PoolingContractError,
    PoolingShapeError,
    SlowFast,
    Strided,
    checked,
    map_signature,
)

GRIDS = [(1, 1, 1), (1, 5, 7), (3, 6, 4), (7, 4, 6), (2, 27, 27), (5, 1, 8)]
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def random_grid(size, batch=2, dim=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, *size, dim)))


def random_cls(grid, seed=1):
    batch, frames, *_, dim = grid.shape
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, frames, dim)))


def published_slowfast(slow_frames=10):
    return SlowFast(slow_frames, Horizontal("max"), Adaptive((None, 4, 4)))


def strided_by_loops(array, stride, mode):
    batch, frames, height, width, dim = array.shape
    rounded = math.ceil if mode == "bilinear" else math.floor
    out_height, out_width = rounded(height / stride), rounded(width / stride)
    out = np.zeros((batch, frames, out_height, out_width, dim))
    for y in range(out_height):
        for x in range(out_width):
            if mode != "bilinear":
                window = array[:, :, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
                out[:, :, y, x] = window.mean((2, 3)) if mode == "avg" else window.max((2, 3))
                continue
            at_y = max(0.0, (y + 0.5) * height / out_height - 0.5)
            at_x = max(0.0, (x + 0.5) * width / out_width - 0.5)
            top, left = int(at_y), int(at_x)
            for row, share_y in ((top, 1 - (at_y - top)), (min(top + 1, height - 1), at_y - top)):
                for col, share_x in ((left, 1 - (at_x - left)), (min(left + 1, width - 1), at_x - left)):
                    out[:, :, y, x] += share_y * share_x * array[:, :, row, col]
    return out


@pytest.mark.parametrize("mode", ["avg", "max", "bilinear"])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_strided_equals_its_definition(size, stride, mode):
    grid, pooling = random_grid(size), Strided(stride, mode)
    if mode != "bilinear" and min(size[1:]) < stride:
        with pytest.raises(PoolingShapeError, match=rf"pooling.stride={stride} is larger"):
            pooling(grid)
        with pytest.raises(PoolingShapeError, match=r"pooling.stride"):
            pooling.num_tokens(*size)
        return
    expected = torch.from_numpy(strided_by_loops(grid.numpy(), stride, mode))
    torch.testing.assert_close(checked(pooling, grid), expected.flatten(1, 3), **EXACT)
    windows = pooling.windows(*size)
    assert (size[0], len(windows["height"]), len(windows["width"])) == pooling.out_shape(*size)


@pytest.mark.parametrize("side", [4, 7, 24, 27])
def test_strided_equals_transformers(side):
    grid = random_grid((3, side, side), batch=1).float()
    frames = grid[0].flatten(1, 2)
    vision = SimpleNamespace(image_size=14 * side, patch_size=14, hidden_size=3)
    onevision = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    expected = LlavaOnevisionModel.apply_pooling(onevision, frames).flatten(0, 1)
    torch.testing.assert_close(Strided(2, "bilinear")(grid)[0], expected)
    for mode, name in (("avg", "average"), ("max", "max")):
        config = SimpleNamespace(spatial_pool_mode=name, spatial_pool_stride=2, vision_config=vision)
        expected = LlavaNextVideoPooler(config)(frames).flatten(0, 1)
        torch.testing.assert_close(Strided(2, mode)(grid)[0], expected)


def test_strided_loses_the_remainder_or_rounds_up():
    assert Strided(2, "avg").num_tokens(8, 27, 27) == 8 * 13 * 13
    assert Strided(2, "bilinear").num_tokens(8, 27, 27) == 8 * 14 * 14
    assert Strided(2, "avg").windows(1, 5, 4) == {"height": [(0, 2), (2, 4)], "width": [(0, 2), (2, 4)]}
    assert Strided(2, "bilinear").windows(1, 4, 1) == {"height": [0.5, 2.5], "width": [0.0]}
    grid = random_grid((2, 24, 24))
    torch.testing.assert_close(Strided(2, "avg")(grid), Adaptive((2, 12, 12))(grid), **EXACT)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("size", [(1, 1, 2), (1, 5, 4), (3, 4, 6), (2, 24, 24)], ids=str)
def test_horizontal_equals_the_references_on_even_rows(size, mode):
    grid = random_grid(size)
    frames, height, width = size
    expected = []
    for t in range(frames):
        patches = [grid[:, t, y, x].numpy() for y in range(height) for x in range(width)]  # row-major, as one sequence
        for first, second in zip(patches[::2], patches[1::2], strict=True):
            expected.append(np.maximum(first, second) if mode == "max" else (first + second) / 2)
    tokens = checked(Horizontal(mode), grid)
    torch.testing.assert_close(tokens, torch.from_numpy(np.stack(expected, axis=1)), **EXACT)
    assert Horizontal(mode).windows(*size) == {"width": [(x, x + 2) for x in range(0, width, 2)]}


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("size", [*GRIDS, (2, 3, 1), (1, 4, 3)], ids=str)
def test_the_last_patch_of_an_odd_row_stays(size, mode):
    """By loops over pairs; OneVision's grid is 27 x 27."""
    grid, reduce = random_grid(size).numpy(), {"max": np.max, "avg": np.mean}[mode]
    pairs = [reduce(grid[:, :, :, x : x + 2], axis=3) for x in range(0, size[2], 2)]
    expected = np.stack(pairs, axis=3).reshape(2, -1, 3)
    tokens = checked(Horizontal(mode), torch.from_numpy(grid))
    np.testing.assert_allclose(tokens.numpy(), expected, rtol=1e-12)
    windows = Horizontal(mode).windows(*size)["width"]
    assert [place for window in windows for place in range(*window)] == list(range(size[2]))


def test_slowfast_on_the_grid_of_onevision():
    pooling = published_slowfast()
    assert pooling.num_tokens(50, 27, 27) == 10 * 27 * 14 + 50 * 16
    assert checked(pooling, random_grid((12, 27, 27), batch=1)).shape[1] == 10 * 27 * 14 + 12 * 16


@pytest.mark.parametrize("size", [(1, 1, 2), (4, 5, 6), (10, 4, 4), (23, 3, 8), (50, 6, 8)], ids=str)
def test_slowfast_equals_its_definition(size):
    grid, pooling = random_grid(size), published_slowfast()
    frames, height, width = size
    array = grid.numpy()
    count = min(10, frames)
    slow = [
        np.maximum(array[:, math.floor(i * frames / count), y, x], array[:, math.floor(i * frames / count), y, x + 1])
        for i in range(count)
        for y in range(height)
        for x in range(0, width, 2)
    ]
    rows, cols = min(4, height), min(4, width)
    fast = [
        array[
            :,
            t,
            math.floor(y * height / rows) : math.ceil((y + 1) * height / rows),
            math.floor(x * width / cols) : math.ceil((x + 1) * width / cols),
        ].mean((1, 2))
        for t in range(frames)
        for y in range(rows)
        for x in range(cols)
    ]
    expected = torch.from_numpy(np.stack([*slow, *fast], axis=1))
    torch.testing.assert_close(checked(pooling, grid), expected, **EXACT)


def test_slowfast_as_published():
    pooling = published_slowfast()
    assert pooling.num_tokens(50, 24, 24) == 10 * 288 + 50 * 16 == 3680
    windows = pooling.windows(50, 24, 24)
    assert windows["slow_frames"] == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert windows["fast"]["height"] == [(0, 6), (6, 12), (12, 18), (18, 24)]
    for frames in range(10, 300):  # the published rule
        assert pooling.slow_indices(frames) == torch.linspace(0, frames, 11).to(torch.int32).tolist()[:-1]
    assert pooling.slow_indices(4) == [0, 1, 2, 3]
    assert pooling.num_tokens(4, 24, 24) == 4 * 288 + 4 * 16


def test_slowfast_gives_the_slow_path_its_own_frames():
    class Times(NoPooling):
        needs = frozenset({"frame_times", "cls"})

        def pool(self, grid, context=None):
            return grid + context.frame_times[None, :, None, None, None] + context.cls[:, :, None, None]

    grid = random_grid((4, 1, 1))
    context = PoolingContext(torch.arange(4.0, dtype=torch.float64), random_cls(grid))
    pooling = SlowFast(2, Times(), NoPooling())
    assert pooling.needs == {"frame_times", "cls"}
    slow = checked(pooling, grid, context)[:, :2]
    for place, frame in enumerate((0, 2)):
        torch.testing.assert_close(slow[:, place], grid[:, frame, 0, 0] + frame + context.cls[:, frame])
    assert map_signature(pooling, 4, 1, 1) != map_signature(SlowFast(2, NoPooling(), NoPooling()), 4, 1, 1)


@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_dual_mean_equals_its_definition(size):
    grid = random_grid(size)
    frames, height, width = size
    array = grid.numpy()
    places = [(y, x) for y in range(height) for x in range(width)]
    of_frames = [sum(array[:, t, y, x] for y, x in places) / len(places) for t in range(frames)]
    of_places = [sum(array[:, t, y, x] for t in range(frames)) / frames for y, x in places]
    expected = torch.from_numpy(np.stack([*of_frames, *of_places], axis=1))
    torch.testing.assert_close(checked(DualMean(), grid), expected, **EXACT)


def test_dual_mean_as_published():
    assert DualMean().num_tokens(100, 16, 16) == 356
    grid, order = random_grid((5, 3, 4)), torch.tensor([3, 0, 4, 1, 2])
    tokens, moved = DualMean()(grid), DualMean()(grid[:, order])
    torch.testing.assert_close(moved[:, :5], tokens[:, order])  # frames move with the frames
    torch.testing.assert_close(moved[:, 5:], tokens[:, 5:])  # positions know no order


@pytest.mark.parametrize("inner", [NoPooling(), Adaptive((2, 2, 3)), Adaptive((6, 1, 1), expand=True), Strided(2)])
@pytest.mark.parametrize("size", [(1, 2, 2), (5, 3, 4), (4, 7, 2)], ids=str)
def test_frame_cls_equals_its_definition(size, inner):
    grid, pooling = random_grid(size), FrameCls(inner)
    cls = random_cls(grid)
    cells, frames = inner.pool(grid), size[0]
    out = cells.shape[1]
    expected = []
    for t in range(out):
        start, end = math.floor(t * frames / out), math.ceil((t + 1) * frames / out)
        expected.append(cls.numpy()[:, start:end].mean(1))
        expected.extend(cells[:, t].flatten(1, 2).numpy().swapaxes(0, 1))
    expected = torch.from_numpy(np.stack(expected, axis=1))
    torch.testing.assert_close(checked(pooling, grid, PoolingContext(cls=cls)), expected, **EXACT)


def test_frame_cls_as_published_and_without_cls():
    pooling = FrameCls(NoPooling())
    assert pooling.num_tokens(8, 16, 16) == 8 * 257
    assert pooling.needs == {"cls"}
    grid = random_grid((3, 2, 2))
    for context in (None, PoolingContext()):
        with pytest.raises(PoolingContractError, match="SigLIP towers have none"):
            pooling(grid, context)
    with pytest.raises(PoolingContractError, match=r"needs cls of \(2, 3, 3\) beside its grid, got one of \(2, 2, 3\)"):
        pooling(grid, PoolingContext(cls=random_cls(grid)[:, :2]))


def test_image_grid_tiles_row_after_row():
    frames = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    pooling = ImageGrid()
    image = pooling.tile(frames)
    assert image.shape == (1, 3 * 4, 3 * 4, 3)  # 12 x 10, and a column of grey on each side
    assert image.dtype == np.uint8
    assert (image[0, :, [0, -1]] == [122, 116, 104]).all()
    for index, frame in enumerate(frames):
        row, col = divmod(index, 2)
        assert (image[0, 4 * row : 4 * row + 4, 1 + 5 * col : 6 + 5 * col] == frame).all()
    assert pooling.windows(6, 24, 24) == {"tiles": [[0, 1], [2, 3], [4, 5]]}
    with pytest.raises(PoolingShapeError, match=r"pooling.rows=3 and pooling.cols=2 need frames.num=6, got 5"):
        pooling.tile(frames[:5])


def test_image_grid_reads_one_image():
    pooling = ImageGrid(2, 3)
    assert [other.tiles for other in (pooling, NoPooling(), DualMean())] == [True, False, False]
    assert pooling.num_tokens(6, 24, 24) == pooling.num_tokens(1, 24, 24) == 576
    grid = random_grid((1, 5, 3))
    assert torch.equal(checked(pooling, grid), grid.flatten(1, 3))
    with pytest.raises(PoolingContractError, match="tiled before the tower"):
        pooling(random_grid((6, 5, 3)))


PADDED = {(3, 4): [0, 0, 1, 1], (8, 16): [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5], (5, 5): [0, 1, 2, 3, 4]}


@pytest.mark.parametrize(("frames", "wanted"), [*PADDED, (1, 4), (2, 8), (4, 8), (7, 8), (6, 4)])
def test_padding_equals_the_reference(frames, wanted):
    """Repeated floor(wanted / frames) + 1 times, then cut."""
    indices = torch.arange(frames)
    if frames < wanted:
        indices = indices.repeat_interleave(wanted // frames + 1)[:wanted]
    assert indices.tolist() == PADDED.get((frames, wanted), indices.tolist())
    grid = random_grid((frames, 3, 4))
    pooling = Adaptive((None, 2, 2), pad_frames=wanted)
    torch.testing.assert_close(checked(pooling, grid), Adaptive((None, 2, 2))(grid[:, indices]), **EXACT)
    assert pooling.num_tokens(frames, 3, 4) == max(frames, wanted) * 4
    windows = pooling.windows(frames, 3, 4)
    assert windows.get("padded_frames", indices.tolist()) == indices.tolist()
    assert len(windows["frames"]) == max(frames, wanted)


def test_expanding_equals_torch():
    generator = np.random.default_rng(0)
    for _ in range(60):
        size = tuple(int(n) for n in generator.integers(1, 9, 3))
        shape = tuple(int(n) for n in generator.integers(1, 13, 3))
        grid, pooling = random_grid(size), Adaptive(shape, expand=True)
        expected = torch.nn.functional.adaptive_avg_pool3d(grid.movedim(-1, 1), shape).movedim(1, -1)
        torch.testing.assert_close(checked(pooling, grid), expected.flatten(1, 3), **EXACT)
        largest = torch.nn.functional.adaptive_max_pool3d(grid.movedim(-1, 1), shape).movedim(1, -1)
        torch.testing.assert_close(Adaptive(shape, "max", expand=True)(grid), largest.flatten(1, 3), **EXACT)
        assert pooling.out_shape(*size) == shape


def test_expanding_and_padding_leave_longer_clips_alone():
    grid = random_grid((9, 5, 4))
    torch.testing.assert_close(
        Adaptive((4, 3, None), expand=True, pad_frames=8)(grid), Adaptive((4, 3, None))(grid), rtol=0, atol=0
    )


EACH = [
    Strided(2, "avg"),
    Strided(3, "max"),
    Strided(2, "bilinear"),
    Horizontal("max"),
    Horizontal("avg"),
    published_slowfast(3),
    DualMean(),
    FrameCls(Adaptive((2, 2, 2))),
    FrameCls(NoPooling()),
    Adaptive((9, 5, 2), expand=True),
    Adaptive((4, 5, 2), "max", expand=True, pad_frames=9),
    ImageGrid(2, 2),
]


def size_for(pooling, frames):
    return (1 if pooling.tiles else frames, 5, 6)


@pytest.mark.parametrize("pooling", EACH, ids=lambda p: p.label)
def test_properties(pooling):
    grid = random_grid(size_for(pooling, 7))
    cls = random_cls(grid)
    tokens = checked(pooling, grid, PoolingContext(cls=cls))

    def alone(i):
        return pooling(grid[i : i + 1], PoolingContext(cls=cls[i : i + 1]))

    torch.testing.assert_close(torch.cat([alone(0), alone(1)]), tokens)  # no mixing in a batch
    torch.testing.assert_close(pooling(2.5 * grid, PoolingContext(cls=2.5 * cls)), 2.5 * tokens)  # scale goes through
    mixed = [2, 0, 1]
    torch.testing.assert_close(pooling(grid[..., mixed], PoolingContext(cls=cls[..., mixed])), tokens[..., mixed])
    half = pooling(grid.bfloat16(), PoolingContext(cls=cls.bfloat16()))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), tokens, rtol=0.03, atol=0.03)
    small = random_grid((size_for(pooling, 3)[0], 3, 4), batch=1, dim=2).requires_grad_()
    context = PoolingContext(cls=random_cls(small.detach()).requires_grad_())
    assert torch.autograd.gradcheck(lambda g: pooling(g, context), (small,))


@pytest.mark.parametrize("pooling", [Strided(2), Strided(2, "bilinear"), Horizontal(), FrameCls(Strided(2, "max"))])
def test_frame_by_frame_poolings_move_with_the_frames(pooling):
    grid, order = random_grid((5, 4, 6)), torch.tensor([3, 0, 4, 1, 2])
    cls = random_cls(grid)
    tokens = pooling(grid, PoolingContext(cls=cls)).unflatten(1, (5, -1))
    moved = pooling(grid[:, order], PoolingContext(cls=cls[:, order])).unflatten(1, (5, -1))
    torch.testing.assert_close(moved, tokens[:, order])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Strided(0), r"pooling.stride must be a positive integer, got 0"),
        (lambda: Strided(2.0), r"pooling.stride must be a positive integer"),
        (lambda: Strided(True), r"pooling.stride must be a positive integer"),
        (lambda: Strided(2, "median"), r"pooling.mode='median': choose one of avg, max, bilinear"),
        (lambda: Horizontal("bilinear"), r"pooling.mode='bilinear': choose one of max, avg"),
        (lambda: SlowFast(0, NoPooling(), NoPooling()), r"pooling.slow_frames must be a positive integer"),
        (lambda: ImageGrid(0, 2), r"pooling.rows must be a positive integer"),
        (lambda: ImageGrid(2, "3"), r"pooling.cols must be a positive integer, got '3'"),
        (lambda: Adaptive((1, 1, 1), expand="yes"), r"pooling.expand must be true or false"),
        (lambda: Adaptive((1, 1, 1), pad_frames=0), r"pooling.pad_frames must be a positive integer"),
        (lambda: Adaptive((1, 1, 1), pad_frames=2.5), r"pooling.pad_frames must be a positive integer"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(PoolingShapeError, match=message):
        make()


@pytest.mark.parametrize("wrong", [DualMean(), {"shape": [1, 1, 1]}, None])
def test_what_maps_no_grid_to_a_grid_is_refused(wrong):
    for make, key in [
        (lambda: SlowFast(2, wrong, NoPooling()), "slow"),
        (lambda: SlowFast(2, NoPooling(), wrong), "fast"),
        (lambda: FrameCls(wrong), "inner"),
        (lambda: Chain([wrong]), "steps"),
    ]:
        with pytest.raises(PoolingContractError, match=f"pooling.{key}: {type(wrong).__name__} does not map"):
            make()


def test_labels_are_distinct():
    labels = [p.label for p in [*EACH, NoPooling(), ImageGrid(2, 3), Adaptive((9, 5, 2)), published_slowfast()]]
    assert len(set(labels)) == len(labels)
    assert Adaptive((16, 12, 12), expand=True, pad_frames=16).label == "adaptive 16x12x12 expand pad16"
    assert published_slowfast().label == "slowfast 10 horizontal max + adaptive Tx4x4"


def test_signatures():
    size = (6, 4, 6)
    different = [
        NoPooling(),
        Strided(2),
        Strided(2, "max"),
        Strided(2, "bilinear"),
        Horizontal(),
        published_slowfast(3),
        published_slowfast(2),
        DualMean(),
        FrameCls(NoPooling()),
        FrameCls(Strided(2)),
        ImageGrid(3, 2),
        ImageGrid(2, 3),
        ImageGrid(6, 1),
    ]
    found = {str(map_signature(p, *size)) for p in different}
    # bilinear interpolation to exactly half reads the middle of two patches: it is the average
    assert len(found) == len(different) - 1
    assert map_signature(Strided(2), *size) == map_signature(Strided(2, "bilinear"), *size)
    assert map_signature(Strided(2), *size) == map_signature(Adaptive((None, 2, 3)), *size)
    assert map_signature(FrameCls(NoPooling()), *size) == map_signature(FrameCls(NoPooling()), *size)
    assert map_signature(ImageGrid(2, 3), *size)[0] == 24
    with pytest.raises(PoolingShapeError, match=r"frames.num=6"):
        map_signature(ImageGrid(), 4, 4, 6)

    class Wants(NoPooling):
        needs = frozenset({"weather"})

    with pytest.raises(PoolingContractError, match="needs names weather"):
        map_signature(Wants(), *size)


@pytest.mark.parametrize(
    ("name", "frames", "side", "tokens", "stage"),
    [
        ("strided", 8, 24, 8 * 144, "projector"),
        ("horizontal", 8, 24, 8 * 288, "projector"),
        ("slowfast", 50, 24, 3680, "projector"),
        ("dual_mean", 100, 16, 356, "encoder"),
        ("frame_cls", 8, 16, 8 * 257, "encoder"),
        ("image_grid", 6, 24, 576, "projector"),
    ],
)
def test_configurations_say_what_was_published(hydra_conf, name, frames, side, tokens, stage):
    config = hydra_conf(f"pooling={name}")
    pooling = build(config, "pooling", without=("stage",))
    assert isinstance(pooling, Pooling)
    assert pooling.num_tokens(frames, side, side) == tokens
    assert config.pooling.stage == stage


def test_compatibility_is_one_choice(hydra_conf):
    plain, compat = (
        build(hydra_conf("pooling=adaptive", f"compat={name}", "frames.num=12"), "pooling", ("stage",))
        for name in ("none", "pllava")
    )
    assert (plain.expand, plain.pad_frames, plain.num_tokens(5, 6, 24)) == (False, None, 5 * 6 * 12)
    assert (compat.expand, compat.pad_frames, compat.num_tokens(5, 6, 24)) == (True, 12, 16 * 12 * 12)
