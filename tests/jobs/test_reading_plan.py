"""Training and evaluation read a clip alike: under every shipped pooling, and a user's that tiles or needs context."""

import json
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf, open_dict

from composed import opened
from conftest import numbered_frames
from own_poolings import First, Strip, Told
from random_models import like_mini
from videopool.config.choices import catalogued
from videopool.errors import UserError
from videopool.evaluation.run import evaluate
from videopool.features import ClipJob, FeatureStore, load_clip, request_clip
from videopool.inference import feature_key
from videopool.inference.read_plan import read_plan
from videopool.inference.reader import ClipReader
from videopool.jobs.finetune import run as finetune
from videopool.jobs.inspect import run as inspect_model
from videopool.jobs.norms import run as norms
from videopool.jobs.show import run as show
from videopool.models import load_backbone
from videopool.paths import shipped
from videopool.planning.cost import cost_of
from videopool.points.point import Point
from videopool.points.setting import StatedSetting
from videopool.pooling import (
    Adaptive,
    Chain,
    FrameCls,
    ImageGrid,
    NoPooling,
    PoolingContext,
    PoolingContractError,
    SlowFast,
    ThumbnailSampling,
    map_signature,
)
from videopool.reading import module
from videopool.shapes.clips import write_mp4
from videopool.training.point import TrainingPoint
from videopool.video import UniformSampler

pytestmark = pytest.mark.usefixtures("read_once")
FRAMES = 6
# Read as another shipped one, whose class they have and which needs as little: `adaptive`, `compress`, `chain`.
ALIKE = {"dtd", "even", "evs", "framefusion", "prunevid", "random", "vcast", "vidcom2", "st_gridpool"}
NAMES = sorted(path.stem for path in (shipped("conf") / "pooling").glob("*.yaml"))
SHIPPED = [name for name in NAMES if name not in ALIKE and not name.startswith("adaptive_")]
# The tower's width, and a threshold, that these files leave to be said.
SAID = {
    "attention_resampler": ["pooling.dim=32"],
    "dycoke": ["pooling.share=0.5"],  # of six frames, two stay whole
    "fastvid": ["pooling.selector.kind=tower", "pooling.allocator.by=mean"],  # the tower has no pooling head
}
STRIP = "own_poolings.Strip"
TOLD = "own_poolings.Told"
OWN = {
    "tiles": {"_target_": STRIP},
    "tiles in a chain": {
        "_target_": "videopool.pooling.Chain",
        "steps": [{"_target_": STRIP}, {"_target_": "videopool.pooling.Adaptive", "shape": [None, 6, 6]}],
    },
    "cls of tiles": {"_target_": "videopool.pooling.FrameCls", "inner": {"_target_": STRIP}},
    "own thumbnail": {"_target_": "own_poolings.First"},
    "thumbnail in a chain": {
        "_target_": "videopool.pooling.Chain",
        "steps": [{"_target_": "videopool.pooling.Adaptive"}, {"_target_": TOLD, "fields": ["thumbnail", "cls"]}],
    },
    "times of slow frames": {
        "_target_": "videopool.pooling.SlowFast",
        "slow_frames": 2,
        "slow": {"_target_": TOLD, "fields": ["frame_times"]},
        "fast": {"_target_": "videopool.pooling.Adaptive", "shape": [None, 2, 2]},
    },
    "all but text": {"_target_": TOLD, "fields": ["cls", "frame_times", "thumbnail"]},
    "attention of the tower": {"_target_": TOLD, "fields": ["saliency", "keys", "frame_times", "thumbnail"]},
    "text": {"_target_": TOLD, "fields": ["text"]},
    "text and times": {"_target_": TOLD, "fields": ["text", "frame_times"]},
}  # fmt: skip
OWN |= {name: {"_target_": TOLD, "fields": [name]} for name in ("frame_times", "cls", "thumbnail")}


@cache
def files():
    """Poolings by their files, in one composition."""
    with opened():
        return dict(zip(SHIPPED, catalogued(SHIPPED), strict=True))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return like_mini(tmp_path_factory.mktemp("model"))


@pytest.fixture
def media(tmp_path):
    """One clip, a question about it, and a conversation."""
    folder = tmp_path / "media"
    folder.mkdir()
    write_mp4(folder / "a.mp4", numbered_frames(20, 96, 128), 4)
    (tmp_path / "questions.csv").write_text("video_name,question,answer,a0,a1\na,what is it ?,red,red,blue\n")
    said = [{"from": "human", "value": "<video>\nwhat is it ?"}, {"from": "gpt", "value": "red"}]
    (tmp_path / "told.json").write_text(json.dumps([{"video": "a.mp4", "conversations": said}]))
    return tmp_path


