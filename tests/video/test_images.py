"""Stills, folders of stills and animations: upright, at eight bits, in order, every frame."""

import json
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from conftest import numbered_frames, read_number
from videopool.features import ReadPlan, load_clip
from videopool.features.loading import ClipJob, ClipRequest
from videopool.training_data import load_llava
from videopool.video import UniformSampler, UnreadableClipError, animation, bounds_to_span, open_clip

ORIENTATION = 0x0112
# What is done to a picture that is upright to store it under an EXIF orientation (TIFF 6.0, tag 274).
STORED = {
    1: lambda f: f,
    2: lambda f: f[:, ::-1],
    3: lambda f: f[::-1, ::-1],
    4: lambda f: f[::-1],
    5: lambda f: f.swapaxes(0, 1),
    6: lambda f: np.rot90(f),
    7: lambda f: f[::-1, ::-1].swapaxes(0, 1),
    8: lambda f: np.rot90(f, -1),
}


def picture(height=48, width=64):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 3, : width // 3], frame[height // 2 :, : width // 3] = (230, 30, 30), (20, 120, 220)
    return frame


def only(path):
    with open_clip(path) as clip:
        assert clip.info.num_frames == 1
        return clip.frames([0])[0]


def save_turned(path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}.get(path.suffix, {})
    Image.fromarray(np.ascontiguousarray(STORED[orientation](picture()))).save(path, exif=exif, **options)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", list(STORED))
def test_photos_are_upright(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    save_turned(path, orientation)
    got = only(path)
    assert got.shape == picture().shape
    assert np.abs(got.astype(int) - picture()).mean() < (4 if suffix == "jpg" else 0.01)


def test_photos_in_folders_and_in_training_are_upright(tmp_path):
    (tmp_path / "media" / "frames").mkdir(parents=True)
    for orientation in STORED:
        save_turned(tmp_path / "media" / "frames" / f"{orientation}.png", orientation)
    with open_clip(tmp_path / "media" / "frames") as clip:
        assert all(np.array_equal(frame, picture()) for frame in clip.frames(range(8)))
    entry = {"image": "frames/6.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"},
                                                        {"from": "gpt", "value": "A."}]}  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps([entry]))
    (example,) = load_llava(tmp_path / "data.json", tmp_path / "media", name="mine").examples

    def unchanged(images, return_tensors):
        import torch

        return {"pixel_values": torch.stack([torch.tensor(image).movedim(-1, 0) for image in images])}

    job = ClipJob(example.media, example.name, ())
    loaded = load_clip(ClipRequest(job), ReadPlan(UniformSampler(1), "pyav", unchanged))
    assert not loaded.error
    assert np.array_equal(loaded.pixels[0].movedim(0, -1).numpy(), picture())


