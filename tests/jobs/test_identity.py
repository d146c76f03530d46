"""Which leaves of a configuration change the fingerprint: each of them, or it is listed here with a reason.

A leaf is changed to another value that is allowed where it stands. A key that is new, and neither changes the
fingerprint nor is listed, fails; so does a listed one that does change it.
"""

import json
import sys
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from adapters import TARGETS, adapter_in_tower
from composed import opened
from conftest import numbered_frames
from random_models import save_qwen
from videopool.config import build
from videopool.config.choices import catalogue, catalogued
from videopool.errors import UserError
from videopool.evaluation.run import point_of
from videopool.measuring.settings import check, choose_clips, identify
from videopool.paths import shipped
from videopool.results import fingerprint
from videopool.shapes.clips import write_mp4
from videopool.training.point import TrainingPoint

WHERE = "where results and what can be made again lie"
FAST = "how fast, and in how much memory"
TOLD = "what is told, and to whom"
OUTSIDE = "rounding alone; each attempt says it, and a point whose attempts differ says so"
EFFORT = "how hard is tried; what fails is told as failed"
UNUSED = "not read by this job, or only to compose what is"
RESOLVED = "the samples that come of it count, and the contents of their clips"

ASKED = "refused without places, or alone; see test_positions_and_pruning_count"
EVERYWHERE = {
    "positions": ASKED, "pruning.*": ASKED,
    "study": WHERE, "results_dir": WHERE, "data_dir": WHERE, "force": "done again, the same way", "baseline": TOLD,
    "figures": TOLD,
    "logger.*": TOLD, "features._target_": FAST, "features.limit_bytes": FAST, "features.root": WHERE,
    "features.frames_at_once": FAST,
    "job.name": UNUSED, "job.workers": FAST, "job.max_failed_fraction": EFFORT,
    "model.name": TOLD, "model.attention": OUTSIDE, "model.device_map": FAST, "model.max_memory": FAST,
    **{f"model.tower.{key}": "refused or without effect alone; see test_changes_of_the_tower_count"
       for key in ("neurons", "replace", "layer", "times_median")},
    "model.frame_size": "refused: the tower takes views of one size; see test_a_size_of_views_counts",
    "model.pooling": "refused: of a folder that records one; see tests/jobs/test_merge.py",
    "model.shape": "of job=plan; read from the model itself", "model.revision": "the content of the folder counts",
    "model.source": "the content of the folder counts",
    "trainer._target_": UNUSED, "trainer.accelerator": OUTSIDE, "trainer.devices": FAST, "trainer.strategy": FAST,
}  # fmt: skip
BENCHMARK = {
    "benchmark.root": RESOLVED, "benchmark.annotations": RESOLVED, "benchmark.prefixes": RESOLVED,
    "benchmark.recursive": RESOLVED, "benchmark.repeated_ids": RESOLVED, "benchmark.bounds_in_name": RESOLVED,
    "benchmark._target_": RESOLVED, "benchmark.folders.*": RESOLVED,
    "benchmark.split_sizes": "which files are refused", "benchmark.bad_rows": "which files are refused; the rest count",
}  # fmt: skip
EVALUATE = {
    **EVERYWHERE, **BENCHMARK, "job.columns": TOLD, "job.max_visual_tokens": FAST, "job.max_clips": FAST,
    "job.max_cache_bytes": FAST,
    "lora.checkpoint": "the content of the folder counts",
    "judge.store": WHERE, "judge.key_env": "a key says who asks", "judge.timeout": EFFORT,
    "judge.concurrency": FAST, "judge.retries": EFFORT, "judge.backoff": EFFORT, "judge.device": FAST,
}  # fmt: skip
API = {
    **{key: why for key, why in EVALUATE.items() if not key.startswith("judge.")},
    "model.key_env": "a key says who asks", "model.timeout": EFFORT, "model.concurrency": FAST,
    "model.retries": EFFORT, "model.backoff": EFFORT,
    "pooling._target_": "nothing is pooled", "trainer.precision": UNUSED, "features.dtype": UNUSED,
    "pooling.stage": "nothing is pooled", "compat.expand": UNUSED, "compat.pad_frames": UNUSED,
    "judge._target_": UNUSED, "judge.store": UNUSED,
    "compat.longest": "frames go as they are", "layout": "nothing is pooled",
    "lora.*": "none may be given", "model.rows": "tied to each other: another is refused",
    "model.cols": "tied to each other: another is refused", "frames.num": "tied to each other: another is refused",
}  # fmt: skip
NORMS = {
    **EVALUATE,
    **{f"judge.{key}": "nothing is graded" for key in ("_target_", "base_url", "model", "max_tokens")},
    **{f"benchmark.{key}": "nothing is scored" for key in ("scoring", "max_new_tokens", "groups.*", "answers")},
    "benchmark.headline": "nothing is scored", "benchmark.columns.answer": "nothing is scored",
    "benchmark.columns.question_type": "nothing is scored", "benchmark.columns.question_id": "nothing is scored",
    "benchmark.task_names": "nothing is scored", "compat.scoring": "nothing is scored", "job.save_every": FAST,
    "prompt.open_answer_prefix": "options are put", "prompt.open_ended": "options are put",
}  # fmt: skip
LOCAL = {"judge.source": "the content of the folder counts", "judge.revision": "the content of the folder counts"}
OWN = "of the evaluation behind it, which has a fingerprint of its own"
FINETUNE = {
    **EVERYWHERE, "benchmark.*": OWN, "judge.*": OWN, "compat.*": "what interpolates it counts",
    "job.evaluation.*": OWN, "job.evaluate": OWN,
    "lora.*": "none may be given", "training.micro_batch": FAST, "training.checkpoint_gradients": FAST,
    "job.checkpoint_every": FAST, "job.export_every": "what is kept on the way",
    "training_data.sources.*._target_": UNUSED,
    "training_data.sources.*.root": RESOLVED, "training_data.sources.*.path": RESOLVED,
    "prompt.*": "the conversations count that are written with it",
    "training_data.sources.*.prompt.*": "the conversations count that are written with it",
}  # fmt: skip
MAY = ("prompt.*", "compat.*")  # of FINETUNE: counts where something is made with it

