"""Frame indices as recorded from the PLLaVA reference code, and where ours part from them."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from conftest import numbered_frames, read_number
from reference_tables import EACH_SOURCE, read_table
from videopool.video import (
    ClipBoundsError,
    ClipInfo,
    CyclingSampler,
    FpsSampler,
    FrameSamplingError,
    MiddleSampler,
    RandomSampler,
    UniformSampler,
    open_clip,
)

EVERY_FRAME = 10**6


@EACH_SOURCE
def test_uniform_equals_the_chat(source, shared):
    rows = read_table("sampling_chat_get_index", source, shared)
    for row in rows:
        assert UniformSampler(row["num_segments"]).indices(ClipInfo(row["n_frames"], 25.0)) == row["indices"], row
    assert len(rows) == (59 if source == "part" else 233)


@EACH_SOURCE
def test_middle_equals_training(source, shared):
    equal = outside = 0
    for row in read_table("sampling_train_get_frame_indices", source, shared):
        if row["sample"] != "middle":
            continue
        got = MiddleSampler(row["num_frames"], row["fix_start"]).indices(ClipInfo(row["vlen"], 25.0))
        if max(row["indices"]) < row["vlen"]:
            assert got == row["indices"], row
            equal += 1
        else:
            # A late start in a short clip: the reference points past the end, ours at the last frame.
            assert got == [min(index, row["vlen"] - 1) for index in row["indices"]]
            outside += 1
    assert (equal, outside) == ((44, 12) if source == "part" else (153, 12))


@EACH_SOURCE
def test_centred_fps_equals_training(source, shared):
    equal = thinned = empty = 0
    for row in read_table("sampling_train_get_frame_indices", source, shared):
        if not row["sample"].startswith("fps"):
            continue
        info, rate, most = ClipInfo(row["vlen"], row["input_fps"]), float(row["sample"][3:]), row["max_num_frames"]
        got = FpsSampler(EVERY_FRAME, rate, centred=True).indices(info)
        if not row["indices"]:
            # Shorter than half a period: the reference takes no frame at all, ours the middle one.
            assert got == [(row["vlen"] - 1) // 2]
            empty += 1
        elif most < 0 or len(got) <= most:
            assert got == row["indices"], row
            equal += 1
        else:
            # More than asked for: the reference takes the first ones, ours thin evenly.
            assert got[:most] == row["indices"], row
            few = FpsSampler(most, rate, centred=True).indices(info)
            assert (len(few), few[0], few[-1]) == (most, got[0], got[-1])
            thinned += 1
    assert equal + thinned + empty == (70 if source == "part" else 277)
    if source == "whole":
        assert (equal, thinned, empty) == (153, 20, 104)


def test_a_rate_at_the_clips_own_takes_every_frame_once():
    for rate in (25, 30):
        assert FpsSampler(100, rate, centred=True).indices(ClipInfo(20, 25.0)) == list(range(20))


@EACH_SOURCE
def test_random_draws_from_the_intervals_of_training(source, shared):
    compared = 0
    for row in read_table("sampling_train_get_frame_indices", source, shared):
        length, num = row["vlen"], row["num_frames"]
        if row["sample"] != "rand" or not length:
            continue
        drawn = [RandomSampler(num, seed).indices(ClipInfo(length, 25.0)) for seed in range(5)]
        if length < num:
            # Each frame once and the last again in the reference; ours repeat neighbours. Both show every frame.
            assert row["indices"] == [*range(length)] + [length - 1] * (num - length)
            assert all(set(indices) == set(range(length)) for indices in drawn)
            continue
        edges = np.linspace(0, length, num + 1).astype(int).tolist()
        for indices in drawn:
            assert all(a <= index < b for index, (a, b) in zip(indices, pairwise(edges), strict=True))
        if length >= 2 * num:
            # The reference never draws an interval's last frame, and where intervals are a frame long it draws
            # from the whole clip.
            assert all(a <= index < b - 1 for index, (a, b) in zip(row["indices"], pairwise(edges), strict=True))
            compared += 1
    assert compared >= (10 if source == "part" else 60)


@EACH_SOURCE
def test_a_stretch_of_training_ends_earlier(source, shared):
    recorded = read_table("sampling_train_clip", source, shared)
    info = ClipInfo(recorded["n_frames"], recorded["avg_fps"])
    for row in recorded["rows"]:
        sampler = MiddleSampler(row["num_frames"])
        if row["clip"] is None:
            assert sampler.indices(info) == row["indices"]
            continue
        # Training cuts the length of a stretch down to whole frames and leaves its last frame out; ours are cut as
        # in evaluation, in training too.
        start, end = row["clip"]
        cut = start + (int((end - start) * info.fps) - 1) / info.fps
        assert sampler.indices(info, start, cut) == row["indices"]
        assert 0 <= max(np.subtract(sampler.indices(info, start, end), row["indices"])) <= 2


@EACH_SOURCE
def test_frame_folders_equal_the_reference(source, shared):
    compared = 0
    for row in read_table("readers_gif_and_frames", source, shared)["rows"]:
        if not row["reader"].startswith("read_frame"):
            continue
        bounds = (0.5, 2.0) if "bound" in row["reader"] else (None, None)
        info, sampler = ClipInfo(row["n_frames"], 3.0, first_index=1), UniformSampler(row["num_segments"])
        if bounds[0] and row["n_frames"] == 1:
            # The stretch begins behind the only frame: the reference reads frame 0, which no folder has, or fails.
            with pytest.raises(ClipBoundsError):
                sampler.indices(info, *bounds)
            continue
        assert sampler.indices(info, *bounds) == row["source_frame_of_each_output"], row
        compared += 1
    assert compared == 26


@EACH_SOURCE
def test_cycling_equals_the_references_gifs(source, shared):
    rows = [r for r in read_table("readers_gif_and_frames", source, shared)["rows"] if r["reader"] == "read_gif"]
    for row in rows:
        got = CyclingSampler(row["num_segments"]).indices(ClipInfo(row["n_frames"], 10.0))
        assert got == row["source_frame_of_each_output"], row
    assert len(rows) == 14


@EACH_SOURCE
def test_short_gifs_repeat_neighbours_here(source, shared, tmp_path):
    for row in read_table("readers_gif_and_frames", source, shared)["rows"]:
        if row["reader"] != "read_gif":
            continue
        frames, num = row["n_frames"], row["num_segments"]
        pictures = [Image.fromarray(frame) for frame in numbered_frames(frames)]
        pictures[0].save(tmp_path / f"{frames}.gif", save_all=True, append_images=pictures[1:], duration=100)
        with open_clip(tmp_path / f"{frames}.gif") as clip:
            chosen = UniformSampler(num).indices(clip.info)
            shown = [read_number(frame) for frame in clip.frames(chosen)]
        assert shown == chosen == sorted(chosen)
        # Both show the same frames; only a short GIF's come in another order.
        assert set(shown) == set(row["source_frame_of_each_output"])
        assert (shown == row["source_frame_of_each_output"]) == (len(set(shown)) == num or frames == 1)


@pytest.mark.parametrize("fix_start", [None, 0, 3, 100])
@pytest.mark.parametrize("frames", [1, 2, 7, 16, 301])
@pytest.mark.parametrize("num", [1, 4, 16])
def test_middle_ascends_within_the_clip(fix_start, frames, num):
    chosen = MiddleSampler(num, fix_start).indices(ClipInfo(frames, 25.0))
    assert len(chosen) == num
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < frames


def test_middle_of_a_stretch_and_of_a_short_clip():
    assert MiddleSampler(4).indices(ClipInfo(3, 25.0)) == [0, 1, 2, 2]
    assert MiddleSampler(2).indices(ClipInfo(100, 10.0), 1.0, 2.9) == [14, 24]
    for bad in (-1, True, 1.5):
        with pytest.raises(FrameSamplingError, match=r"frames\.fix_start"):
            MiddleSampler(4, bad)
