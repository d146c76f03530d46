"""Every reader: frame i is the i-th frame in presentation order, whatever else is asked for."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from conftest import numbered_frames, read_number
from videopool.video import READERS, ClipBoundsError, ClipInfo, UnreadableClipError, bounds_to_span, open_clip

FRAMES = 60
CONTAINERS = {
    "mp4": ("libx264", {"bf": "3", "g": "20"}),
    "mkv": ("libx264", {"bf": "2", "g": "25", "x264-params": "open-gop=1"}),
    "webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "avi": ("mpeg4", {"bf": "2"}),
}


def write(path: Path, codec: str, options: dict[str, str], frames: np.ndarray, times: list[int] | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.bit_rate = 2_000_000
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    frames = numbered_frames(FRAMES)
    return {
        suffix: write(folder / f"clip.{suffix}", codec, options, frames)
        for suffix, (codec, options) in CONTAINERS.items()
    }


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", list(CONTAINERS))
@pytest.mark.parametrize("indices", [[0], [FRAMES - 1], [7, 3, 41, 3, 59, 0], list(range(0, FRAMES, 7)), [31, 30, 29]])
def test_index_names_the_frame_in_presentation_order(videos, reader, suffix, indices):
    with open_clip(videos[suffix], reader) as clip:
        assert clip.info.num_frames == FRAMES
        assert clip.info.fps == pytest.approx(10, rel=1e-3)
        got = clip.frames(indices)
    assert got.dtype == np.uint8
    assert got.shape == (len(indices), 64, 96, 3)
    assert [read_number(frame) for frame in got] == indices


@pytest.mark.parametrize("reader", READERS)
def test_variable_frame_rate_has_time_stamps(tmp_path, reader):
    times = [0, 1, 2, 3, 10, 20, 21, 22, 30, 45]
    path = write(tmp_path / "vfr.mp4", "libx264", {"bf": "0"}, numbered_frames(10), times)
    with open_clip(path, reader) as clip:
        assert [read_number(f) for f in clip.frames(range(10))] == list(range(10))
        assert clip.info.timestamps is not None
        np.testing.assert_allclose(clip.info.timestamps, np.array(times) / 10, atol=1e-3)
        assert bounds_to_span(clip.info, 0.9, 2.1) == (4, 6)
        assert bounds_to_span(clip.info, 1.3, 1.4) == (4, 4)  # between two frames: the one on the screen


def test_gif_and_frame_folders(tmp_path):
    frames = numbered_frames(12)
    pictures = [Image.fromarray(f) for f in frames]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"frame_{number + 1}.png")  # not padded: 10 must come after 9
    (folder / "notes.txt").write_text("no frame")
    for path in (tmp_path / "a.gif", folder):
        with open_clip(path) as clip:
            assert clip.info.num_frames == 12
            assert [read_number(f) for f in clip.frames([11, 0, 9, 10])] == [11, 0, 9, 10]
    with open_clip(folder / "frame_5.png") as clip:
        assert clip.info.num_frames == 1
        assert read_number(clip.frames([0])[0]) == 4


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("index", [-1, FRAMES, 1.5, True])
def test_index_must_name_a_frame(videos, reader, index):
    with open_clip(videos["mp4"], reader) as clip, pytest.raises(IndexError, match=r"0\.\.59"):
        clip.frames([index])


def _broken(folder: Path, kind: str, good: Path) -> Path:
    path = folder / (f"{kind}.mp4" if kind != "long name" else "x" * 300 + ".mp4")
    content = good.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "truncated":  # the index of an MP4 stands at its end
        path.write_bytes(content[: len(content) // 2])
    elif kind == "audio_only":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["missing", "long name", "empty", "garbage", "truncated", "audio_only"])
def test_one_error_for_a_clip_that_cannot_be_read(tmp_path, videos, reader, kind):
    path = _broken(tmp_path, kind, videos["mp4"])
    with pytest.raises(UnreadableClipError) as caught, open_clip(path, reader) as clip:
        clip.frames([0])
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)
    assert caught.value.reason


def test_damage_in_the_middle_is_an_error_there_and_nowhere_else(tmp_path):
    path = write(tmp_path / "a.mkv", "libx264", {"bf": "2", "g": "15"}, numbered_frames(60, 240, 320))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [(p.pos, p.size, p.is_keyframe) for p in container.demux(stream) if p.size]
    content = bytearray(path.read_bytes())
    for position, size, _ in packets[18:24]:
        content[position + 8 : position + size] = b"\xff" * (size - 8)
    path.write_bytes(content)
    with open_clip(path) as clip:
        assert clip.info.num_frames == 60
        readable, damaged = {}, []
        for index in range(60):
            try:
                readable[index] = read_number(clip.frames([index])[0])
            except UnreadableClipError:
                damaged.append(index)
    assert all(index == number for index, number in readable.items())
    assert damaged, "the damage must be noticed"
    assert set(damaged) <= set(range(15, 30)), "only the damaged group of pictures is lost"


def test_rotation_metadata_is_applied(tmp_path):
    path = write(tmp_path / "a.mp4", "libx264", {}, numbered_frames(4))
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 5 * 4 + 2 * 4 + 4 * 2  # to the matrix of a version 0 header
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert content[place : place + 36] == identity
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    with open_clip(path) as clip:
        turned = clip.frames([3])[0]
    with open_clip(path, "decord") as clip:
        reference = clip.frames([3])[0]
    assert turned.shape == reference.shape == (96, 64, 3)
    assert np.abs(turned.astype(int) - reference).mean() < 4


@pytest.mark.parametrize("name", ["opengop.mp4", "vfr.mp4", "anim.gif"])
def test_odd_files_against_sequential_decoding(shared, name):
    path = shared(f"videos/odd/{name}")
    with av.open(str(path)) as container:
        truth = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with open_clip(path) as clip:
        assert clip.info.num_frames == len(truth)
        order = np.random.default_rng(0).permutation(len(truth))[:24].tolist()
        for index, frame in zip(order, clip.frames(order), strict=True):
            assert np.array_equal(frame, truth[index])


def test_a_really_damaged_file(shared):
    with open_clip(shared("videos/odd/corrupt_mid.mp4")) as clip:
        assert clip.info.num_frames == 200
        assert clip.frames([0, 40, 160, 199]).shape == (4, 240, 320, 3)
        with pytest.raises(UnreadableClipError, match="frame 100"):
            clip.frames([0, 100])


def test_bounds_outside_the_clip():
    info = ClipInfo(100, 10.0)
    assert bounds_to_span(info, 2.0, 200.0) == (20, 99)
    assert bounds_to_span(info, -3.0, 1.0) == (0, 10)
    for start, end in ((20.0, 30.0), (-5.0, -1.0), (3.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ClipBoundsError):
            bounds_to_span(info, start, end)
