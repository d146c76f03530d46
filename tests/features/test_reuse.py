"""Points that share a store: what is decoded, and that the numbers are those of a point that shares nothing."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from adapters import TARGETS, adapter_in_tower
from composed import composed
from pretended import Devices, spread
from random_models import like_mini, save
from videopool.evaluation import evaluator as evaluator_module
from videopool.evaluation.run import evaluate
from videopool.features import ClipDataset, ClipJob, FeatureStoreError, LoadedClip
from videopool.features.upkeep import holdings, prune, verify
from videopool.inference import feature_key
from videopool.inference.backbones import own_backbone
from videopool.inference.feature_key import feature_source, processor_hash
from videopool.inference.read_plan import group_by_clip, read_plan
from videopool.models import Backbone, load_backbone
from videopool.models.loading import load_image_processor
from videopool.points.point import Point
from videopool.reading.answers import STEPS_UNCHECKED
from videopool.training.batches import MicroBatch

pytestmark = pytest.mark.usefixtures("read_once")
SMALL = ["logger=none", "job.workers=0", "benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1"]
SMALL.append("+benchmark.tasks=[existence,object_count,scene,moving_count,event_count,event_order]")
PLAIN = ["pooling=adaptive_4x6x6", "frames.num=4"]


class Ran:
    """What a point left behind, and what it took."""

    def __init__(self, folder):
        self.folder = Path(folder)
        lines = (self.folder / "records.jsonl").read_text().splitlines()
        self.records = [json.loads(line) for line in lines]
        self.metrics = json.loads((self.folder / "metrics.json").read_text())
        self.identity = json.loads((self.folder / "run.json").read_text())["identity"]
        self.frames = (self.metrics["frames_decoded"], self.metrics["frames_from_store"])

    @property
    def needed(self):
        """Frames that the points' clips show, each once."""
        clips = {record["clip"]: set(record["frame_indices"]) for record in self.records}
        return sum(map(len, clips.values()))


@pytest.fixture
def compose_(tmp_path, data_dir):
    small = [f"results_dir={tmp_path}/results", f"data_dir={data_dir}", f"+kept={tmp_path}/kept", *SMALL]

    def call(*words):
        root = ["features.root=${kept}"] if "features=disk" in words else []
        return composed(*small, *root, *words)

    return call


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return like_mini(tmp_path_factory.mktemp("small"))


@pytest.fixture
def run(compose_, small):
    """A point in this process; with fresh=True as if in a new process, so that only the disk is shared.

    It is of a small model, unless the words need the toy model or another.
    """
    count = iter(range(1000))

    def call(*words, fresh=True):
        if fresh:
            feature_key._build.cache_clear()
        own = {word.partition("=")[0] for word in words}
        if not own & {"model", "lora", "pooling._target_"}:
            words = (*(word for word in small if word.partition("=")[0] not in own), *words)
        return Ran(evaluate(compose_(*words, f"study=s{next(count)}")).folder)

    return call


def test_a_sweep_over_nested_frames_encodes_those_of_its_largest_count(videopool, tmp_path):
    """As many frames in the store as the point with most of them shows."""
    words = ("frames=nested", "pooling=average", "benchmark.limit=1", "features=disk", f"features.root={tmp_path}/kept")
    videopool("-m", "frames.num=2,4,8", *words, "study=s")
    points = [Ran(path.parent) for path in (tmp_path / "results" / "s").glob("*/metrics.json")]
    few, some, most = sorted(point.needed for point in points)
    assert (2 * few, 2 * some) == (some, most)
    kept = [path.name.split("-")[0].split(".") for path in (tmp_path / "kept").rglob("*.safetensors")]
    assert sum(map(len, kept)) == sum(point.metrics["frames_decoded"] for point in points) == most


