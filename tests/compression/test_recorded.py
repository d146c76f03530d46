"""Compressions against numbers recorded from the methods' public code.

Where a recording is `strict`, places, counts and tokens are equal; where a tie decided, the count is.
"""

import math
from functools import cache

import numpy as np
import pytest
import recordings as r
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from videopool.compression.allocators import handed_out
from videopool.compression.components import components
from videopool.compression.scenes import contiguous, windows
from videopool.paths import shipped
from videopool.pooling import PoolingContext, checked

DTYPES = {torch.float64: 5e-5, torch.float32: 1e-4}


def in_both(test):
    """A test of a case, in both precisions; where only the number counts, in one."""

    def run_both(case):
        for dtype in DTYPES if case.get("strict") else [torch.float32]:
            test(case, dtype)

    return run_both


@cache
def _config(name):
    return OmegaConf.load(shipped("conf") / "pooling" / f"{name}.yaml")


def pooling(name, **changes):
    """The pooling of a named configuration, with keys `a__b` changed."""
    config = _config(name).copy()
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, merge=not isinstance(value, dict))
    del config["stage"]
    return instantiate(config, _convert_="all")


def run(compression, case, dtype, context=None):
    """Tokens [N, D] and places [N] of a case's grid."""
    grid = r.grid_of(case, dtype)
    before = grid.clone()
    context = context and PoolingContext(**{k: torch.from_numpy(v).to(dtype)[None] for k, v in context.items()})
    part = compression.pooled(grid, context)[0]
    assert torch.equal(grid, before)
    assert part.values.dtype == dtype
    if not compression.varies:
        assert len(checked(compression, grid, context)[0]) == len(part.places)
    return part.values.numpy(), part.places.numpy()


def same_places(places, kept, case):
    """Whether the places are as recorded, or hold equal tokens; where a tie decides, whether there are as many."""
    assert len(places) == len(kept)
    if case.get("strict") and not np.array_equal(places, kept):
        x = r.grid_of(case).flatten(1, 3)[0].numpy()
        np.testing.assert_array_equal(x[places], x[kept])


SALIENT = {"_target_": "videopool.compression.Saliency"}
OUTLIERS = {"_target_": "videopool.compression.Outliers"}


def same_tokens(tokens, expected, dtype):
    np.testing.assert_allclose(tokens, expected, rtol=0, atol=DTYPES[dtype] * max(1.0, np.abs(expected).max()))


def as_sets(*several):
    """Tokens [N, D] in an order that does not depend on theirs."""
    return [tokens[np.argsort(tokens @ np.sin(1 + np.arange(tokens.shape[1])))] for tokens in several]


def spatial(case, values):
    """Values [T, L, ...] of a case's places as [T, H, W, ...]."""
    return values.reshape(*case["grid"]["shape"][:3], *values.shape[2:])


def vec(case):
    """Saliency [T, H, W] of a case."""
    frames, height, width, _ = case["grid"]["shape"]
    about = case["aux"]
    return spatial(case, r.attention(about["attn_kind"], about["attn_seed"], (frames, height * width)))


@pytest.mark.parametrize("case", r.recorded("evs"))
@in_both
def test_evs(case, dtype):
    if case["name"] == "count_table":
        for frames, places, q, count in case["table"]:
            if count > places:  # what the published code keeps at least: the first frame
                assert pooling("evs", share=1 - q).num_tokens(frames, 1, places) == count
        return
    if case["name"] == "mrope":
        pytest.skip("rotary positions are the model's")
    if case.get("edit") or "kept" not in case["arrays"]:
        return  # a NaN, or sizes of a grid
    tokens, places = run(pooling("evs", tokens=case["count"]), case, dtype)
    same_places(places, r.outputs(case, "kept"), case)
    assert np.array_equal(tokens, r.grid_of(case, dtype).flatten(1, 3)[0][places])


