"""Frames that are reached by seeking are those of decoding one by one, or no seek is made."""

from copy import copy

import av
import numpy as np
import pytest
from test_odd_files import KINDS, X264, decoded, write

from conftest import numbered_frames
from videopool.video import open_clip, pyav_reader, seeking
from videopool.video.seeking import PacketIndex, Seeker, Stretch, stretches, worth_seeking

FRAMES = 90
OPEN = "open-gop=1:b-adapt=0:scenecut=0:bframes=3:keyint=12"
REGULAR = {
    "mp4": ("a.mp4", "libx264", X264),
    "open groups": ("a.mp4", "libx264", {**X264, "x264-params": OPEN}),
    "open groups, mkv": ("a.mkv", "libx264", {**X264, "x264-params": OPEN}),
    "no b-frames": ("a.mp4", "libx264", {**X264, "bf": "0"}),
    "hevc": ("a.mp4", "libx265", {"preset": "ultrafast", "x265-params": "keyint=12:bframes=3:log-level=none"}),
    "hevc, open groups": (
        "a.mp4", "libx265", {"preset": "ultrafast", "x265-params": "keyint=12:bframes=3:open-gop=1:log-level=none"},
    ),
    "vp9": ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
    "mpeg4": ("a.mp4", "mpeg4", {"bf": "2", "g": "12"}),
    "mpeg2, open groups": ("a.mkv", "mpeg2video", {"bf": "2", "g": "12"}),
}  # fmt: skip
# Key frames after which pictures still need what comes before, and no key frames at all.
NOT_REGULAR = {
    "intra refresh": ("a.mp4", "libx264", {**X264, "x264-params": "intra-refresh=1:keyint=12:scenecut=0", "bf": "0"}),
    "one key frame": ("a.mp4", "libx264", {**X264, "g": "1000"}),
}


@pytest.fixture
def eager(monkeypatch):
    """Seeks are made wherever they are possible; the stretches that were decoded after one are kept."""
    made = []

    def decode(self, part):
        frames = Seeker_decode(self, part)
        made.append((part, frames is not None))
        return frames

    Seeker_decode = Seeker.decode
    monkeypatch.setattr(Seeker, "decode", decode)
    monkeypatch.setattr(seeking, "NEAR", 0)
    monkeypatch.setattr(pyav_reader.seeking, "worth_seeking", lambda parts: True)
    return made


def agrees(path, made):
    """Every frame alone, and random sets of frames, against decoding one by one."""
    truth = decoded(path)
    random = np.random.default_rng(0)
    sets = [*([i] for i in range(len(truth))), *(random.permutation(len(truth))[:7].tolist() for _ in range(5))]
    with open_clip(path) as scanned:
        for wanted in sets:
            clip = copy(scanned)  # as if opened anew
            assert np.array_equal(clip.frames(wanted), np.stack([truth[i] for i in wanted])), wanted
    with open_clip(path) as clip:  # several calls on one clip
        for wanted in sets[::9]:
            assert np.array_equal(clip.frames(wanted), np.stack([truth[i] for i in wanted])), wanted
    return truth


@pytest.mark.parametrize("kind", REGULAR)
def test_regular_files_are_read_by_seeking(tmp_path, eager, kind):
    name, codec, options = REGULAR[kind]
    path = write(tmp_path / name, codec, options, numbered_frames(FRAMES))
    agrees(path, eager)
    assert all(whole for _, whole in eager), "a seek was given up"
    assert {part.key for part, _ in eager} > {0}
    assert len({part.key for part, _ in eager}) > 3


@pytest.mark.parametrize("kind", NOT_REGULAR)
def test_files_without_places_to_begin_at(tmp_path, eager, kind):
    name, codec, options = NOT_REGULAR[kind]
    agrees(write(tmp_path / name, codec, options, numbered_frames(40)), eager)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_files(tmp_path, eager, kind):
    agrees(KINDS[kind](tmp_path), eager)


@pytest.mark.parametrize(
    "name",
    ["avi_h264_bframes/h264.avi", "concat_mpg/cat.ts", "decord_avi_bounds/asp.avi", "decord_ts/full.ts",
     "start_mid_gop/midgop.ts", "vfr_fps_sampler/vfr.mp4"],
)  # fmt: skip
def test_files_from_the_field(shared, eager, name):
    agrees(shared(f"field/{name}"), eager)


def test_a_mirrored_clip_from_the_field(shared, eager):
    path = shared("field/mirrored_matrix/hflip.mp4")
    truth = decoded(path)
    with open_clip(path) as clip:
        for index in (len(truth) - 1, 7, 0):
            assert np.array_equal(clip.frames([index])[0], truth[index][:, ::-1])


@pytest.mark.parametrize("kind", ["no b-frames", "mp4", "vp9", "mpeg4", "hevc"])
@pytest.mark.parametrize("first", [0, 40])
def test_key_frames_that_are_none(tmp_path, eager, kind, first):
    """A container may call any packet a key frame, all of them or those of its end."""
    name, codec, options = REGULAR[kind]
    path = write(tmp_path / name, codec, options, numbered_frames(FRAMES))
    truth = decoded(path)
    with open_clip(path) as scanned:
        for index in range(40, FRAMES):
            clip = copy(scanned)  # as if opened anew
            places = np.union1d(clip._index.keys[clip._index.keys <= first], np.arange(first, FRAMES, 5))
            clip._index = PacketIndex(clip._index.stamps, places)
            assert np.array_equal(clip.frames([20, index]), [truth[20], truth[index]]), index
    assert not all(whole for _, whole in eager)


def test_damage_before_a_frame_is_told_as_without_seeking(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mkv", frames=numbered_frames(60, 240, 320))
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for position, size in packets[26:29]:
        content[position + 8 : position + size] = b"\xff" * (size - 8)
    path.write_bytes(content)

    def read():
        with open_clip(path) as clip:
            return {index: frame.tobytes() for index in range(60) for frame in clip.decode({index}).values()}

    plain = read()
    assert 30 < len(plain) < 60
    monkeypatch.setattr(seeking, "NEAR", 0)
    monkeypatch.setattr(pyav_reader.seeking, "worth_seeking", lambda parts: True)
    assert read() == plain


def test_stretches_begin_at_the_key_frame_before():
    # In the file: I0 P3 B1 B2 | I6 B4 B5 P8 B7: 4 and 5 are shown before the key frame 6 that they come after.
    index = PacketIndex(np.array([0, 3, 1, 2, 6, 4, 5, 8, 7]), np.array([0, 4]))
    assert stretches(index, [6, 7, 8]) == [Stretch(4, 8, (6, 8, 7))]
    assert [part.key for part in stretches(index, [5])] == [0]
    assert stretches(index, [0]) == [Stretch(0, 0, (0,))]
    assert stretches(index, [0, 6]) == [Stretch(0, 4, (0, 6))]  # near enough to decode what lies between


def test_short_or_dense_reads_begin_at_the_start():
    def parts(frames, *wanted):
        return stretches(PacketIndex(np.arange(frames), np.arange(0, frames, 100)), wanted)

    assert worth_seeking(parts(5000, 4950))
    assert worth_seeking(parts(5000, *range(40, 5000, 500)))
    assert not worth_seeking(parts(5000, *range(40, 5000, 50)))
    assert not worth_seeking(parts(5000, 90))
    assert not worth_seeking(parts(900, 890))