# Other values than the general rules give; the first that is allowed is taken.
VALUES = {
    "layout": ["block"],
    "model._target_": ["videopool.models.families.Llava"],
    "model.dtype": ["bfloat16"], "features.dtype": ["bfloat16", "float16"], "trainer.precision": ["bf16-mixed"],
    "trainer.strategy": ["ddp"], "trainer.accelerator": ["cpu"], "model.attention": ["eager", "sdpa"],
    "model.device_map": ["auto"], "pooling.stage": ["encoder"], "compat.scoring": ["pllava"],
    "job.reader": ["decord"], "pooling.mode": ["max"], "pooling.shape": [[2, 3, 3]],
    "benchmark.scoring": ["generate", "cloze"], "benchmark.columns.question": ["asked"], "benchmark.limit": [1],
    "benchmark.columns.answer": ["other"], "benchmark.columns.question_type": ["sort"],
    "benchmark.columns.question_id": ["number"], "benchmark.columns.video_name": ["clip"],
    "benchmark.columns.start": ["begin"], "benchmark.columns.end": ["finish"], "benchmark.columns.fps": ["rate"],
    "benchmark.columns.options": [["choices"]], "benchmark.answers": ["index"], "benchmark.task_names": [{"a": "b"}],
    "benchmark.groups.all": [["a"]], "benchmark.headline": [None], "benchmark.kind": ["events"],
    "benchmark.split": ["train", "other"], "model.view": ["frames"], "model.format": ["png"],
    "model.base_url": ["http://localhost:8000/v2", "https://localhost:8000/v1"],
    "judge.base_url": ["http://localhost:8000/v2"], "judge.key_env": [None], "model.key_env": [None],
    "judge._target_": ["other_classes.Judge"], "judge.dtype": ["float32"], "judge.device": ["cpu"],
    "job.stages": [["encoder"]],
    "job.rules.absolute": [[20.0]], "job.rules.massive": [[50, 500]], "job.tower_scores": [["received.1"]],
    "job.p": [3], "job.attention_layers": [[2]], "frames._target_": ["other_classes.Sampler", "other_classes.Even"],
    "pooling._target_": ["other_classes.Pooling"], "job.export": ["best"],
    "job.image_pooling._target_": ["other_classes.Mean"], "job.image_pooling.axis": ["space"],
    "training.layout._target_": ["other_classes.Layout"], "benchmark.repeated_ids": ["number"],
    "job.sources": [["shapes"]], "training.lora.targets": [["q_proj"]], "training.betas": [[0.8, 0.9]],
    "training.tflops": [1.0], "training.steps": [7], "benchmark.id": ["other"], "model.shape": [None],
    "prompt._target_": ["other_classes.Template"], "model.rope_factor": [2.0], "lora.projector": [0.5],
    "model.tower.register": ["zeros"],
    **{
        f"training_data.sources.{name}.{key}": [value]
        for name in ("shapes", "shapes_images")
        for key, value in (("kind", "clips"), ("split", "validation"), ("tasks", ["existence"]), ("rounds", 1))
    },
}  # fmt: skip