@pytest.mark.parametrize("case", r.recorded("vidcom2"))
@in_both
def test_vidcom2(case, dtype):
    if "global_idx" in case["arrays"]:  # as a host counts them: rows may end with a newline, which all stay
        frames, height, width, _ = case["grid"]["shape"]
        places = run(pooling("vidcom2", share=case["params"]["R"], reference=True), case, dtype)[1]
        if case["params"]["model"] == "llava_vid":
            rows, ends = np.divmod(places, width), np.arange(1, frames * height + 1) * (width + 1) - 1
            places = np.sort(np.concatenate([rows[0] * (width + 1) + rows[1], ends]))
        np.testing.assert_array_equal(np.sort(r.outputs(case, "global_idx").ravel()), places)
        return
    if "kept_exact" not in case["arrays"]:
        return
    share = 1 - (1 - case["params"]["R"])
    if 0 < share <= 1:
        exact = run(pooling("vidcom2", share=share), case, dtype)[1]
        same_places(exact, r.outputs(case, "kept_exact"), {"strict": case.get("strict_exact")})
    if "kept" in case["arrays"] and share > 0:
        places = run(pooling("vidcom2", share=min(1.0, case["params"]["R"]), reference=True), case, dtype)[1]
        same_places(places, r.outputs(case, "kept"), case)


@pytest.mark.parametrize("case", r.recorded("dtd"))
@in_both
def test_dtd(case, dtype):
    if case["params"]["method"] != "feature" or "kept" not in case["arrays"]:
        pytest.skip("pixels, or an error of settings")
    if case["params"]["absolute"] in (True, None):
        above = {"_target_": "videopool.compression.WholeClip", "above": 1 - case["params"]["threshold"]}
        compression = pooling("evs", share=None, allocator=above)
    else:
        compression = pooling("dtd", tokens=case["count"])
    same_places(run(compression, case, dtype)[1], r.outputs(case, "kept"), case)


@pytest.mark.parametrize("case", r.recorded("vcast"))
@in_both
def test_vcast(case, dtype):
    if case["name"] == "allocator_table":
        for weights, total, least, most, per_frame in case["table"]:
            assert handed_out(weights, total, least, most, reference=True) == per_frame
        return
    if "kept" not in case["arrays"] or "edit" in case or "grid_thw" in case["params"]:
        return
    settings = {"allocator__least": case["params"]["min_k"], "tokens": case["count"], "reference": True}
    same_places(run(pooling("vcast", **settings), case, dtype)[1], r.outputs(case, "kept"), case)


@pytest.mark.parametrize("case", r.recorded("dycoke_ttm"))
@in_both
def test_dycoke(case, dtype):
    if "order" not in case["arrays"]:
        return
    share = case["keep"] / math.prod(case["grid"]["shape"][1:3])
    compression = pooling("dycoke", share=min(1.0, share + 1e-9), reference=True, order="score")
    same_places(run(compression, case, dtype)[1], r.outputs(case, "order"), case)


@pytest.mark.parametrize("case", r.recorded("framefusion"))
@in_both
def test_framefusion(case, dtype):
    if "grid" not in case or case["params"].get("steps"):
        return
    size = math.prod(case["grid"]["shape"][:3])
    count = size - int((1 - case["params"]["cost"]) * size)
    compression = pooling("framefusion", tokens=count, allocator__above=1 - case["params"]["sim"], reference=True)
    tokens, places = run(compression, case, dtype)
    same_places(places, r.outputs(case, "kept"), case)
    if case.get("strict"):
        expected = r.grid_of(case, dtype).flatten(1, 3)[0].numpy().copy()
        expected[r.outputs(case, "merged")] = r.outputs(case, "merged_tokens")
        same_tokens(tokens, expected[places], dtype)


@pytest.mark.parametrize("case", r.recorded("visionzip"))
@in_both
def test_visionzip(case, dtype):
    if case.get("raises") or not {"dominant", "target", "tokens"} <= set(case["arrays"]):
        return
    wanted = case["params"]
    if "grid" not in case:  # states of a real tower, CLS first
        hidden = r.outputs(case, "hidden")
        frames, length, dim = hidden.shape
        side = round((length - 1) ** 0.5)
        case = {**case, "grid": {"shape": [frames, side, side, dim], "values": hidden[:, 1:]}}
        context = {
            "cls": hidden[:, 0],
            "keys": spatial(case, r.outputs(case, "keys")[:, 1:]),
            "saliency": spatial(case, r.outputs(case, "cls_attention").sum(1)),
        }
        same_visionzip(case, dtype, context, True)
        return
    about = case["aux"]
    frames, height, width, dim = case["grid"]["shape"]
    places, clip = height * width, wanted["host"] == "clip"
    keys = r.normal(about["key_seed"], (frames, places + clip, about["Dk"]))
    if about["keys"].startswith("all equal"):
        keys[:] = keys[0, 0]
    if about["keys"] == "place 0 zero":
        keys[:, int(clip)] = 0
    context = {"keys": spatial(case, keys[:, int(clip) :])}
    if clip:
        rows = r.attention(about["attn_kind"], about["attn_seed"], (frames, about["heads"], places + 1, places + 1))
        context["saliency"] = spatial(case, rows[:, :, 0, 1:].sum(1))
        context["cls"] = r.normal(about["cls_seed"], (frames, 1, dim))[:, 0]
    else:
        context["saliency"] = vec(case)
    same_visionzip(case, dtype, context, clip)