def test_float32_gives_the_numbers_of_no_store_to_the_bit(run, monkeypatch):
    """Features, and with them all else: compared as the projector gets them, and as records."""
    seen = []
    whole = Backbone.grid

    def grid(self, features):
        seen.append(features.clone())
        return whole(self, features)

    monkeypatch.setattr(Backbone, "grid", grid)
    found = {}
    for name, words in {
        "none": ["features=none"],
        "cold": ["features=disk", "features.dtype=float32"],
        "warm": ["features=disk", "features.dtype=float32"],
        "own": ["features=disk", "features.dtype=null"],
        "memory": ["features=memory"],
    }.items():
        seen.clear()
        ran = run(*PLAIN, *words)
        found[name] = (list(seen), ran)
    assert found["warm"][1].frames == (0, found["cold"][1].needed)
    features, none = found.pop("none")
    assert none.identity["features"] is None
    for others, ran in found.values():
        assert len(features) == len(others)
        assert all(torch.equal(one, other) for one, other in zip(features, others, strict=True))
        assert ran.records == none.records
        assert ran.folder.name == none.folder.name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_rounded_point_is_the_same_cold_and_warm_and_in_memory(run, dtype):
    words = [*PLAIN, f"features.dtype={dtype}"]
    cold, warm, memory = (run(*words, f"features={kind}") for kind in ("disk", "disk", "memory"))
    assert (cold.frames, warm.frames) == ((cold.needed, 0), (0, cold.needed))
    assert cold.records == warm.records == memory.records
    assert {ran.identity["features"] for ran in (cold, warm, memory)} == {dtype}
    assert len({ran.folder.name for ran in (cold, warm, memory)}) == 1
    exact = run(*PLAIN, "features=none")
    assert exact.folder.name != cold.folder.name
    pairs = zip(exact.records, cold.records, strict=True)
    likely = [(one["option_logprobs"], other["option_logprobs"]) for one, other in pairs if "option_logprobs" in one]
    difference = max(abs(a - b) for one, other in likely for a, b in zip(one, other, strict=True))
    assert 0 < difference < (0.05 if dtype == "float16" else 0.4)


def test_poolings_stages_prompts_and_scoring_decode_nothing_again(run):
    first = run("features=disk", *PLAIN)
    for words in (
        ["pooling=none", "frames.num=4"],
        ["pooling=average", "frames.num=4"],
        [*PLAIN, "pooling.stage=encoder"],
        [*PLAIN, "prompt=vicuna"],
        [*PLAIN, "benchmark.scoring=generate"],
        [*PLAIN, "job.max_clips=3"],
    ):
        other = run("features=disk", *words)
        assert other.frames == (0, first.needed), words
        assert "decode" not in other.metrics["seconds"]
        assert "vision" not in other.metrics["seconds"]


def test_more_frames_decode_only_what_is_new(run):
    words = ["pooling=adaptive_4x6x6", "frames=linspace"]  # both ends are among four frames and among eight
    four, eight = (run("features=disk", *words, f"frames.num={num}") for num in (4, 8))
    shared = eight.needed - eight.frames[0]
    clips = {record["clip"]: set(record["frame_indices"]) for record in four.records}
    more = {record["clip"]: set(record["frame_indices"]) for record in eight.records}
    assert shared == eight.frames[1] == sum(len(more[clip] & clips[clip]) for clip in clips) > 0
    alone = run("features=memory", "features.dtype=float16", *words, "frames.num=8")
    assert alone.records == eight.records


def test_tiled_images_are_kept_as_such(run):
    words = ["experiment=baseline_ig_vlm", "features=disk"]
    first, second = run(*words), run(*words)
    assert (first.frames, second.frames) == ((first.needed, 0), (0, first.needed))
    assert first.records == second.records
    assert run("features=disk", "frames.num=6", "pooling=none").frames[1] == 0


@pytest.mark.parametrize("other", ["model", "layer", "reader", "precision", "attention"])
def test_what_makes_other_features_shares_none(run, tmp_path, other):
    one = save(tmp_path / "one", "llava")
    words = ["model=local", "prompt=plain", f"model.source={one}", "features=disk", *PLAIN]
    if other == "reader":
        pytest.importorskip("decord")
    first = run(*words)
    more = {"reader": ["job.reader=decord"], "attention": ["model.attention=eager"]}.get(other, [])
    more = ["trainer.precision=bf16-mixed"] if other == "precision" else more
    if other == "model":
        more = [f"model.source={save(tmp_path / 'two', 'llava', seed=1)}"]
    if other == "layer":
        more = [f"model.source={save(tmp_path / 'two', 'llava', layers=-1)}"]
    assert run(*words, *more).frames == (first.needed, 0)
    assert run(*words).frames == (0, first.needed)