OTHERS = """
from videopool.benchmarks import Prompt
from videopool.judges import EndpointJudge
from videopool.points.judge import local_judge
from videopool.pooling import Adaptive, Average
from videopool.training_data import ConversationLayout
from videopool.video import RandomSampler, UniformSampler

class Pooling(Adaptive): pass
class Mean(Average): pass
class Sampler(RandomSampler): pass
class Even(UniformSampler): pass
class Template(Prompt): pass
class Layout(ConversationLayout): pass
class Judge(EndpointJudge): pass
def local(**settings): return local_judge(**settings)
"""


@pytest.fixture(autouse=True)
def other_classes(tmp_path, monkeypatch):
    """Classes that are as ours, but the user's own."""
    (tmp_path / "other_classes.py").write_text(OTHERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("other_classes", None)


def leaves(node, before=""):
    """Dotted keys of all values that are no mappings."""
    for key in node:
        name = f"{before}{key}"
        value = OmegaConf.select(node, str(key), throw_on_missing=False)
        if isinstance(value, DictConfig) and len(value):
            yield from leaves(value, f"{name}.")
        else:
            yield name


def others(key, value):
    """Values that are not this one."""
    if key in VALUES:
        return [one for one in VALUES[key] if one != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2, value - 1, 0.5]
    if isinstance(value, float):
        return [one for one in (value / 2, value + 0.1, value * 2) if one != value]
    if isinstance(value, str):
        return [f"{value}x", f"{value} x"]
    if value is None:
        return [1, 0.5, "x", ["x"]]
    return [list(value)[:-1] or ["x"], [*value, "x"]]


def listed(key, known):
    parts = key.split(".")
    tries = [key, *(".".join([*parts[:n], "*"]) for n in range(1, len(parts)))]
    starred = ["*" if n == 2 else part for n, part in enumerate(parts)]
    tries += [".".join(starred), ".".join([*starred[:4], "*"])]
    return any(one in known for one in tries)


MADE = {}


@pytest.fixture(autouse=True)
def built_once(monkeypatch):
    """What equal settings build is built once: thousands of configurations here differ in one leaf."""
    anew = build.instantiate

    def instantiate(settings, **more):
        key = json.dumps([settings, more], sort_keys=True, default=lambda one: type(one).__name__)  # plugins
        if key not in MADE:
            MADE[key] = anew(settings, **more)
        return MADE[key]

    monkeypatch.setattr(build, "instantiate", instantiate)


@contextmanager
def changed(config, key, value):
    """The configuration with another value, until it is left."""
    part = key.split(".")[0]
    before = deepcopy(config._get_node(part))
    with open_dict(config):
        OmegaConf.update(config, key, value, merge=False)
    try:
        yield
    finally:
        config._content[part] = before


def wrong(config, identity, known, may=(), group=""):
    """Leaves (of a group) against the rule: "still" if unlisted and without effect, "counts" if listed and with one."""
    found = {}
    before = fingerprint(identity(config))
    for key in leaves(config):
        if key.split(".")[0] == "hydra" or not key.startswith(group):
            continue
        outcome = "refused"
        for value in others(key, OmegaConf.select(config, key)):
            try:
                with changed(config, key, value):
                    outcome = "still" if fingerprint(identity(config)) == before else "counts"
            except UserError:
                continue
            break
        allowed = {"still", "refused", *(["counts"] if listed(key, may) else [])} if listed(key, known) else {"counts"}
        if outcome not in allowed:
            found[key] = outcome
    return found


@pytest.fixture
def sheet(tmp_path):
    """A sheet of questions whose every column has another beside it; its clips."""
    for name in ("v", "w"):
        write_mp4(tmp_path / f"{name}.mp4", numbered_frames(4, 96, 96))
    row = {"video_name": "v", "clip": "v.mp4", "question": "?", "asked": "what?", "answer": "1", "other": "2",
           "options": ["1", "2", "0"], "choices": ["2", "1", "0"], "question_id": "x", "number": "y",
           "question_type": "a", "sort": "b", "start": 0, "begin": 0.2, "end": 2, "finish": 1, "rate": 2}  # fmt: skip
    open_row = {
        **row,
        "video_name": "w",
        "clip": "w.mp4",
        "question_id": "z",
        "number": "w",
        "options": None,
        "choices": None,
        "question_type": "b",
    }
    path = tmp_path / "sheet.json"
    path.write_text(json.dumps([open_row, row]))
    return ["benchmark=qa_sheet", f"benchmark.root={tmp_path}", f"benchmark.annotations={path}",
            "benchmark.answers=text", "benchmark.columns.options=[options]",
            "benchmark.groups={all: [a, b]}", "benchmark.headline=all", f"results_dir={tmp_path}/r"]  # fmt: skip


JUDGE = ["judge=openai", "judge.base_url=http://localhost:8000/v1", "judge.model=m", "judge.key_env=KEY"]
MODEL = ["lora=tuned", "lora.alpha=32", "frames=random", "frames.num=4", "features.dtype=float16", "pooling=adaptive",
         "pooling.shape=[2,4,4]"]  # fmt: skip


def test_evaluate(hydra_conf, sheet, tmp_path):
    own = adapter_in_tower(tmp_path / "own", TARGETS["projector"])
    config = hydra_conf(*sheet, *JUDGE, *MODEL, f"lora.checkpoint={own}", f"data_dir={tmp_path}")
    assert wrong(config, lambda one: point_of(one).identity(), EVALUATE) == {}


def test_positions_and_pruning_count(hydra_conf, sheet, tmp_path):
    words = [*sheet, "pooling=none", "frames.num=2", f"data_dir={tmp_path}"]
    fastv = ["pruning=fastv", "pruning.layer=1", "pruning.share=0.5"]
    ways = ([], ["positions=original"], fastv, [*fastv, "pruning.layer=2"], [*fastv, "pruning.share=0.25"])
    assert len({fingerprint(point_identity(hydra_conf(*words, *more))) for more in ways}) == len(ways)


def test_a_size_of_views_counts(hydra_conf, sheet, tmp_path):
    """Of a model that takes any; the default has no entry of its own."""
    source = save_qwen(tmp_path / "m")
    words = [*sheet, "model=local", f"model.source={source}", "prompt=plain", "frames.num=2"]
    sizes = ("null", 48, 64, "clip", "[256,4096]", "[256,8192]")
    made = {fingerprint(point_identity(hydra_conf(*words, f"model.frame_size={size}"))) for size in sizes}
    assert len(made) == len(sizes)


def test_changes_of_the_tower_count(hydra_conf, sheet, tmp_path):
    words = [*sheet, "pooling=none", "frames.num=2", f"data_dir={tmp_path}"]
    moved = ["model.tower.register=test_time", "model.tower.neurons=[[1,2]]"]
    replaced = ["model.tower.replace=mean", "model.tower.layer=2"]
    other = [[*moved[:1], "model.tower.neurons=[[1,3]]"], [*replaced[:1], "model.tower.layer=3"]]
    ways = ([], ["model.tower.register=2"], moved, replaced, [*moved, *replaced], *other,
            [*replaced, "model.tower.times_median=4"])  # fmt: skip
    assert len({fingerprint(point_identity(hydra_conf(*words, *more))) for more in ways}) == len(ways)
    with pytest.raises(UserError, match=r"model\.tower\.neurons: \[9, 2\]: mini has blocks 1\.\.4"):
        point_of(hydra_conf(*words, moved[0], "model.tower.neurons=[[9,2]]")).fit()


def point_identity(config):
    return point_of(config).identity()


def own_class(target):
    """A class of the user's own that is as one of ours."""
    module, _, name = target.rpartition(".")
    made = type(f"Own{name}", (getattr(import_module(module), name),), {"__module__": "other_classes"})
    setattr(import_module("other_classes"), made.__name__, made)
    return f"other_classes.{made.__name__}"


# Other words for settings that are one of a few words; the first that is allowed is taken.
WORDS = {"mode": ["max", "avg", "direction", "random", "bilinear"], "axis": ["space", "time"], "within": ["clip"],
         "metric": ["key"], "expand": [True], "pad_frames": [7], "scoring": ["pllava", "strict"],
         "longest": [320]}  # fmt: skip
# Of the choice itself: there is no pooling head here, and a narrow resampler is built sooner.
OWN = {"fastvid": {"selector": {"kind": "tower"}, "allocator": {"by": "mean"}}, "attention_resampler": {"dim": 32}}


@cache
def poolings():
    """Choices of the group `pooling` by name, in one composition."""
    with opened():
        return dict(zip(catalogue(), catalogued(catalogue()), strict=True))


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, path.stem) for group in ("pooling", "frames", "prompt", "compat")
     for path in sorted((shipped("conf") / group).glob("*.yaml")) if path.stem != "chat_template"],
)  # fmt: skip
def test_every_choice_of_a_group(hydra_conf, sheet, tmp_path, monkeypatch, group, name):
    import_module("other_classes")
    words = {"frames": [], "compat": ["pooling=adaptive", "pooling.shape=[2,4,4]"]}.get(group, ["frames.num=4"])
    chosen = [] if group == "pooling" else [f"{group}={name}"]
    config = hydra_conf(*sheet, *words, *chosen, f"data_dir={tmp_path}")
    if group == "pooling":
        with open_dict(config):
            config.pooling = OmegaConf.merge(poolings()[name], OWN.get(name, {}))
    for key in leaves(config[group], f"{group}."):
        value = OmegaConf.select(config, key)
        if (leaf := key.rpartition(".")[2]) in WORDS:
            monkeypatch.setitem(VALUES, key, WORDS[leaf])
        elif leaf == "_target_" and isinstance(import_object(value), type):
            monkeypatch.setitem(VALUES, key, [own_class(value)])
    # A refused value cannot run, and so not silently; some settings have no other value under this model.
    found = wrong(config, point_identity, EVALUATE, group=f"{group}.")
    assert {key for key, outcome in found.items() if outcome != "refused"} == set()