def same_visionzip(case, dtype, context, clip):
    frames, height, width, dim = case["grid"]["shape"]
    places, contextual = height * width, case["params"]["contextual"]
    number = case["params"]["dominant"] + contextual - clip
    compression = pooling(
        "visionzip", tokens=frames * (number + clip), cls=clip, allocator__contextual=contextual / number,
        merger__token="sum", reference=True,
    )  # fmt: skip
    tokens, found = run(compression, case, dtype, context)
    offset = np.arange(frames)[:, None] * places
    kept = np.concatenate([r.outputs(case, "dominant") + offset, r.outputs(case, "target") + offset], 1)
    kept = np.concatenate([np.full((frames, int(clip)), -1), kept], 1).ravel()
    same_places(found, kept, case)
    if case.get("strict"):
        same_tokens(tokens, r.outputs(case, "tokens").reshape(-1, dim), dtype)


@pytest.mark.parametrize("case", r.recorded("prumerge"))
@in_both
def test_prumerge(case, dtype):
    if "tokens" not in case["arrays"]:
        return
    frames, height, width, dim = case["grid"]["shape"]
    about, places = case["aux"], height * width
    q = r.normal(about["q_seed"], (frames, places + 1, dim)) * np.float32(about["q_scale"])
    k = r.normal(about["k_seed"], (frames, places + 1, dim)) * np.float32(about["k_scale"])
    if about["keys"].startswith("patches"):
        k[:, 1:] = k[:, 1:2]
    logits = torch.from_numpy(q).to(dtype)[:, :1] @ torch.from_numpy(k).to(dtype).transpose(1, 2) / dim**0.5
    context = {"saliency": spatial(case, logits.softmax(-1)[:, 0, 1:].numpy()), "keys": spatial(case, k[:, 1:])}
    share = None if case["params"]["adaptive"] else case["params"]["ratio"]
    name = "prumerge_plus" if case["params"]["plus"] else "prumerge"
    compression = pooling(name, share=share, reference=True, allocator=OUTLIERS)
    tokens, found = run(compression, case, dtype, context)
    if not case["params"]["plus"] and not case["params"]["adaptive"]:
        exact, _ = run(pooling("prumerge", tokens=case["count"]), case, dtype, context)
        assert np.array_equal(exact, tokens)
    kept = r.outputs(case, "places") + np.arange(frames)[:, None] * places
    same_places(found.reshape(frames, -1)[:, :-1].ravel(), kept.ravel(), case)
    if case.get("strict"):
        same_tokens(tokens, r.outputs(case, "tokens").reshape(-1, dim), dtype)


@pytest.mark.parametrize("case", r.recorded("holitom"))
@in_both
def test_holitom(case, dtype):
    if "sim" in case["arrays"]:
        alike = r.outputs(case, "sim") > case["params"]["tau"]
        found, saved = windows(alike, case["params"]["max_window"])
        assert [[a, b - 1] for a, b in found] == case["windows"]
        assert saved == case["saved"]
        return
    if "anchor" not in case["arrays"]:
        return
    settings = {"allocator__tau": case["params"]["tau"], "allocator__longest": case["params"].get("W", 1024)}
    compression = pooling("holitom", share=case["params"]["R"], reference=True, **settings)
    tokens, places = run(compression, case, dtype, {"saliency": vec(case)})
    same_places(places, r.outputs(case, "anchor"), case)
    if case.get("strict"):
        same_tokens(tokens, r.outputs(case, "tokens"), dtype)


@pytest.mark.parametrize("case", r.recorded("prunevid"))
@in_both
def test_prunevid(case, dtype):
    if case["name"].startswith("contiguous"):
        for labels, made, lengths in case["table"]:
            assert contiguous(labels) == made
            assert [len(run) for run in np.split(made, np.nonzero(np.diff(made))[0] + 1)] == lengths
        return
    if "tokens" not in case["arrays"]:
        return
    wanted = case["params"]
    compression = pooling(
        "prunevid", share=1.0, reference=True, allocator__tau=wanted["tau"],
        allocator__share=wanted["temporal_segment_ratio"], allocator__cluster=wanted["cluster_ratio"],
    )  # fmt: skip
    tokens, _ = run(compression, case, dtype)
    assert len(tokens) == case["count"]
    if case.get("strict"):
        same_tokens(tokens, r.outputs(case, "tokens"), dtype)


