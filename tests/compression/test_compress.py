"""Compressions as maps: exact numbers, places, what the published code does wrong, parts of one's own."""

import re

import numpy as np
import pytest
import recordings as r
import torch
from test_recorded import OUTLIERS, SALIENT, pooling

from conftest import ROOT
from videopool.compression import Compress, Outliers, Saliency, Selector, Uniform
from videopool.compression.allocators import handed_out
from videopool.compression.quadtree import united
from videopool.config.build import build_pooling
from videopool.errors import UserError
from videopool.points.setting import StatedSetting
from videopool.pooling import NoPooling, PoolingContractError, PoolingShapeError, Subsample, checked
from videopool.pooling.contract import random_context
from videopool.pooling.tracing import PatchTrace

METHODS = (
    "evs", "dtd", "framefusion", "vidcom2", "vcast", "visionzip", "prumerge", "prumerge_plus", "dycoke", "holitom",
    "prunevid", "fastvid", "flashvid", "sttm", "scissor",
)  # fmt: skip
SELECTIONS = ("evs", "dtd", "vidcom2", "vcast", "dycoke", "holitom")  # tokens as they are, if none is still
SHAPES = [(1, 1, 1, 4), (1, 4, 4, 4), (3, 1, 7, 4), (9, 5, 3, 4), (2, 2, 2, 3)]
KINDS = ("random", "static", "zeros", "nothing", "nan")