def import_object(target):
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def mvbench(folder):
    entry = {"video": "a.mp4", "question": "q", "candidates": ["x", "y"], "answer": "y", "start": 1, "end": 2}
    (folder / "video" / "tvqa" / "frames_fps3_hq" / "v").mkdir(parents=True)
    (folder / "json").mkdir()
    for task, own in (("action_count", entry), ("episodic_reasoning", {**entry, "video": "v"})):
        rows = [{**own, "number": f"{task}{number}", "question": f"q{number}"} for number in range(2)]
        (folder / "json" / f"{task}.json").write_text(json.dumps(rows))
    return ["benchmark.tasks=[action_count, episodic_reasoning]"]


def video_mme(folder):
    rows = [{"videoID": "v", "question_id": length, "question": "q", "options": ["A. x", "B. y"], "answer": "A",
             "duration": length, "domain": "d", "sub_category": "s", "task_type": "t"}
            for length in ("short", "long")]  # fmt: skip
    (folder / "test.json").write_text(json.dumps(rows))
    return [f"benchmark.annotations={folder}/test.json", "benchmark.groups={some: [short], d: [d]}",
            "benchmark.headline=some"]  # fmt: skip


def vcgbench(folder):
    row = {"Q": "q?", "A": "a", "video_name": "v"}
    for part, own in (("generic", row), ("temporal", row), ("consistency", {**row, "Q1": "r?", "Q2": "s?"})):
        (folder / f"{part}_qa.json").write_text(json.dumps([own, {**own, "A": "b"}]))
    return [f"benchmark.annotations={folder}"]