@pytest.mark.parametrize("case", [*r.recorded("fastvid"), *r.recorded("fastvid_qwen")])
@in_both
def test_fastvid(case, dtype):
    if "kept" not in case["arrays"]:
        return
    frames, wanted, about = case["grid"]["shape"][0], case["params"], case["aux"]
    qwen = case["folder"].name == "fastvid_qwen"
    names = {"c": "least", "tau": "tau", "p": "every", "d": "contextual", "ig": "ignore"}
    settings = {f"allocator__{names[key]}": value for key, value in wanted.items() if key in names}
    if qwen:
        settings = {"allocator__tau": 0.84, "allocator__ignore": 0.95, "merger__own": False, **settings}
    if "beta" in wanted:
        settings["merger__beta"] = wanted["beta"]
    context = {"saliency": vec(case), "frame_vectors": r.frame_vectors(about["glob_kind"], about["glob_seed"], frames)}
    tokens, places = run(pooling("fastvid", share=wanted["R"], reference=True, **settings), case, dtype, context)
    if qwen:  # recorded by place, tokens in another order
        if case["strict"] or case["cut_gap"] > 2e-6:
            same_places(np.sort(places), r.outputs(case, "kept"), case)
        if case.get("strict"):
            same_tokens(*as_sets(tokens, r.outputs(case, "tokens")), dtype)
        return
    if case["strict"] or case["cut_gap"] > 2e-6:
        same_places(places, r.outputs(case, "kept"), case)
    if case.get("strict"):
        same_tokens(tokens, r.outputs(case, "tokens"), dtype)


@pytest.mark.parametrize("case", r.recorded("flashvid"))
@in_both
def test_flashvid(case, dtype):
    if "kept" not in case["arrays"]:
        return
    wanted = case["params"]
    names = {"thr": "joins", "min_seg": "least", "alpha": "kept", "do_segment": "cut"}
    settings = {f"allocator__{names[key]}": value for key, value in wanted.items() if key in names}
    weights = {"attn_div_v2": ["saliency", "context"], "attn_div": ["saliency"], "div": []}
    if wanted["sel"] == "attn":
        settings["selector"] = SALIENT
    else:
        settings["selector__weights"] = weights[wanted["sel"]]
    compression = pooling("flashvid", share=wanted["R"], reference=True, **settings)
    tokens, places = run(compression, case, dtype, {"saliency": vec(case)})
    if case["strict"]:
        kept, expected = r.outputs(case, "kept"), r.outputs(case, "tokens")
        same_places(places, kept, case)
        same_tokens(*as_sets(tokens, expected), dtype)  # those of one place, kept and merged again, have no order


@pytest.mark.parametrize("case", r.recorded("sttm"))
@in_both
def test_sttm(case, dtype):
    if "boxes" not in case["arrays"] or case["params"]["pairing"] != "all":
        return
    wanted = case["params"]
    compression = pooling(
        "sttm", share=None, tau_s=wanted["tau_s"], tau_t=wanted["tau_t"] if wanted["tau_t"] > 0 else None,
        root=wanted["root_level"], reference=True,
    )  # fmt: skip
    tokens, places = run(compression, case, dtype)
    boxes = r.outputs(case, "boxes")
    _, height, width, _ = case["grid"]["shape"]
    same_places(places, boxes[:, 0] * height * width + boxes[:, 1] * width + boxes[:, 2], case)
    if case.get("strict") and "tokens" in case["arrays"]:
        same_tokens(tokens, r.outputs(case, "tokens"), dtype)


@pytest.mark.parametrize("case", r.recorded("scissor"))
@in_both
def test_scissor(case, dtype):
    if "adjacency" in case["arrays"]:
        if case.get("strict"):
            linked = np.unpackbits(r.outputs(case, "adjacency"), axis=1)[:, : case["graph"]["n"]] > 0
            np.testing.assert_array_equal(components(linked), r.outputs(case, "label"))
        return
    if not case.get("strict"):
        return
    tokens, _ = run(pooling("scissor", share=None, tau=case["params"]["tau"], reference=True), case, dtype)
    same_tokens(tokens, r.outputs(case, "tokens"), dtype)