def grid_like(kind, shape, seed=3):
    """[1, T, H, W, D]."""
    if kind == "nothing":
        return torch.zeros(1, *shape)
    grid = torch.from_numpy(r.make_grid("random" if kind == "nan" else kind, seed, shape))[None]
    if kind == "nan":
        grid[0, shape[0] // 2, shape[1] // 2, 0] = torch.nan
    return grid


def context_of(compression, grid, dtype=None):
    return random_context(compression.needs, *grid.shape[1:], dtype=dtype or grid.dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_exactly_n_of_every_clip(name, shape):
    frames, height, width, dim = shape
    size = frames * height * width
    grids = {kind: grid_like(kind, shape) for kind in KINDS}
    for count in sorted({1, frames, size // 3, size} - {0}):
        compression = pooling(name, tokens=count)
        if name == "dycoke" and count < -(-frames // 4) * height * width:
            with pytest.raises(PoolingShapeError, match="at least"):
                compression.num_tokens(frames, height, width)
            continue
        for kind, grid in grids.items():
            context = context_of(compression, grid)
            tokens = checked(compression, grid, context)
            assert tokens.shape == (1, count, dim)
            assert kind == "nan" or tokens.isfinite().all()
            places = compression.token_places(grid, context)[0]
            assert ((places >= 0) & (places < size)).all()
            if "prumerge" not in name:  # whose last token is made of all that are left
                assert len(set(places.tolist())) == count
            if compression.order == "place" if isinstance(compression, Compress) else True:
                assert name == "scissor" or (places.diff() > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_share_is_of_the_clip_and_all_of_it_is_the_clip(name):
    grid = grid_like("random", (6, 4, 4, 8))
    context = context_of(pooling(name, share=1.0), grid)
    assert checked(pooling(name, share=0.5), grid, context).shape[1] == 48
    tokens = checked(pooling(name, share=1.0), grid, context)
    if name not in ("prumerge", "prumerge_plus", "prunevid", "visionzip"):  # in another order
        torch.testing.assert_close(tokens, NoPooling()(grid))


@pytest.mark.parametrize("salient", [0.0, 0.25, 1.0])
def test_prumerge_plus_takes_even_places_beside_the_salient_ones(salient):
    grid = grid_like("random", (2, 5, 5, 8))
    compression = pooling(
        "prumerge_plus", tokens=18, selector__salient=salient
    )  # 8 centres of a frame, and one of all others
    context = context_of(compression, grid)
    first = round(8 * salient)
    for frame, places in enumerate(
        compression.token_places(grid, context)[0].view(2, 9) - 25 * torch.arange(2)[:, None]
    ):
        order = context.saliency[0, frame].flatten().argsort(descending=True, stable=True)[:first].tolist()
        others = [place for place in range(25) if place not in order]
        assert places[:8].tolist() == order + [others[i * len(others) // (8 - first)] for i in range(8 - first)]


def test_prumerge_keeps_as_many_as_there_are_outliers_if_asked_as_published():
    grid = grid_like("random", (2, 6, 6, 8))
    compression = pooling("prumerge", share=None, reference=True, allocator=OUTLIERS)
    context = context_of(compression, grid)
    for outliers in (0, 1, 7, 12):
        context.saliency[:] = torch.linspace(0.4, 0.6, 72).view(1, 2, 6, 6)
        context.saliency.view(-1)[:outliers] = 5
        low, high = np.percentile(context.saliency.numpy(), [25, 75])
        share = float((context.saliency.numpy() > high + 1.5 * (high - low)).mean())
        assert share == outliers / 72
        assert compression(grid, context).shape[1] == 2 * (int(36 * share) + 1)
    with pytest.raises(PoolingShapeError, match=r"pooling\.share"):
        Compress(Outliers(), Saliency("random"))


@pytest.mark.parametrize("name", METHODS)
def test_scores_do_not_depend_on_half_precision(name):
    """A grid in bfloat16 is compressed as the same numbers in float32."""
    grid = grid_like("scenes", (8, 6, 6, 16)).bfloat16()
    compression = pooling(name, share=0.5)
    context = context_of(compression, grid)
    half, single = compression(grid, context), compression(grid.float(), context)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, single.bfloat16())
    again = compression.token_places(grid, context)
    assert torch.equal(again, compression.token_places(grid.float(), context))


@pytest.mark.parametrize("name", METHODS)
def test_tokens_of_a_batch_are_those_of_each_clip_and_can_be_learned_through(name):
    grids = torch.cat([grid_like(kind, (6, 4, 4, 8)) for kind in ("scenes", "random")]).requires_grad_()
    compression = pooling(name, share=0.5)
    fields = [context_of(compression, grids[:1]), context_of(compression, grids[:1])]
    both = type(fields[0])(**{need: torch.cat([getattr(one, need) for one in fields]) for need in compression.needs})
    tokens = compression(grids, both)
    for row, context in enumerate(fields):
        assert torch.equal(tokens[row], compression(grids[row : row + 1], context)[0])
    tokens.sum().backward()
    assert grids.grad.abs().sum() > 0


def test_selected_tokens_are_those_at_their_places():
    for name in SELECTIONS:
        grid = grid_like("random", (6, 4, 4, 8))
        compression = pooling(name, share=0.4)
        context = context_of(compression, grid)
        places = compression.token_places(grid, context)[0]
        assert torch.equal(compression(grid, context)[0], grid.flatten(1, 3)[0, places])
        trace = PatchTrace(compression, grid, context)  # as job=show draws them
        assert trace.read.all()
        shown = trace.of_tokens(torch.arange(6 * 16.0).view(6, 4, 4, 1))[:, 0]
        torch.testing.assert_close(shown, places.float(), atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 7, 36, 143, 144])
def test_the_even_control_is_subsample(hydra_conf, count):
    grid = grid_like("random", (4, 6, 6, 16))
    even = build_pooling(hydra_conf("pooling=even", f"pooling.tokens={count}"))
    assert torch.equal(even(grid), Subsample(count)(grid))


@pytest.mark.parametrize("name", METHODS)
def test_kept_merged_and_dropped_patches_can_be_told_apart(name):
    """As job=show and training see them: by derivatives. Each token is a mean; of merging methods no patch is lost."""
    grid = grid_like("random", (4, 6, 6, 16))
    compression = pooling(name, share=0.25)
    trace = PatchTrace(compression, grid, context_of(compression, grid))
    if "prumerge" in name:  # whose centres grow
        assert (trace.shares > 1).all()
    else:
        torch.testing.assert_close(trace.shares, torch.ones(36, dtype=trace.shares.dtype))
    lost = trace.of_patches(torch.ones(36, 1)).isnan().sum()
    assert lost == (108 if name in SELECTIONS else 0)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("evs", {"tokens": 0}, "pooling.tokens must be a positive integer"),
        ("evs", {"tokens": 99}, "tokens=99 is impossible for evs 99: 4 frames of 16 patches can be left at most 64"),
        ("dycoke", {"tokens": 10}, "at least 16"),
        ("dycoke", {"share": 0.1}, "pooling.share=0.1, 6 tokens, is impossible"),
        ("evs", {"reference": "maybe"}, "pooling.reference must be true or false, got 'maybe'"),
        ("evs", {"share": None}, "say pooling.tokens or pooling.share"),
        ("evs", {"share": 1.5}, "pooling.share must be a number of more than 0 and at most 1"),
        ("visionzip", {"order": "size"}, "pooling.order='size': choose one of place, part, score"),
        ("visionzip", {"merger": None}, "pooling.merger is not given"),
        ("visionzip", {"selector__kind": "largest"}, "choose one of tower, cls"),
        ("visionzip", {"centres": SALIENT, "selector__kind": "cls"}, "one saliency for all parts"),
        ("holitom", {"allocator": SALIENT}, "pooling.allocator: Saliency is no videopool.compression"),
    ],
)  # fmt: skip
def test_bad_settings_are_one_line(hydra_conf, name, changes, words):
    grid = grid_like("random", (4, 4, 4, 8))
    config = hydra_conf(f"pooling={name}")
    for key, value in changes.items():
        config.pooling.merge_with({key.split("__")[0]: value} if "__" not in key else {})
        if "__" in key:
            outer, inner = key.split("__")
            config.pooling[outer][inner] = value
        else:
            config.pooling[key] = value

    def compressed():
        compression = build_pooling(config)
        checked(compression, grid, context_of(compression, grid))

    with pytest.raises(UserError, match=re.escape(words)) as caught:
        compressed()
    assert "\n" not in str(caught.value)


def test_parts_of_ones_own(hydra_conf, tmp_path, monkeypatch):
    """The module of the page on compression, and the configuration that names its classes."""
    page = (ROOT / "docs" / "compression.md").read_text()
    module = re.search(r"```python\n# my_parts.py\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "my_parts.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    config = hydra_conf("pooling=compress", *(
        f"pooling.{part}={{_target_: my_parts.{name}}}"
        for part, name in (("allocator", "Ends"), ("selector", "Corner"), ("merger", "Loudest"))
    ), "pooling.tokens=20")  # fmt: skip
    compression = build_pooling(config)
    grid = grid_like("random", (4, 4, 4, 8))
    frames, places = np.divmod(compression.token_places(grid)[0].numpy(), 16)
    assert np.bincount(frames).tolist() == [10, 0, 0, 10]
    assert max(places // 4 + places % 4) == 3  # the ten nearest to the corner
    norms = torch.linalg.vector_norm(checked(compression, grid), dim=-1)[0]
    assert norms.max() == torch.linalg.vector_norm(grid, dim=-1)[0, [0, 3]].max()


def test_a_selector_that_breaks_its_promise_is_named():
    class Twice(Selector):
        def choose(self, clip, part, count):
            return torch.zeros(count, dtype=torch.long)

    with pytest.raises(PoolingContractError, match=r"Twice must choose 4 of 16 candidates, once each"):
        checked(Compress(Uniform(), Twice(), tokens=8), grid_like("random", (2, 4, 4, 3)))


def norms(tokens):
    return torch.linalg.vector_norm(tokens.detach(), dim=-1)[0]


def test_flashvid_chains_keep_their_norm():
    """Eight equal frames: each token of the first is the mean of its chain, not half of its sum."""
    grid = grid_like("static", (8, 4, 4, 8))
    settings = {"share": 0.125, "allocator__least": 1, "allocator__kept": 0.0, "allocator__expand": 1.0}
    for reference, factor in ((False, 1), (True, 4)):
        compression = pooling("flashvid", reference=reference, **settings)
        tokens = compression(grid, context_of(compression, grid))
        torch.testing.assert_close(tokens[0], factor * grid[0, 0].flatten(0, 1))


def test_holitom_leaves_what_is_asked_of_a_still_clip():
    grid = grid_like("static", (8, 4, 4, 8))
    for reference, count in ((False, 64), (True, 16)):
        compression = pooling("holitom", share=0.5, reference=reference)
        assert compression(grid, context_of(compression, grid)).shape[1] == count


def test_vcast_spreads_what_rounding_leaves():
    weights = [0.177638, 0.566173, 0.923093, 0.528684, 0.543577]
    assert handed_out(weights, 20, 0, 16) == [1, 4, 7, 4, 4]
    assert handed_out(weights, 20, 0, 16, reference=True) == [1, 4, 6, 3, 6]


def test_visionzip_merged_tokens_are_means():
    grid = grid_like("constant", (2, 4, 4, 8))
    whole = torch.linalg.vector_norm(grid, dim=-1).max()
    compression = pooling("visionzip", share=0.5)
    context = context_of(compression, grid)
    torch.testing.assert_close(norms(compression(grid, context)).max(), whole)
    torch.testing.assert_close(
        norms(pooling("visionzip", share=0.5, merger__token="sum")(grid, context)).max(), 2 * whole
    )


def test_sttm_border_nodes_have_their_own_children():
    grid = grid_like("corner", (1, 7, 7, 8))
    settings = {"share": None, "tau_s": 0.8, "tau_t": None}
    assert pooling("sttm", **settings)(grid).shape[1] == 16
    assert pooling("sttm", reference=True, **settings)(grid).shape[1] == 22


def test_sttm_unions_are_whole():
    pairs = np.array([[0, 2], [1, 2]])
    assert united(3, pairs).tolist() == [0, 0, 0]
    assert united(3, pairs, reference=True).tolist() == [0, 1, 0]


@pytest.mark.parametrize(("frames", "segments"), [(3, 8), (9, 2)])
def test_fastvid_loses_no_tokens_that_do_not_divide(frames, segments):
    """The published code loses what does not divide by a segment's anchors; fewer frames than segments fail there."""
    grid = grid_like("random", (frames, 6, 6, 8))
    settings = {"allocator__least": segments, "allocator__tau": -1.0, "allocator__every": 2}
    settings |= {"selector__kind": "tower", "allocator__by": "mean", "share": 0.4}
    compression = pooling("fastvid", **settings)
    context = context_of(compression, grid)
    tokens = compression(grid, context)
    assert tokens.shape[1] == int(0.4 * frames * 36)
    if frames > segments:
        published = pooling("fastvid", reference=True, **settings)
        assert published(grid, context).shape[1] < frames * int(0.4 * 36) <= tokens.shape[1]
    parts = compression.allocator.parts(compression.clip(grid, context), compression.selector)
    assert len({part.span for part in parts}) == min(frames, segments)
    anchors = {part.span: 0 for part in parts}
    for part in parts:
        anchors[part.span] += part.centres > 0
    assert anchors == {(first, end): -(-(end - first) // 2) for first, end in anchors}


def test_prunevid_counts_zeros_as_they_are():
    """Four equal frames with a zero in one: three of its six pairs have cosine 1, and three 0."""
    grid = grid_like("static", (4, 4, 4, 8)).double()
    grid[0, 1, 2, 3] = 0
    for reference, tau, still in ((False, 0.49, 16), (False, 0.51, 15), (True, 0.43, 15), (True, 0.41, 16)):
        compression = pooling("prunevid", share=0.5, reference=reference)
        clip = compression.clip(grid, None)
        ((span, places),) = compression.allocator.spans(clip, tau)
        assert (span, int(places.sum())) == ((0, 4), still), (reference, tau)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 7])
def test_dycoke_reads_every_frame(frames):
    grid = grid_like("random", (frames, 4, 4, 8))
    count = -(-frames // 4) * 16 + frames // 4 * 3 + frames % 4
    places = pooling("dycoke", tokens=min(count, frames * 16)).token_places(grid)[0]
    assert set((places // 16).tolist()) == set(range(frames))
    if frames % 2:
        lost = pooling("dycoke", share=0.3, reference=True).token_places(grid)[0]
        assert frames - 1 not in (lost // 16).tolist()


def test_scissor_tokens_of_zeros_attract_none():
    grid = grid_like("zeros", (3, 4, 4, 8))
    silent = [
        int((pooling("scissor", share=None, tau=0.8, reference=reference)(grid)[0].abs().amax(-1) == 0).sum())
        for reference in (False, True)
    ]
    assert silent[0] == silent[1] + 1 > 1  # the first of them is the mean of all tokens in the published code


def test_a_nan_stays_where_it_is():
    """Of a frame after the first it is the last choice."""
    grid = grid_like("nan", (4, 4, 4, 8))
    for name in ("evs", "dtd"):
        compression = pooling(name, tokens=40)
        assert compression(grid, context_of(compression, grid)).isfinite().all(), name
    place = 2 * 16 + 2 * 4
    assert place in pooling("evs", tokens=17, reference=True).token_places(grid)[0], "first in the published code"
    assert place not in pooling("evs", tokens=62).token_places(grid)[0], "with the one after it, compared with it"
    assert place in pooling("evs", tokens=64).token_places(grid)[0]


def test_a_need_that_a_family_lacks_and_a_step_before_a_compression_are_one_line(hydra_conf):
    step = "{_target_:videopool.pooling.Adaptive,shape:[null,6,6]}"
    part = "allocator:{_target_:videopool.compression.Uniform},selector:{_target_:videopool.compression.Even}"
    compressed = f"{{_target_:videopool.compression.Compress,tokens:9,{part}}}"
    for words, told in (
        (["pooling=fastvid"], "fastvid 0.25 needs SigLIP's pooling head, and the tower of mini has none"),
        (
            ["pooling=visionzip", "pooling.selector.kind=cls", "model=llava_onevision_7b"],
            "needs attention of a CLS token",
        ),
        (["pooling=chain", f"pooling.steps=[{step},{compressed}]"], "Compress does not map a grid to a grid"),
    ):
        with pytest.raises(UserError, match=re.escape(told)) as caught:
            StatedSetting(hydra_conf(*words))
        assert "\n" not in str(caught.value)


def test_clips_that_vary_are_pooled_alone():
    grids = torch.cat([grid_like(kind, (4, 4, 4, 8)) for kind in ("static", "random")])
    compression = pooling("scissor", share=None, tau=0.5)
    counts = [checked(compression, grids[row : row + 1]).shape[1] for row in (0, 1)]
    assert counts[0] < counts[1] <= compression.num_tokens(4, 4, 4) == 64
    with pytest.raises(PoolingContractError, match="unequal numbers of tokens"):
        checked(compression, grids)