def qa_pairs(folder):
    for name, ids in (("test", "12"), ("other", "21")):
        asked = [{"video_name": "v", "clip": "w", "question": f"q{n}", "asked": f"p{n}", "question_id": n}
                 for n in ids]  # fmt: skip
        told = [{"answer": f"{name} {n}", "type": "t", "question_id": n} for n in "12"]
        (folder / f"{name}_q.json").write_text(json.dumps(asked))
        (folder / f"{name}_a.json").write_text(json.dumps(told))
    return [f"benchmark.annotations={folder}"]


def sheet_of_clips(folder):
    row = {"video_name": "v", "clip": "v.mp4", "question": "?", "asked": "what?", "answer": 1, "other": 2,
           "options": ["1", "2", "0"], "choices": ["2", "1", "0"], "question_id": "x", "number": "y",
           "question_type": "a", "sort": "b", "start": 0, "begin": 0.2, "end": 2, "finish": 1, "fps": 1,
           "rate": 2}  # fmt: skip
    for name, own in (("q", row), ("other", {**row, "question": "who?"})):
        (folder / f"{name}.json").write_text(json.dumps([own, {**own, "question_id": "z", "number": "w"}]))
    return [f"benchmark.questions={folder}/q.json", "benchmark.columns.options=[options]"]