def test_the_source_is_the_tower_not_the_whole_model(compose_, tmp_path):
    """Other language models behind one tower share its features; another weight in the tower does not."""
    config, folder = compose_("features=disk"), save(tmp_path / "one", "llava")
    backbone = load_backbone(str(folder))
    source = feature_source(config, backbone)
    again = load_backbone(str(folder))
    with torch.no_grad():
        again.parts.language_model.embed_tokens.weight += 1
        again.parts.multi_modal_projector.linear_1.weight += 1
    assert feature_source(config, again) == source
    changed = load_backbone(str(folder))
    with torch.no_grad():
        next(changed.tower("video").parameters()).view(-1)[0] += 1e-3
    assert feature_source(config, changed).tower != source.tower
    assert feature_source(config, load_backbone(str(folder), dtype="bfloat16")) != source
    assert source.shape == (37, 32)
    assert backbone.features(torch.zeros(1, 3, 48, 48)).shape[1:] == source.shape


def test_settings_of_the_image_processor_are_part_of_the_source(tmp_path):
    folder = save(tmp_path / "one", "llava")
    kept = processor_hash(load_image_processor(str(folder)))
    assert processor_hash(load_image_processor(str(folder))) == kept
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "resample": 2 if settings.get("resample") != 2 else 3}))
    assert processor_hash(load_image_processor(str(folder))) != kept


def test_damaged_entries_are_made_again_and_told_once(run, tmp_path, capfd):
    cold = run("features=disk", *PLAIN)
    for path in sorted((tmp_path / "kept").rglob("*.safetensors"))[:2]:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    capfd.readouterr()
    warm = run("features=disk", *PLAIN)
    assert capfd.readouterr().err.count("videopool: feature store: 8 damaged entries recomputed") == 1
    assert warm.records == cold.records
    assert warm.frames == (8, warm.needed - 8)
    assert run("features=disk", *PLAIN).frames == (0, cold.needed)
    assert "damaged" not in capfd.readouterr().err


SALIENT = ["pooling=none", "pooling._target_=own_poolings.Salient", "+pooling.tokens=8", "frames.num=4"]


