"""job=show: a clip's pictures are the tower's pixels, its norms the tower's, its cells what poolings average."""

import numpy as np
import pytest
import torch
from PIL import Image

from composed import composed, opened
from conftest import numbered_frames, read_number
from videopool.errors import UserError
from videopool.film.clip import ClipPoint, ShownClip, ShownPooling
from videopool.jobs.show import run as show
from videopool.measuring.stages import parse_stages
from videopool.models import load_backbone
from videopool.points.setting import pooling_of
from videopool.pooling import Adaptive, Average, FrameCls, ImageGrid, NoPooling, Subsample, TextGuided
from videopool.shapes.clips import write_mp4
from videopool.video import UniformSampler, open_clip

MINI = "videopool:shapes/mini_llava"
FRAMES = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with a clip of numbered frames, one of another length, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("clips")
    for name, count in (("first", 40), ("second", 20)):
        frames = numbered_frames(count, 96, 96)
        frames[:, 60:, :, 0] = 255 - 5 * np.arange(count, dtype=np.uint8)[:, None, None]
        write_mp4(folder / f"{name}.mp4", frames)
    (folder / "torn.mp4").write_bytes((folder / "first.mp4").read_bytes()[:700])
    return folder


@pytest.fixture(scope="module")
def config(clips, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    fixed = ["job=show", f"results_dir={results}", f"frames.num={FRAMES}", "trainer.accelerator=cpu"]
    fixed += ["benchmark=clips", f"benchmark.root={clips}"]
    with opened():
        yield lambda *words: composed(*fixed, *words)


@pytest.fixture(scope="module")
def first(config, clips):
    return ShownClip(ClipPoint(config(f"clip={clips}/first.mp4")))


@pytest.fixture(scope="module")
def seen(clips):
    """Indices of the sampled frames, the frames, and their pixels as the tower gets them."""
    with open_clip(clips / "first.mp4", "pyav") as clip:
        indices = UniformSampler(FRAMES).indices(clip.info)
        frames = clip.frames(indices)
    return indices, frames, load_backbone(MINI).preprocess(frames)


def test_pictures_are_the_frames_that_the_tower_saw(first, seen):
    indices, frames, pixels = seen
    assert [read_number(255 * picture[:60]) for picture in first.plain.pictures] == indices
    assert pixels.shape[-2:] == frames.shape[1:3] == (96, 96)  # so nothing is resized, and colours must come back
    np.testing.assert_allclose(255 * first.plain.pictures, frames, atol=0.01)
    assert first.times == pytest.approx([index / 8 for index in indices])


def test_norms_are_those_of_the_models_own_states(first, seen):
    backbone = load_backbone(MINI)
    with torch.inference_mode():
        layers = backbone.parts.vision_tower(seen[2], output_hidden_states=True).hidden_states
        projected = backbone.parts.multi_modal_projector(layers[-1][:, 1:])
    stages = parse_stages(["encoder", "projector", "encoder.0", "encoder.3"], backbone.shape, "mini")
    expected = (layers[-1][:, 1:], projected, layers[0][:, 1:], layers[3][:, 1:])
    for stage, tokens in zip(stages, expected, strict=True):
        row = first.norm_row(stage, 2)
        assert row.over
        expected = np.linalg.norm(tokens.double().numpy(), axis=-1).reshape(FRAMES, 12, 12)
        np.testing.assert_allclose(np.stack(row.pictures), expected, rtol=1e-4)


def blocks(pictures, frames, cells):
    """Means of pictures [T, S, S, 3] over equal stretches of frames and equal squares of pixels."""
    count, side = len(pictures), pictures.shape[1]
    cut = pictures.reshape(frames, count // frames, cells, side // cells, cells, side // cells, 3)
    return cut.mean(axis=(1, 3, 5))


def test_cells_have_the_colours_of_the_pixels_they_average(first):
    pictures, times = first.plain.pictures, np.array(first.times)
    for pooling, frames, cells in ((NoPooling(), 6, 12), (Adaptive([3, 4, 4]), 3, 4), (Average("time"), 1, 12)):
        row = first.pooled_row(ShownPooling(pooling, "projector"))
        np.testing.assert_allclose(np.stack(row.pictures), blocks(pictures, frames, cells), atol=1e-4)
        spans = [] if frames == 6 else [f"{part.mean():.2f} s" for part in np.split(times, frames)]
        assert list(row.captions) == spans
        assert row.label == f"{pooling.label}\n{frames * cells * cells} tokens"


def test_only_the_patches_that_are_kept_have_a_colour(first):
    pooling = Subsample(50)
    shown = np.stack(first.pooled_row(ShownPooling(pooling, "encoder")).pictures)
    kept = np.zeros(FRAMES * 144, bool)
    kept[pooling.places(FRAMES * 144)] = True
    assert np.array_equal(np.isfinite(shown).all(axis=-1).ravel(), kept)
    np.testing.assert_allclose(
        shown.reshape(-1, 3)[kept], blocks(first.plain.pictures, 6, 12).reshape(-1, 3)[kept], atol=1e-4
    )


def test_patches_that_are_merged_have_a_colour_and_no_dot(config, first):
    """Of a compression that merges all patches have a colour and its tokens' places a dot; one that drops has none."""
    for name, merged in (("sttm", True), ("visionzip", True), ("evs", False)):
        shown = ShownPooling(*pooling_of(config(f"pooling={name}", "pooling.tokens=100")))
        row = first.pooled_row(shown)
        coloured = int(np.isfinite(np.stack(row.pictures)).all(axis=-1).sum())
        assert coloured == (FRAMES * 144 if merged else 100), name
        assert len(row.marks) == (FRAMES if merged else 0)
        if merged:
            assert np.stack(row.marks).sum() == 100


def test_norms_of_cells_are_those_of_what_the_language_model_reads(first, seen):
    backbone = load_backbone(MINI)
    with torch.inference_mode():
        states = backbone.parts.vision_tower(seen[2], output_hidden_states=True).hidden_states[-1][:, 1:]
        pooled = states.view(3, 2, 12, 12, -1).mean(1)
        expected = backbone.parts.multi_modal_projector(pooled).norm(dim=-1)
    row = first.pooled_row(ShownPooling(Adaptive([3, 12, 12]), "encoder"), 2)
    np.testing.assert_allclose(np.stack(row.pictures), expected.numpy(), rtol=1e-3)
    assert row.unit == "L2 norm"


def test_what_tokens_depend_on_beside_patches_is_said_and_tilings_are_one_picture(first):
    row = first.pooled_row(ShownPooling(FrameCls(NoPooling()), "encoder"))
    assert row.label.endswith(f"\n{FRAMES * 145} tokens, {FRAMES} from elsewhere")
    question = first.point.prompt.describe
    asked = first.pooled_row(ShownPooling(TextGuided([3, 4, 4]), "projector"))
    assert asked.label == f"text guided (temperature 0.01) 3x4x4 for: {question}\n48 tokens"
    (tiling,) = first.pooled_row(ShownPooling(ImageGrid(3, 2), "projector")).pictures
    frames = blocks(first.plain.pictures, 6, 1)[:, 0, 0]
    assert tiling.shape == (12, 12, 3)
    # Three rows of two, the picture's height, two thirds as wide; corners of tiles are like those of frames.
    for number, frame in enumerate(first.plain.pictures):
        top, left = 4 * (number // 2), 2 + 4 * (number % 2)
        own = tiling[top : top + 4, left : left + 4].mean(axis=(0, 1))
        np.testing.assert_allclose(own, frame.mean(axis=(0, 1)), atol=0.03)
    assert np.abs(frames[0] - frames[-1]).max() > 0.1


def test_a_figure_and_a_gif_from_the_command_line(videopool, clips, tmp_path):
    words = ["job=show", f"clip={clips}/second.mp4", "frames.num=4", "study=look", "pooling=adaptive_Tx6x6"]
    words += ["compat=pllava", "job.poolings=[none,adaptive_Tx6x6]"]
    done = videopool(*words, small=False, env={"VIDEOPOOL_FIGURES": "png,svg,pdf"})
    assert "done  show second.mp4" in done.stdout
    files = sorted((tmp_path / "results" / "look" / "show").iterdir())
    assert [path.suffix for path in files] == [".gif", ".pdf", ".png", ".svg"]
    assert {path.stem for path in files} == {files[0].stem}
    assert str(files[0].with_suffix("")) in done.stdout
    with Image.open(files[0]) as image:
        assert image.n_frames == 4
    svg = files[3].read_text()
    labels = [line for line in svg.splitlines() if line.strip().startswith("<!-- adaptive")]
    assert len(labels) == 1, "a pooling that is named twice is shown once"
    assert "adaptive Tx6x6 expand" in labels[0], "named poolings have the settings of this run"
    assert not (tmp_path / "data").exists(), "no benchmark is rendered for a clip of its own"


def test_a_benchmarks_clip_by_its_name(config, clips):
    assert ClipPoint(config()).clip.name == "first.mp4"
    for name in ("second", "second.mp4"):
        assert ClipPoint(config(f"clip={name}")).clip.clip == clips / "second.mp4"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["clip=third.mp4"],
            r"^clip=third\.mp4: no such file, and no clip of clips/own \(3: first\.mp4, second\.mp4, torn",
        ),
        (["clip=third.mp4", "benchmark.root=nowhere"], r"^clip=third\.mp4: no such file, and no benchmark .*nowhere"),
        (["clip=torn"], r"^clip: .*torn\.mp4: "),
        (["pooling=text_guided", "pooling.stage=encoder"], r"say pooling\.stage=projector"),
        (
            ["pooling=attention_resampler", "pooling.dim=128"],
            "attention resampler 64 depth 2 cannot be shown on frames",
        ),
        (["pooling=image_grid", "frames.num=4"], r"need frames\.num=6, got 4"),
        (["pooling.stage=llm"], r"^pooling\.stage='llm'"),
        (["pooling._target_=builtins.dict"], "dict is not a videopool.pooling.Pooling"),
        (["job.poolings=[none,all]"], r"^job\.poolings: there is no all in conf/pooling; there are adaptive, "),
        (["job.poolings=none"], r"^job\.poolings='none': give a list"),
        (["job.stages=[encoder,pooled]"], r"^job\.stages: pooled: choose from encoder, encoder\.<layer>, projector"),
        (["job.stages=[encoder.9]"], r"^job\.stages: encoder\.9: mini has layers 0\.\.4 there"),
        (["job.cells=size"], r"^job\.cells='size': choose one of colour, norm"),
        (["job.columns=0"], r"^job\.columns must be a whole number"),
        (["job.p=0"], r"^job\.p=0"),
        (["model=api", "model.model=any"], r"^model=api: nothing is known"),
        (["results_dir=/proc/none"], r"^/proc/none/default/show cannot be written"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_shown_is_told(config, words, told):
    with pytest.raises(UserError, match=told):
        show(config(*words))


def test_a_missing_clip_ends_in_one_line(videopool, clips):
    done = videopool("job=show", "clip=gone.mp4", "benchmark=clips", f"benchmark.root={clips}", small=False, check=1)
    assert "clip=gone.mp4: no such file" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