def png(header, rows):
    """A PNG by its own definition, so that 16 bits and each kind of colour are what they say."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, depth, colour = header
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + (chunk(b"IDAT", data) + chunk(b"IEND", b""))
    )


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, colour, channels):
    deep = np.random.default_rng(0).integers(0, 1 << 16, (8, 32, channels)).astype(">u2")
    deep[0] = np.linspace(0, 65535, 32)[:, None].astype(int)
    (tmp_path / "a.png").write_bytes(png((8, 32, 16, colour), deep))
    got = only(tmp_path / "a.png").astype(int)
    colours = deep[..., :3] if channels >= 3 else deep[..., :1].repeat(3, -1)
    assert np.abs(got - colours / 257).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_colour(tmp_path, mode):
    image = Image.fromarray(picture())
    if mode == "I;16":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        image, truth = Image.fromarray(grey * 257), np.repeat(grey[..., None], 3, -1)
    else:
        image = image.quantize(8) if mode == "P" else image.convert(mode)
        truth = np.asarray(image.convert("RGB"))
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path, **({"quality": 100} if mode == "CMYK" else {}))
    assert np.abs(only(path).astype(int) - truth).mean() < (3 if mode == "CMYK" else 0.01)


@pytest.mark.parametrize(
    "names",
    [
        ["0.5", "1.0", "1.5", "2.0", "10.0"],
        ["-10", "-2", "-0.5", "0", "3", "10"],
        ["frame-1", "frame-2", "frame-10"],
        ["t_-2", "t_-1", "t_0", "t_11"],
        ["img_00001", "img_2", "img_00010", "img_10010"],
        ["scene1_9", "scene1_10", "scene2_1", "scene10_1"],
        ["2024-01-02_9", "2024-01-02_10", "2024-01-10_1"],
        ["shot.0009", "shot.0010", "shot.0100"],
        ["00-00-59", "00-01-05", "01-00-00"],
        ["9007199254740993", "9007199254740994"],
        ["cover", "frame1", "Frame2", "frame10"],
    ],
)
def test_frames_come_in_natural_order(tmp_path, names):
    frames = numbered_frames(len(names))
    for number in np.random.default_rng(0).permutation(len(names)):
        Image.fromarray(frames[number]).save(tmp_path / f"{names[number]}.png")
    for name in ("._1.png", ".hidden.png", "._" + names[0] + ".png", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "5.png.d").mkdir()
    (tmp_path / "6.png").mkdir()
    with open_clip(tmp_path) as clip:
        assert [read_number(frame) for frame in clip.frames(range(clip.info.num_frames))] == list(range(len(names)))


DURATIONS = [100, 100, 300, 500, 100, 200]


def cells(count=6):
    """RGBA layers of an animation: a small square that moves, nothing elsewhere."""
    layers = np.zeros((count, 40, 60, 4), np.uint8)
    for number, layer in enumerate(layers):
        layer[10:20, 8 * number : 8 * number + 8] = (40 * number + 20, 200, 100, 255)
    return layers


def apng(path, layers, durations, dispose, blend, default=None):
    """An animated PNG by its own definition."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def packed(image):
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in image))

    height, width = layers.shape[1:3]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))]
    parts.append(chunk(b"acTL", struct.pack(">II", len(layers), 0)))
    if default is not None:
        parts.append(chunk(b"IDAT", packed(default)))
    turn = 0
    for number, (layer, duration) in enumerate(zip(layers, durations, strict=True)):
        control = (turn, width, height, 0, 0, duration, 1000, dispose, blend)
        parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", *control)))
        turn += 1
        if number == 0 and default is None:
            parts.append(chunk(b"IDAT", packed(layer)))
        else:
            parts.append(chunk(b"fdAT", struct.pack(">I", turn) + packed(layer)))
            turn += 1
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))


def composed(layers, dispose, blend):
    """What is to be seen: layers that are wholly opaque or wholly clear, laid one over the other."""
    canvas, shown = np.zeros_like(layers[0]), []
    for number, layer in enumerate(layers):
        before = canvas.copy()
        canvas = layer.copy() if blend == 0 else np.where(layer[..., 3:] > 0, layer, canvas)
        shown.append(canvas[..., :3].copy())
        if dispose == 1 or (dispose == 2 and number == 0):
            canvas = np.zeros_like(canvas)
        elif dispose == 2:
            canvas = before
    return np.array(shown)