def test_attention_is_kept_beside_the_features(run, tmp_path, capfd):
    """Under keys of its own: older entries stay, nobody else pays, and what is damaged is made again alone."""
    words = ["features=disk", "features.dtype=float16", "model=mini"]
    stored = lambda: {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*.safetensors")}  # noqa: E731
    plain = run(*words, *PLAIN)
    features = stored()
    cold = run(*words, *SALIENT)
    kept = stored()
    assert features.items() <= kept.items()
    assert (cold.frames, "vision" in cold.metrics["seconds"]) == ((plain.needed, 0), True)
    warm = run(*words, *SALIENT)
    assert (warm.frames, "vision" in warm.metrics["seconds"]) == ((0, plain.needed), False)
    assert cold.records == warm.records == run("features=memory", words[1], *SALIENT).records
    assert run(*words, *PLAIN).frames == (0, plain.needed)
    held = {held.words["layer"]: held for held in holdings(tmp_path / "kept")}
    assert set(held) == {"-1", "attention cls in block 4", "keys of block 4"}
    assert held["attention cls in block 4"].words["kept"] == "float32"
    assert held["keys of block 4"].words["kept"] == "float16"

    other = run(*words, *SALIENT, "+pooling.block=1")  # keys and attention of another block, the same features
    assert other.frames == (other.needed, 0)
    assert other.folder.name != cold.folder.name
    damaged = next(path for path in sorted(kept) if held["attention cls in block 4"].name in path.parts)
    damaged.write_bytes(kept[damaged][:-1] + bytes([kept[damaged][-1] ^ 1]))
    capfd.readouterr()
    again = run(*words, *SALIENT)
    assert capfd.readouterr().err.count("4 damaged entries recomputed") == 1
    assert again.records == cold.records
    assert again.frames == (4, cold.needed - 4)
    found = verify(tmp_path / "kept", lambda items, _: items)
    assert (found.damaged, found.segments) == ([], len(stored()))
    assert prune(tmp_path / "kept", 10**9)["damaged"] == 1
    assert run(*words, *SALIENT).frames == (0, plain.needed)


@pytest.mark.parametrize("why", ["unwritable", "too small", "full"])
def test_without_room_the_point_goes_on_and_says_so_once(run, tmp_path, capfd, monkeypatch, why):
    expected = run("features=memory", "features.dtype=float16", *PLAIN)
    words = ["features=disk", *PLAIN]
    if why == "unwritable":
        (tmp_path / "kept").write_text("a file")
    if why == "too small":
        words.append("features.limit_bytes=1000")
    if why == "full":
        monkeypatch.setattr("videopool.features.space.RESERVE_BYTES", 1 << 60)
    ran = run(*words)
    assert capfd.readouterr().err.count("feature store: ") == 1
    assert ran.records == expected.records
    assert ran.frames == (ran.needed, 0)


def test_a_limit_of_a_few_clips_changes_no_number(run, tmp_path):
    expected = run("features=disk", *PLAIN)
    sizes = [path.stat().st_size for path in (tmp_path / "kept").rglob("*.safetensors")]
    limit = 5 * max(sizes)
    for _ in range(2):
        assert run("features=disk", f"features.limit_bytes={limit}", *PLAIN).records == expected.records
    # The store is over the limit from the start, and nothing new had to be written.
    more = [f"features.limit_bytes={limit}", "pooling=adaptive_4x6x6", "frames.num=3"]
    assert run("features=disk", *more).records == run("features=memory", "features.dtype=float16", *more[1:]).records
    assert sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.safetensors")) <= limit


def test_a_value_out_of_range_ends_the_point_in_one_line(run, monkeypatch):
    whole = Backbone.encode_at_once
    monkeypatch.setattr(Backbone, "encode_at_once", lambda *given: [values * 1e5 for values in whole(*given)])
    few = ["features=disk", "benchmark.limit=3", *PLAIN]
    with pytest.raises(FeatureStoreError, match=r"say features\.dtype=bfloat16") as caught:
        run(*few)
    assert "\n" not in str(caught.value)
    run(*few, "features.dtype=bfloat16")


def test_a_clip_that_goes_in_between_fails_alone(run, tmp_path, data_dir, monkeypatch):
    """Its features are gone from the store after the clips were looked up, and it cannot be read again."""
    run("features=disk", *PLAIN)
    looked_up = evaluator_module.ClipDataset

    def then_lose(jobs, plan, store, source):
        dataset = looked_up(jobs, plan, store, source)
        for path in (tmp_path / "kept").rglob("*.safetensors"):
            path.unlink()
        lost = dataset.jobs[0].clip
        state = type(plan).state
        monkeypatch.setattr(type(plan), "state", lambda self, job: None if job.clip == lost else state(self, job))
        return dataset

    monkeypatch.setattr(evaluator_module, "ClipDataset", then_lose)
    ran = run("features=disk", "job.max_failed_fraction=0.5", *PLAIN)
    failed = [record for record in ran.records if record["status"] != "ok"]
    assert {record["status"] for record in failed} == {"unreadable_video"}
    assert len({record["clip"] for record in failed}) == 1
    assert ran.metrics["n_failed"] >= 1


def test_a_sweep_in_a_second_process_opens_no_video(videopool, tmp_path):
    """As a user runs it."""
    words = [*SMALL, "job.workers=1", "features=disk", f"features.root={tmp_path}/kept"]
    for study in ("first", "second"):
        videopool("-m", *words, "pooling=none,average", "frames.num=2", f"study={study}")
    first, second = (
        {path.parent.name: Ran(path.parent) for path in (tmp_path / "results" / study).glob("*/metrics.json")}
        for study in ("first", "second")
    )
    assert first.keys() == second.keys()
    assert sorted(bool(ran.frames[0]) for ran in first.values()) == [False, True], "the second pooling decodes nothing"
    for name, ran in second.items():
        assert ran.frames == (0, ran.needed)
        assert ran.records == first[name].records


@pytest.mark.parametrize("where", [*TARGETS, "field"])
def test_lora_scales_never_share_features_that_lora_changes(run, tmp_path, shared, where):
    """In a sweep over alpha each point has the numbers of a point that shares nothing, whatever LoRA reaches."""
    own = shared("field/lora_in_tower") if where == "field" else adapter_in_tower(tmp_path / where, TARGETS[where])
    words = ["pooling=average", "frames.num=1", "benchmark.tasks=[existence,event_order]"]
    lora = ["lora=tuned", f"lora.checkpoint={own}"]
    alone = {alpha: run(*words, *lora, f"lora.alpha={alpha}", "features=none").records for alpha in (0, 32)}
    assert alone[0] != alone[32]
    for kind in ("memory", "disk", "disk"):
        swept = {
            a: run(*words, *lora, f"lora.alpha={a}", f"features={kind}", "features.dtype=null", fresh=a == 0).records
            for a in alone
        }
        assert swept == alone


def test_names_tell_every_two_alphas_apart(compose_, tmp_path):
    own = adapter_in_tower(tmp_path / "tower", TARGETS["tower"])
    alphas = [0, 1e-7, 1e16, 1e-16, 0.1, 1 / 3, 0.333333, 0.3333333, 32, 32.000001, 1000000, 1000001]
    points = [Point(compose_("lora=tuned", f"lora.checkpoint={own}", f"lora.alpha={alpha}")) for alpha in alphas]
    assert len({point.name for point in points}) == len(alphas)
    assert "alpha-32-" in points[8].name


@pytest.fixture
def calls(monkeypatch):
    """Numbers of frames in the calls of the tower."""
    seen, whole = [], Backbone.encode_at_once
    monkeypatch.setattr(
        Backbone, "encode_at_once", lambda self, frames, *more: seen.append(len(frames)) or whole(self, frames, *more)
    )
    return seen


def test_the_tower_takes_frames_of_several_clips_at_once(run, calls):
    """However many: the same point, the same answers."""
    found = {}
    for size in (5, 1000):
        calls.clear()
        found[size] = run("features=none", *PLAIN, f"features.frames_at_once={size}", "job.max_clips=2")
        needed, batches = found[size].needed, -(-found[size].needed // 8)  # of two clips with four frames each
        assert (sum(calls), max(calls)) == (needed, min(size, 8))
        assert len(calls) == sum(-(-min(8, needed - 8 * batch) // size) for batch in range(batches))
    assert len({ran.folder.name for ran in found.values()}) == 1
    assert found[5].records == found[1000].records


@pytest.mark.parametrize("part", ["tower", "clips", "questions"])
def test_lack_of_memory_makes_smaller_chunks_and_the_same_answers(run, calls, monkeypatch, capfd, part):
    words = ["features=none", *PLAIN, "benchmark.scoring=generate", "job.max_clips=4"]
    expected = run(*words)
    where, limit, said = {
        "tower": ((Backbone, "encode_at_once"), 3, "frames at once; going on with 2"),
        "clips": ((evaluator_module, "prefill_clips"), 1, "clips at once; going on with 1"),
        "questions": (None, 0, ""),
    }[part]
    if where is None:
        words.append("job.max_cache_bytes=1")
    else:
        whole = getattr(*where)

        def short_of_memory(first, second, *more):
            if len(second) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(first, second, *more)

        monkeypatch.setattr(*where, short_of_memory)
    capfd.readouterr()
    ran = run(*words)
    assert said in capfd.readouterr().err
    assert (ran.records, ran.folder.name) == (expected.records, expected.folder.name)


@pytest.mark.parametrize("scoring", ["likelihood", "cloze", "generate"])
def test_a_batch_waits_for_the_device_a_few_times(compose_, small, scoring):
    """However many clips, frames and questions it has: for each call of the tower, and for each pass over questions."""
    config = compose_(
        *small, "features=none", *PLAIN, f"benchmark.scoring={scoring}", "benchmark.limit=3",
        "benchmark.max_new_tokens=8",
    )  # fmt: skip
    point = Point(config)
    backbone = own_backbone(point.model)
    plan = read_plan(point.sampler, "pyav", backbone.image_processor, point.pooling)
    source = feature_source(config, backbone)
    dataset = ClipDataset(group_by_clip(point.benchmark.samples), plan, point.store, source)
    batch = [dataset[place] for place in range(8)]
    expected = evaluator_module.Evaluator(backbone, point, plan, source).predict_step(batch)
    with Devices() as devices, torch.inference_mode():
        evaluator = evaluator_module.Evaluator(spread(backbone, ("model.vision_tower",)), point, plan, source)
        devices.counts.clear()
        assert evaluator.predict_step(batch) == expected
    tower, finite, ended = 8 * 4 // 16, 1, 8 // STEPS_UNCHECKED
    waits = finite + (ended if scoring == "generate" else 0)
    assert +devices.counts == {"copies": tower + (scoring != "generate"), "waits": waits}


def test_loaders_pin_the_pixels_of_clips(monkeypatch):
    """As a DataLoader does it where there is an accelerator."""
    pinned, job = [], ClipJob(Path("a.mp4"), "a", ())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda own: pinned.append(own) or own)
    clips = [LoadedClip(job, pixels=torch.zeros(2, 3, 4, 4)), LoadedClip(job)]
    assert pin_memory(clips) == clips
    assert pin_memory(MicroBatch(0, 1, clips)).clips == clips
    assert [len(one) for one in pinned] == [2, 2]