@pytest.fixture
def configs(hydra_conf, media, data_dir):
    """Of training and of evaluation, alike, with a pooling by its file or in words."""

    def call(pooling, *words, of=("evaluate", "finetune")):
        feature_key._build.cache_clear()
        words = (
            f"results_dir={media}/results", f"data_dir={data_dir}", "logger=none", "job.workers=0", "features=none",
            "trainer.accelerator=cpu", f"frames.num={FRAMES}", "benchmark=clips", f"benchmark.root={media}/media",
            f"benchmark.questions={media}/questions.csv", *words,
        )  # fmt: skip
        training = (
            "training_data=llava", f"training_data.sources.llava.path={media}/told.json",
            f"training_data.sources.llava.root={media}/media", "training.steps=1", "training.global_batch=1",
            "training.micro_batch=1", "training.validation.share=0", "training.lora.rank=2", "job.evaluate=false",
            "training.warmup=0",
        )  # fmt: skip
        said = SAID.get(pooling, []) if isinstance(pooling, str) else []
        chosen = files()[pooling] if isinstance(pooling, str) else OmegaConf.create(pooling)
        found = [hydra_conf(f"job={job}", *words, *(training if job == "finetune" else ())) for job in of]
        for config in found:
            with open_dict(config):
                config.pooling = chosen
                config.merge_with_dotlist(said)
        return found

    return call


@pytest.fixture
def pooled(monkeypatch):
    """What poolings are given: (grid, context) in turn."""
    seen = []

    def spy(pooling, grid, context=None):
        parts = {one.name: getattr(context, one.name) for one in fields(PoolingContext)}
        held = {name: None if one is None else one.detach().clone() for name, one in parts.items()}
        seen.append((grid.detach().clone(), PoolingContext(**held)))
        return before(pooling, grid, context)

    before = module.checked
    monkeypatch.setattr(module, "checked", spy)
    return seen


@pytest.mark.parametrize("pooling", [*SHIPPED, *OWN])
def test_training_and_evaluation_pool_the_same(configs, model, pooled, pooling):
    evaluation, training = configs(OWN.get(pooling, pooling), *model)
    evaluate(evaluation)
    ((grid, context),) = pooled
    pooled.clear()
    own = Point(evaluation).pooling
    if next(own.parameters(), None) is not None or "text" in own.needs:
        with pytest.raises(UserError, match=r"does not train|cannot be trained under"):
            finetune(training)
        return
    finetune(training)
    ((same, also),) = pooled
    assert grid.shape[1] == (1 if own.tiles else FRAMES)
    torch.testing.assert_close(same, grid, rtol=1e-4, atol=1e-4)
    for one in fields(PoolingContext):
        left, right = getattr(context, one.name), getattr(also, one.name)
        assert (left is not None) == (right is not None) == (one.name in own.needs), one.name
        if left is not None:
            torch.testing.assert_close(right, left, rtol=1e-4, atol=1e-4)
    if "thumbnail" in own.needs:  # not a frame in its place
        assert all(not torch.allclose(context.thumbnail, grid[:, frame]) for frame in range(FRAMES)) or pooling == (
            "own thumbnail"
        )