BENCHMARKS = {
    "mvbench": (mvbench, {"benchmark.tasks": [["action_count"]], "benchmark.id_field": ["number"]}),
    "video_mme": (video_mme, {"benchmark.tasks": ["domain"], "benchmark.groups.some": [["long"]]}),
    "vcgbench": (vcgbench, {"benchmark.parts": [["generic"]]}),
    "qa_pairs": (qa_pairs, {"benchmark.questions": ["other_q.json"], "benchmark.answers": ["other_a.json"],
                            "benchmark.columns.question_id": [[]], "benchmark.task_names": [{"t": "u"}]}),
    "clips": (sheet_of_clips, {"benchmark.answers": ["index", "number"]}),
    "recaption": (lambda folder: [], {}),
}  # fmt: skip
NO_SHEET = dict.fromkeys(("benchmark.answers", "benchmark.columns.*", "benchmark.questions"), "there is no sheet")
COUNTS_BY_NAME = ("benchmark.folders.*",)  # a clip's folder is part of its name


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_kind_of_benchmark(hydra_conf, tmp_path, monkeypatch, name):
    write, values = BENCHMARKS[name]
    (tmp_path / "v.mp4").touch()
    (tmp_path / "w.mp4").touch()
    words = [f"benchmark={name}", f"benchmark.root={tmp_path}", f"data_dir={tmp_path}", *write(tmp_path)]
    config = hydra_conf(*words)
    scoring = {"benchmark.scoring": ["cloze", "generate", "likelihood"]}
    if name == "clips":
        values = {**values, "benchmark.questions": [f"{tmp_path}/other.json"]}
    if name == "video_mme":
        values = {**values, "benchmark.subtitles": [{"root": str(tmp_path), "name": "{videoID}.srt"}]}
    for key, others in {**scoring, **values}.items():
        monkeypatch.setitem(VALUES, key, others)
    joined = {"benchmark.columns.question_id": "joins questions and answers"}
    known = {**EVALUATE, **{"recaption": NO_SHEET, "qa_pairs": joined}.get(name, {})}
    assert wrong(config, point_identity, known, COUNTS_BY_NAME, group="benchmark.") == {}


def test_a_local_judge(hydra_conf, sheet, tmp_path, monkeypatch):
    import_module("other_classes")
    monkeypatch.setitem(VALUES, "judge._target_", ["other_classes.local"])
    model = Path(shipped("conf")).parent / "src" / "videopool" / "shapes" / "mini_llava"
    config = hydra_conf(*sheet, "judge=local", f"judge.source={model}", f"data_dir={tmp_path}")
    assert wrong(config, point_identity, {**EVALUATE, **LOCAL}, group="judge.") == {}


def test_evaluate_an_api(hydra_conf, sheet, tmp_path):
    words = ["model=api", "model.base_url=http://localhost:8000/v1", "model.model=m", "model.rows=2", "frames.num=4"]
    config = hydra_conf(*sheet, *words, "benchmark.scoring=generate", f"data_dir={tmp_path}")
    assert wrong(config, lambda one: point_of(one).identity(), API) == {}


def test_norms(hydra_conf, sheet, tmp_path):
    own = adapter_in_tower(tmp_path / "own", TARGETS["projector"])
    words = [*sheet, *JUDGE, *MODEL, "job=norms", f"lora.checkpoint={own}", f"data_dir={tmp_path}"]
    config = hydra_conf(*words, "job.attention_layers=[1]", "model.attention=eager")

    def identity(one):
        job, point = check(one), point_of(one)
        return identify(job, point, choose_clips(point, job["clips"]))

    assert wrong(config, identity, NORMS) == {}


def test_finetune(hydra_conf, data_dir, tmp_path):
    sources = ("shapes", "shapes_images")
    small = [f"training_data.sources.{name}.{key}" for name in sources for key in ("clips=12", "per_task=1")]
    small.append("training_data.sources.shapes.kind=images")  # which are rendered in no time
    words = [
        "job=finetune",
        "training_data=[shapes,shapes_images]",
        *small,
        "frames=random",
        "pooling=adaptive",
        "pooling.shape=[2,4,4]",
        "frames.num=4",
    ]
    config = hydra_conf(*words, "pooling@job.image_pooling=average", f"data_dir={data_dir}")
    assert wrong(config, lambda one: TrainingPoint(one).identity(), FINETUNE, MAY) == {}
