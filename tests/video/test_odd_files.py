"""Files whose packets do not say which frames are shown and when: each kind against decoding it frame by frame."""

import os
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from conftest import numbered_frames, read_number
from videopool.video import READERS, FpsSampler, bounds_to_span, open_clip

RATE = 10
X264 = {"preset": "ultrafast", "bf": "3", "g": "12", "x264-params": "b-adapt=0:scenecut=0"}


def write(path, codec="libx264", options=X264, frames=None, times=None, format=None):
    """A video of numbered frames; times are of frames in tenths of a second."""
    frames = numbered_frames(40) if frames is None else frames
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=RATE if codec != "mpeg2video" else 25, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.bit_rate = 2_000_000
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remuxed(source, path, change):
    """The packets of a file in another one, after change(list of packets) has had its way with them."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = change([packet for packet in old.demux(video=0) if packet.size])
        for packet in packets:
            packet.stream = stream
            new.mux_one(packet)
    return path


def joined(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def concatenated(suffix, codec, options):
    def make(folder):
        parts = [
            write(folder / f"{n}.{suffix}", codec, options, frames)
            for n, frames in enumerate((numbered_frames(40), numbered_frames(80)[40:]))
        ]
        return joined(folder / f"joined.{suffix}", *parts)

    return make


def later_first(folder):
    late = write(folder / "late.ts", frames=numbered_frames(40), times=[2000 + n for n in range(40)])
    return joined(folder / "joined.ts", late, write(folder / "early.ts", frames=numbered_frames(80)[40:]))


def in_avi(folder):
    return write(folder / "a.avi")


def simple_in_avi(folder):
    return write(folder / "a.avi", "mpeg4", {"bf": "2", "g": "12"})


def packed_without_stamps(folder):
    return write(folder / "a.h264", format="h264")


def equal_stamps(folder):
    def change(packets):
        for number, packet in enumerate(packets):
            packet.pts = packet.dts = packets[number - number % 2].pts
        return packets

    return remuxed(write(folder / "a.mp4", options={**X264, "bf": "0"}), folder / "equal.mkv", change)


def wrong_order_of_stamps(folder):
    """MP4 whose stamps are in the order of storage, though the frames are not."""

    def change(packets):
        step = packets[1].dts - packets[0].dts
        for number, packet in enumerate(packets):
            packet.pts = packet.dts = number * step
        return packets

    return remuxed(write(folder / "a.mp4"), folder / "wrong.mp4", change)


def begins_inside(suffix, codec="libx264", options=X264):
    def make(folder):
        return remuxed(write(folder / f"a.{suffix}", codec, options), folder / f"cut.{suffix}", lambda p: p[5:])

    return make


def leading_pictures(folder):
    """Cut at a key frame of an open group: what is shown before it cannot be decoded."""
    whole = write(
        folder / "a.ts", options={**X264, "x264-params": "open-gop=1:b-adapt=0:scenecut=0:bframes=3:keyint=12"}
    )

    def change(packets):
        return packets[[packet.is_keyframe for packet in packets].index(True, 1) :]

    return remuxed(whole, folder / "cut.ts", change)


def hidden_frames(folder):
    """VP8 with packets that are decoded and not shown."""

    def change(packets):
        new = []
        for number, packet in enumerate(packets):
            data = bytearray(bytes(packet))
            data[0] &= 0xFF if number % 5 else 0xEF  # bit 4: show_frame (RFC 6386, section 9.1)
            other = av.Packet(bytes(data))
            other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
            other.is_keyframe = packet.is_keyframe
            new.append(other)
        return new

    whole = write(folder / "a.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"})
    return remuxed(whole, folder / "hidden.webm", change)


def cut_by_an_edit_list(folder):
    """MP4 that is to be shown from its 18th frame on, by its header alone."""
    path = write(folder / "a.mp4")
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 4
    count, duration, media_time = struct.unpack_from(">4xIIi", content, place)
    ticks = struct.unpack_from(">4xIIII", content, content.index(b"mdhd") + 4)[2]
    assert count == 1
    struct.pack_into(">Ii", content, place + 8, duration - 1800, media_time + 18 * ticks // RATE)
    path.write_bytes(content)
    return path


def plain_ts(folder):
    return write(folder / "a.ts")


MPEG2 = {"bf": "2", "g": "12"}
KINDS = {
    "joined ts": concatenated("ts", "libx264", X264),
    "joined mpg": concatenated("mpg", "mpeg2video", MPEG2),
    "later part first": later_first,
    "h264 in avi": in_avi,
    "mpeg4 in avi": simple_in_avi,
    "no stamps": packed_without_stamps,
    "equal stamps": equal_stamps,
    "stamps in the order of storage": wrong_order_of_stamps,
    "begins inside, ts": begins_inside("ts"),
    "begins inside, mkv": begins_inside("mkv"),
    "begins inside, mp4": begins_inside("mp4"),
    "begins inside, mpg": begins_inside("mpg", "mpeg2video", MPEG2),
    "begins inside, avi": begins_inside("avi", "mpeg4", {"bf": "0", "g": "12"}),
    "leading pictures": leading_pictures,
    "hidden frames": hidden_frames,
    "edit list": cut_by_an_edit_list,
    "ts": plain_ts,
}
COUNTS = {"joined ts": 80, "joined mpg": 80, "later part first": 80, "h264 in avi": 40, "hidden frames": 32,
          "equal stamps": 40, "begins inside, ts": 28, "edit list": 22}  # fmt: skip


@pytest.fixture(scope="module", params=list(KINDS))
def odd(request, tmp_path_factory):
    return request.param, KINDS[request.param](tmp_path_factory.mktemp("odd"))


def decoded(path):
    """All frames, one after another, as FFmpeg shows them."""
    frames = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
            except av.error.FFmpegError:
                continue
    return frames


@pytest.mark.parametrize("reader", READERS)
def test_frames_are_those_of_decoding_one_by_one(odd, reader):
    kind, path = odd
    truth = decoded(path)
    with open_clip(path, reader) as clip:
        assert len(truth) == COUNTS.get(kind, len(truth)), "the file is not what it should be"
        assert clip.info.num_frames == len(truth)
        assert np.array_equal(clip.frames(range(len(truth))), truth)
        order = np.random.default_rng(0).permutation(len(truth))[:5].tolist()
        for index in order:  # alone, it is the same frame
            assert np.array_equal(clip.frames([index])[0], truth[index])
        assert clip.readable() == len(truth)


def test_time_goes_on_where_clips_were_joined(tmp_path):
    for kind in ("joined ts", "joined mpg", "later part first"):
        folder = tmp_path / kind
        folder.mkdir()
        with open_clip(KINDS[kind](folder)) as clip:
            rate = clip.info.fps
            assert rate == pytest.approx(25 if "mpg" in kind else 10)
            assert bounds_to_span(clip.info, 50 / rate, 60 / rate) == (50, 60), kind


def test_equal_stamps_are_frames_of_their_own(tmp_path):
    with open_clip(equal_stamps(tmp_path)) as clip:
        np.testing.assert_allclose(clip.info.timestamps, np.repeat(np.arange(20) / 5, 2), atol=1e-3)
        assert bounds_to_span(clip.info, 0.4, 0.6) == (4, 7)


@pytest.mark.parametrize("reader", READERS)
def test_questions_on_a_stretch_of_an_avi(tmp_path, reader):
    with open_clip(simple_in_avi(tmp_path), reader) as clip:
        first, last = bounds_to_span(clip.info, 1.0, 2.5)
        assert [read_number(frame) for frame in clip.frames([first, last])] == [10, 25]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_one_frame_a_second_goes_by_time(tmp_path, reader, suffix):
    times = [*range(20), *range(20, 121, 10)]  # two seconds at ten frames, then ten at one
    path = write(tmp_path / f"a.{suffix}", frames=numbered_frames(len(times)), times=times)
    with open_clip(path, reader) as clip:
        seen = [round(float(clip.info.timestamps[i])) for i in FpsSampler(100, 1.0).indices(clip.info)]
        assert seen == list(range(13))
        assert FpsSampler(100, 2.0).indices(clip.info) == [0, 5, 10, 15, *range(20, 31)]
        assert FpsSampler(100, 1e9).indices(clip.info) == list(range(31))
        assert FpsSampler(100, 1.0, centred=True).indices(clip.info) == [5, 15, *range(20, 30)]
        assert FpsSampler(4, 1.0).indices(clip.info, 3.0, 9.0) == [21, 23, 25, 27]
        assert FpsSampler(4, 0.01, centred=True).indices(clip.info) == [24], "the middle by time"


def test_a_long_gap_in_an_ordinary_file_is_kept(tmp_path):
    path = write(tmp_path / "a.mp4", frames=numbered_frames(4), times=[0, 1, 300, 301])
    with open_clip(path) as clip:
        np.testing.assert_allclose(clip.info.timestamps, [0, 0.1, 30, 30.1], atol=1e-3)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda f: f),
        ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
        ((-1, 0, 0, -1), lambda f: f[::-1, ::-1]),
        ((1, 0, 0, -1), lambda f: f[::-1]),
        ((0, 1, 1, 0), lambda f: f.swapaxes(0, 1)),
        ((0, 1, -1, 0), lambda f: np.rot90(f, -1)),
        ((0, -1, -1, 0), lambda f: f[::-1, ::-1].swapaxes(0, 1)),
        ((0, -1, 1, 0), lambda f: np.rot90(f)),
    ],
)
def test_all_orientations(tmp_path, reader, matrix, shown):
    picture = np.zeros((1, 64, 96, 3), np.uint8)
    picture[0, :20, :30], picture[0, 40:, :30] = 230, 110  # no symmetry
    path = write(tmp_path / "a.mp4", frames=picture)
    with open_clip(path) as clip:
        plain = clip.frames([0])[0]
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 5 * 4 + 2 * 4 + 4 * 2  # to the matrix of a version 0 header
    a, b, c, d = (number << 16 for number in matrix)
    # Rotations come with the move that brings the picture back to the origin.
    x, y = 96 * (a < 0) + 64 * (c < 0), 96 * (b < 0) + 64 * (d < 0)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, x << 16, y << 16, 1 << 30)
    path.write_bytes(content)
    with open_clip(path, reader) as clip:
        got = clip.frames([0])[0]
    assert got.shape == shown(plain).shape
    assert np.abs(got.astype(int) - shown(plain)).mean() < 2


def test_a_line_says_which_clips_decord_did_not_read(tmp_path, capfd):
    for name, make in (("avi", simple_in_avi), ("ts", plain_ts), ("joined", KINDS["joined ts"])):
        (tmp_path / name).mkdir()
        path = make(tmp_path / name)
        for _ in range(2):
            open_clip(path, "decord").frames([0])
        told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("videopool: ")]
        assert len(told) == 1
        assert f"{path} is read by PyAV, not decord: " in told[0]
    open_clip(write(tmp_path / "a.mp4"), "decord").frames([0])
    assert "videopool" not in capfd.readouterr().err


@pytest.mark.parametrize("reader", READERS)
def test_names_that_look_like_protocols(tmp_path, monkeypatch, reader):
    for name in ("12:30:05.mp4", "http:a.mp4", "-i.mp4", "%03d.mp4", "é ü.mp4"):
        write(tmp_path / name, frames=numbered_frames(3))
    shutil.copy(tmp_path / "-i.mp4", os.fsdecode(bytes(tmp_path) + b"/\xff.mp4"))
    monkeypatch.chdir(tmp_path)
    for path in Path().iterdir():
        with open_clip(path, reader) as clip:
            assert [read_number(frame) for frame in clip.frames([2, 0])] == [2, 0], path


@pytest.mark.parametrize(
    ("name", "count"),
    [("avi_h264_bframes/h264.avi", 50), ("concat_mpg/cat.ts", 50), ("decord_avi_bounds/asp.avi", 50),
     ("decord_ts/full.ts", 75), ("start_mid_gop/midgop.ts", 50), ("vfr_fps_sampler/vfr.mp4", 60)],
)  # fmt: skip
@pytest.mark.parametrize("reader", READERS)
def test_files_from_the_field(shared, name, count, reader):
    path = shared(f"field/{name}")
    truth = decoded(path)
    with open_clip(path, reader) as clip:
        assert clip.info.num_frames == len(truth) == count
        got = clip.frames(range(count))
        assert np.abs(got.astype(int) - truth).mean() < 2
        if "asp" in name:
            assert bounds_to_span(clip.info, 0.5, 1.0) == (12, 25)
        if "vfr" in name:
            assert FpsSampler(100, 1.0).indices(clip.info) == [0, 25, *range(50, 60)]


def test_a_mirrored_clip_from_the_field(shared):
    path = shared("field/mirrored_matrix/hflip.mp4")
    with open_clip(path) as clip:
        assert np.array_equal(clip.frames([7])[0], decoded(path)[7][:, ::-1])


def test_a_picture_of_the_cover_is_no_clip(tmp_path):
    film = write(tmp_path / "film.mp4", frames=numbered_frames(5))
    cover = numbered_frames(1, 32, 32)
    path = tmp_path / "a.mp4"
    with av.open(str(film)) as old, av.open(str(path), "w") as new:
        picture = new.add_stream("mjpeg", rate=1)
        picture.height = picture.width = 32
        picture.pix_fmt = "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in picture.encode(av.VideoFrame.from_ndarray(cover[0], format="rgb24")) + picture.encode():
            new.mux(packet)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    with open_clip(path) as clip:
        assert clip.info.num_frames == 5
        assert read_number(clip.frames([4])[0]) == 4