def view(frames):
    """Fixed features of a clip's views."""
    return torch.randn(1, frames, 145, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("videopool:shapes/mini_llava", name="mini")


def read(backbone, pooling, path):
    """A clip as every job reads it under a pooling."""
    plan = read_plan(UniformSampler(FRAMES), "pyav", backbone.image_processor, pooling)
    reader = ClipReader(backbone, pooling, "projector", FeatureStore(), plan, None)
    return reader, load_clip(request_clip(ClipJob(Path(path), "a", ()), plan, reader.store, None), plan)


def test_times_are_seconds_of_the_frames_clip_by_clip(backbone, tmp_path):
    """Two clips of other rates in one batch; a pooling that makes its tokens of the times alone."""

    class Times(Told):
        def pool(self, grid, context=None):
            return torch.ones_like(super().pool(grid, context)) * context.frame_times[None, :, None, None, None]

    clips = []
    for name, rate in (("slow", 2), ("fast", 10)):
        write_mp4(tmp_path / f"{name}.mp4", numbered_frames(20, 96, 96), rate)
        reader, clip = read(backbone, Times(["frame_times"]), tmp_path / f"{name}.mp4")
        np.testing.assert_allclose(clip.times, [index / rate for index in clip.indices], rtol=1e-6)
        clips.append(clip)
    tokens = reader.tokens_of(clips, torch.cat([view(FRAMES)] * 2)).states[..., 0].reshape(2, FRAMES, -1)
    for clip, own in zip(clips, tokens, strict=True):
        torch.testing.assert_close(own, torch.tensor(clip.times, dtype=own.dtype)[:, None].expand_as(own))
    reader, clip = read(backbone, Strip(), tmp_path / "slow.mp4")
    torch.testing.assert_close(reader.frame_times(clip).double(), torch.tensor([np.mean(clip.times)]))


@pytest.mark.parametrize("pooling", [NoPooling(), ThumbnailSampling(1, 2, 10), Strip()])
@pytest.mark.parametrize("wrong", [-1, 1])
def test_features_of_other_views_than_the_plan_has_are_refused(backbone, tmp_path, pooling, wrong):
    write_mp4(tmp_path / "a.mp4", numbered_frames(8, 96, 96), 4)
    reader, clip = read(backbone, pooling, tmp_path / "a.mp4")
    assert clip.pixels.shape[0] == len(set(clip.views))
    reader.tokens_of([clip], view(len(clip.views)))
    with pytest.raises(AssertionError):
        reader.tokens_of([clip], view(len(clip.views) + wrong))


def layouts(pooling, frames=FRAMES):
    plan = read_plan(UniformSampler(frames), "pyav", None, pooling)
    return [None if one is None else one.layout for one in (plan.tile, plan.thumbnail)]


def test_images_are_named_by_what_is_made_of_frames():
    """Equal labels do not share features, other tokens beside equal thumbnails do."""

    class Reversed(Strip):
        def tile(self, frames):
            return super().tile(frames[::-1])

        @property
        def label(self):
            return "strip"

    assert layouts(Strip()) == layouts(Chain([Strip(), Adaptive((None, 3, 3))])) == layouts(FrameCls(Strip()))
    assert len({str(layouts(one)) for one in (Strip(), Reversed(), ImageGrid(3, 2), ImageGrid(2, 3), NoPooling())}) == 5
    assert layouts(ThumbnailSampling(3, 2, 5)) == layouts(ThumbnailSampling(3, 2, 50)) == layouts(Told(["thumbnail"]))
    assert len({str(layouts(one)) for one in (ThumbnailSampling(3, 2), ThumbnailSampling(2, 3), First())}) == 3
    both = [map_signature(one, FRAMES, 4, 4) for one in (Strip(), Reversed())]
    assert both[0] != both[1]
    assert map_signature(ThumbnailSampling(3, 2), 8, 4, 4) != map_signature(ThumbnailSampling(2, 3), 8, 4, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chain([Adaptive(), Strip()]), "must be the first step"),
        (lambda: SlowFast(2, Strip(), Adaptive()), "pooling.slow: Strip tiles frames"),
        (lambda: layouts(Beside()), "parts of it need different thumbnails"),
        (lambda: layouts(Wrong()), r"tile must make one image, uint8 \[1, height, width, 3\], got float64 \(6, "),
        (lambda: layouts(Untold()), "Untold failed in tile"),
        (lambda: layouts(Beyond()), r"shown\(6\) must name some of the frames, got \[99\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_together_is_told(make, message):
    with pytest.raises(PoolingContractError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


class Beside(Told):
    def __init__(self):
        super().__init__(["thumbnail"])
        self.one = First()
        self.other = ThumbnailSampling(2, 2)


class Wrong(Strip):
    def tile(self, frames):
        return frames / 255


class Untold(NoPooling):
    tiles = True


class Beyond(First):
    def shown(self, frames):
        return [99]


JOBS = [("evaluate", evaluate), ("finetune", finetune), ("norms", norms), ("plan", cost_of), ("plan", StatedSetting),
        ("inspect", inspect_model), ("show", show)]  # fmt: skip


@pytest.mark.parametrize(("job", "run"), JOBS, ids=[f"{job} {run.__name__}" for job, run in JOBS])
def test_what_is_no_pooling_is_one_line_in_every_job(configs, job, run):
    (config,) = configs({"_target_": "builtins.dict"}, of=(job,))
    with pytest.raises(UserError) as caught:
        run(config)
    assert str(caught.value) == "pooling: dict is not a videopool.pooling.Pooling"


def test_what_is_no_pooling_of_images_is_one_line(configs):
    (config,) = configs("none", of=("finetune",))
    with open_dict(config):
        config.job.image_pooling = OmegaConf.create({"_target_": "builtins.dict"})
    with pytest.raises(UserError, match=r"^image_pooling: dict is not a videopool.pooling.Pooling$"):
        TrainingPoint(config)