@pytest.mark.parametrize("suffix", ["png", "apng"])
@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("dispose", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_animated_png(tmp_path, suffix, default, dispose, blend):
    path = tmp_path / f"a.{suffix}"
    apng(path, cells(), DURATIONS, dispose, blend, default=np.full((40, 60, 4), 255, np.uint8) if default else None)
    truth = composed(cells(), dispose, blend)
    check_animation(path, truth)


def check_animation(path, truth):
    with open_clip(path) as clip:
        assert clip.info.num_frames == len(truth) == clip.readable()
        starts = np.cumsum([0, *DURATIONS[:-1]]) / 1000
        np.testing.assert_allclose(clip.info.timestamps, starts, atol=1e-6)
        assert clip.info.fps == pytest.approx(5 / starts[-1])
        assert bounds_to_span(clip.info, 0.2, 0.5) == (2, 3)
        for order in (range(6), [5, 0, 3, 3]):
            got = clip.frames(order)
            assert np.array_equal(got, truth[list(order)])


def test_animated_webp(tmp_path):
    layers = [Image.fromarray(frame) for frame in cells()]
    layers[0].save(tmp_path / "a.webp", save_all=True, append_images=layers[1:], duration=DURATIONS, lossless=True,
                   exact=True)  # fmt: skip
    check_animation(tmp_path / "a.webp", np.array([np.asarray(layer.convert("RGB")) for layer in layers]))


def gif(path, patches, durations, disposal):
    """A GIF by its own definition: patches of 10 x 8 on a canvas of 60 x 40, each with a table of two colours."""
    parts = [b"GIF89a", struct.pack("<HHBBB", 60, 40, 0, 0, 0)]
    for number, (colour, duration) in enumerate(zip(patches, durations, strict=True)):
        parts.append(b"\x21\xf9\x04" + struct.pack("<BHBB", disposal << 2, duration // 10, 0, 0))
        left, top, width, height = (0, 0, 60, 40) if number == 0 else (8 * number, 10, 8, 10)
        parts.append(b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0x80) + bytes(colour) + bytes(3))
        # Codes of 3 bits: 4 clears the table, so that it never grows; 0 is the first colour; 5 ends.
        bits = "101" + "000100" * (width * height)  # from the last code to the first
        data = int(bits, 2).to_bytes((len(bits) + 7) // 8, "little")
        blocks = [data[i : i + 255] for i in range(0, len(data), 255)]
        parts.append(b"\x02" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0")
    path.write_bytes(b"".join(parts) + b"\x3b")


@pytest.mark.parametrize("disposal", [0, 1, 3])
def test_animated_gif(tmp_path, disposal):
    colours = [(40 * number + 20, 200, 100) for number in range(6)]
    gif(tmp_path / "a.gif", colours, DURATIONS, disposal)
    with open_clip(tmp_path / "a.gif") as clip:
        assert clip.info.num_frames == 6
        np.testing.assert_allclose(clip.info.timestamps, np.cumsum([0, *DURATIONS[:-1]]) / 1000, atol=1e-6)
        for number, frame in enumerate(clip.frames(range(6))):
            for earlier in range(1, 6):
                patch = frame[10:20, 8 * earlier : 8 * earlier + 8]
                drawn = earlier == number or (earlier < number and disposal != 3)
                assert (patch == colours[earlier]).all() == drawn, (number, earlier)


def test_animated_gif_that_clears_each_frame(tmp_path):
    frames = np.zeros((6, 40, 60, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[10:20, 8 * number : 8 * number + 8] = (40 * number + 20, 200, 100)
    layers = [Image.fromarray(frame).quantize(16) for frame in frames]
    layers[0].save(tmp_path / "a.gif", save_all=True, append_images=layers[1:], duration=DURATIONS, disposal=2)
    check_animation(tmp_path / "a.gif", frames)


def test_evenly_spaced_animations_have_a_rate(tmp_path):
    layers = [Image.fromarray(frame) for frame in numbered_frames(5)]
    layers[0].save(tmp_path / "a.webp", save_all=True, append_images=layers[1:], duration=125, lossless=True)
    with open_clip(tmp_path / "a.webp", "decord") as clip:
        assert (clip.info.fps, clip.info.timestamps) == (8.0, None)
        assert [read_number(frame) for frame in clip.frames([4, 0])] == [4, 0]


def test_a_still_is_not_animated(tmp_path):
    for suffix in ("png", "webp", "jpg"):
        Image.fromarray(picture()).save(tmp_path / f"a.{suffix}")
        assert not animation(tmp_path / f"a.{suffix}")
    both = [Image.fromarray(picture()), Image.fromarray(picture()[::-1].copy())]
    both[0].save(tmp_path / "b.jpg", format="MPO", save_all=True, append_images=both[1:])
    assert only(tmp_path / "b.jpg").shape == picture().shape, "the second picture of a stereo camera is no frame"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_broken_images_are_one_error(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (b"", b"garbage", whole[: len(whole) // 2], whole[:40] + bytes(20) + whole[60:]):
        path.write_bytes(content)
        with suppress(UnreadableClipError):  # damage that the format does not notice
            only(path)
    path.write_bytes(b"garbage")
    with pytest.raises(UnreadableClipError) as caught:
        only(path)
    assert caught.value.path == str(path)


def test_images_from_the_field(shared):
    with open_clip(shared("field/animated_webp/anim.webp")) as clip:
        assert (clip.info.num_frames, clip.info.fps) == (6, 10.0)
        assert [int(frame.mean()) for frame in clip.frames(range(6))] == [0, 40, 80, 120, 160, 200]
    turned = only(shared("field/exif_photo/exif6.jpg"))
    assert turned.shape == (60, 40, 3)
    with Image.open(shared("field/exif_photo/exif6.jpg")) as image:
        assert np.array_equal(turned, np.rot90(np.asarray(image), -1))
    ramp = only(shared("field/png16/g16.png"))
    assert (ramp.min(), ramp.max()) == (0, 255)
    assert ramp.mean() == pytest.approx(127.5, abs=1)
    for name, order in (("frames_named_by_time/t2", ["0.5", "1.0", "1.5", "2.0", "10.0"]), ("apple_double/gaps", None)):
        folder = shared(f"field/{name}")
        files = order or [path.stem for path in sorted(folder.glob("img_*.png"))]
        with open_clip(folder) as clip:
            assert clip.info.num_frames == len(files)
            for index, stem in enumerate(files):
                assert np.array_equal(clip.frames([index])[0], only(folder / f"{stem}.png"))
