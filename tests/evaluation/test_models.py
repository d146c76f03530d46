"""Other models than the mini one, checkpoints and published baselines, through job=evaluate."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.errors import HydraException

from composed import composed
from conftest import TASKS
from random_models import ADDED, FAMILIES, lora_checkpoint, save, save_added
from videopool.errors import UserError
from videopool.evaluation.run import evaluate
from videopool.models import ModelError, load_backbone
from videopool.paths import shipped
from videopool.results import load_study

pytestmark = pytest.mark.usefixtures("read_once")


@pytest.fixture
def run(tmp_path, data_dir):
    """job=evaluate in this process on a small shapes benchmark; gives the point's folder."""
    small = [f"results_dir={tmp_path}/results", f"data_dir={data_dir}", "logger=none", "job.workers=0"]
    shapes = ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1", TASKS]

    def call(*words):
        extra = [] if any(w.startswith("benchmark=clips") for w in words) else shapes
        return Path(evaluate(composed(*small, *extra, *words)).folder)

    return call


def records_of(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def point_of(folder):
    return json.loads((folder / "run.json").read_text())["point"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return request.param, save(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("scoring", ["likelihood", "cloze", "generate"])
def test_every_family_answers_the_embedded_benchmark(run, family, scoring):
    name, folder = family
    chosen = ["model=local", "prompt=plain", f"model.source={folder}", f"model.name={name}", "frames.num=3"]
    done = run(*chosen, "pooling=adaptive", "pooling.shape=[2,3,3]", f"benchmark.scoring={scoring}", f"study={scoring}")
    records = records_of(done)
    assert len(records) == 4
    assert {record["status"] for record in records} == {"ok"}
    assert {record["visual_tokens"] for record in records} == {18 + (name == "llava_onevision")}
    assert point_of(done)["visual_tokens"] == records[0]["visual_tokens"]


@pytest.fixture(scope="module", params=ADDED)
def new_family(request, tmp_path_factory):
    return request.param, save_added(tmp_path_factory.mktemp(request.param), request.param)


ASKS = ["model=local", "prompt=plain", "frames.num=3"]


@pytest.mark.parametrize("scoring", ["likelihood", "cloze", "generate"])
def test_families_with_texts_around_frames_answer_the_embedded_benchmark(run, new_family, scoring):
    """Under a pooling that spreads its tokens; the table's number of tokens is that of the records."""
    name, folder = new_family
    words = [*ASKS, f"model.source={folder}", f"model.name={name}", f"benchmark.scoring={scoring}", f"study={scoring}"]
    words += ["model.frame_size=48"] if "qwen" in name else []
    if name == "qwen2_5_vl":
        done = run(*words, "pooling=subsample", "pooling.tokens=5", "positions=original")
        assert {(record["status"], record["visual_tokens"]) for record in records_of(done)} == {("ok", 5)}
        return
    chosen = run(*words, "pooling=subsample", "pooling.tokens=5")
    block = run(*words, "pooling=subsample", "pooling.tokens=5", "layout=block")
    for done in (chosen, block):
        records = records_of(done)
        assert {record["status"] for record in records} == {"ok"}
    fewest = 5 + (name == "llava_video")
    assert {record["visual_tokens"] for record in records} == {fewest}
    assert "block" in block.name
    assert min(record["visual_tokens"] for record in records_of(chosen)) > fewest
    rows = load_study(chosen.parent).set_index("layout")
    clips = {record["clip"]: record["visual_tokens"] for record in records_of(chosen)}
    assert rows.visual_tokens["frames"] == pytest.approx(sum(clips.values()) / len(clips))
    assert rows.visual_tokens["block"] == fewest


def test_poolings_without_places_are_told_to_stand_in_a_block(run, new_family):
    words = [*ASKS, f"model.source={new_family[1]}", "pooling=dual_mean"]
    words += ["model.frame_size=48"] if "qwen" in new_family[0] else []
    if new_family[0] == "qwen2_5_vl":
        pytest.skip("nothing stands among its tokens")
    with pytest.raises(UserError, match=r"layout=frames: tokens of pooling .* say layout=block"):
        run(*words)
    assert {record["status"] for record in records_of(run(*words, "layout=block"))} == {"ok"}


def test_every_family_describes_real_clips(run, family, shared):
    name, folder = family
    done = run(
        "model=local", "prompt=plain", f"model.source={folder}", f"model.name={name}", "frames.num=4",
        "benchmark=clips", f"benchmark.root={shared('videos')}", "benchmark.max_new_tokens=4", "pooling=average",
    )  # fmt: skip
    assert len(records_of(done)) == 3


def test_added_families_describe_real_clips(run, new_family, shared):
    name, folder = new_family
    done = run(
        *ASKS, f"model.source={folder}", f"model.name={name}", "benchmark=clips", f"benchmark.root={shared('videos')}",
        "benchmark.max_new_tokens=4", "pooling=visionzip", *(["model.frame_size=48"] if "qwen" in name else []),
    )  # fmt: skip
    assert [record["status"] for record in records_of(done)] == ["ok"] * 3


def test_video_llavas_own_tokens_need_its_tower(run, tmp_path):
    video = save(tmp_path / "v", "video_llava")
    done = run("model=local", "prompt=plain", f"model.source={video}", "pooling=frame_cls", "frames.num=2")
    assert point_of(done)["visual_tokens"] == 2 * 37
    siglip = save(tmp_path / "s", "llava_onevision")
    with pytest.raises(ModelError, match="needs cls, which"):
        run("model=local", "prompt=plain", f"model.source={siglip}", "pooling=frame_cls", "frames.num=2", "study=other")


SCALED = {
    "n_frame": [],
    "pllava": ["pooling.shape=[16,6,6]"],
    "video_chatgpt": ["frames.num=16"],
    "ig_vlm": [],
    "slowfast_llava": ["frames.num=20", "pooling.slow_frames=4"],
    "llava_next_video": ["frames.num=16"],
    "video_llava": ["frames.num=4"],
}
TOKENS = {
    "n_frame": 4 * 144,
    "pllava": 16 * 36,
    "video_chatgpt": 16 + 144,
    "ig_vlm": 144,
    "slowfast_llava": 4 * 72 + 20 * 16,
    "llava_next_video": 16 * 36,
    "video_llava": 4 * 145,
}


@pytest.mark.parametrize("name", sorted(p.stem.removeprefix("baseline_") for p in shipped("experiments").glob("b*")))
def test_every_baseline_runs_on_the_mini_model(run, name):
    """The very command that its file gives."""
    text = (shipped("experiments") / f"baseline_{name}.yaml").read_text()
    command = ["experiment=baseline_" + name, "model=mini", *SCALED[name]]
    assert f"# On the toy model: videopool {shlex.join(command)}\n" in text
    for word in ("# Source:", "# Published:", "# Settings:"):
        assert word in text
    done = run(*command)
    assert point_of(done)["visual_tokens"] == TOKENS[name]
    assert {record["status"] for record in records_of(done)} == {"ok"}


def test_one_image_shows_all_frames(run):
    """The image of six frames is one view for the tower: kept as such, and other frames make another."""
    folder = run("experiment=baseline_ig_vlm", "model=mini")
    assert {len(record["frame_indices"]) for record in records_of(folder)} == {6}
    with pytest.raises(UserError, match=r"need frames\.num=6"):
        run("experiment=baseline_ig_vlm", "model=mini", "frames.num=5")


@pytest.fixture
def checkpoint(tmp_path):
    base = load_backbone("videopool:shapes/mini_llava")
    return lora_checkpoint(base, tmp_path / "checkpoint")[0]


def test_alpha_is_an_axis_of_one_loaded_model(run, checkpoint, tmp_path, monkeypatch):
    """Four alphas load one model; alpha 0 is not the untouched base; points are told apart and kept."""
    from videopool.inference import backbones

    loads = []

    def counted(**settings):
        loads.append(settings)
        return load_backbone(**settings)

    backbones._loaded.clear()
    monkeypatch.setattr(backbones, "load_backbone", counted)
    folders = [
        run("lora=pllava", f"lora.checkpoint={checkpoint}", f"lora.alpha={a}", "frames.num=1") for a in (0, 4, 8)
    ]
    assert len(loads) == 1
    again = run("lora=pllava", f"lora.checkpoint={checkpoint}", "lora.alpha=4", "frames.num=1", "study=again")
    assert len(loads) == 1
    base = run("frames.num=1")
    probabilities = {f: [r.get("option_logprobs") for r in records_of(f)] for f in (*folders, again, base)}
    assert probabilities[again] == probabilities[folders[1]]
    assert len({json.dumps(p) for p in probabilities.values()}) == 4
    table = load_study(tmp_path / "results" / "default")
    assert sorted(table.model) == ["mini", "mini alpha 0", "mini alpha 4", "mini alpha 8"]
    assert sorted(table.lora_alpha.dropna()) == [0, 4, 8]
    assert table.fingerprint.nunique() == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frames.num=64"], "9216 tokens do not fit mini's context of 8192"),
        (["lora.alpha=4"], "there is no lora.checkpoint to scale"),
        (["lora=pllava"], "lora.checkpoint is not given"),
        (["lora=pllava", "lora.checkpoint=./nowhere"], "lora.checkpoint=./nowhere: nowhere is no folder"),
        (["lora=pllava", "lora.checkpoint={checkpoint}", "lora.alpha=-1"], "lora.alpha=-1"),
        (["model.dtype=float8"], "model.dtype='float8'"),
        (["model.rope_factor=0.1"], "model.rope_factor must be a number of at least 1, got 0.1"),
        (["trainer.accelerator=gpu"], "trainer"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(run, checkpoint, words, message):
    with pytest.raises((UserError, HydraException)) as caught:
        run(*(word.replace("{checkpoint}", checkpoint) for word in words))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_compat_reads_answers_and_short_clips_the_references_way(run):
    """One switch: the generated letter by the first word, and shapes stretched to what was asked."""
    asked = ["pooling=adaptive", "pooling.shape=[1,24,24]", "frames.num=1", "benchmark.scoring=generate"]
    ours, theirs = run(*asked), run(*asked, "compat=pllava")
    assert (point_of(ours)["visual_tokens"], point_of(theirs)["visual_tokens"]) == (144, 576)
    for record in records_of(theirs):
        assert record["prediction"].startswith("(")
        place = max(i for i, option in enumerate(record["options"]) if option == record["answer"])
        letter, first = f"({'abcdefg'[place]})", record["prediction"].lower().split(" ")[0]
        followed = any(known in first for known in "abcdefg")
        assert record["score"] == float(followed and (first.replace(".", "") in letter or letter in first))
    assert "parsing" in json.loads((theirs / "run.json").read_text())["identity"]


def test_references_for_a_judge_are_not_compared_word_by_word(tmp_path):
    from videopool.benchmarks import Sample
    from videopool.evaluation.records import score_of

    sample = Sample("a", tmp_path, "a", "what happens?", answer="a dog runs")
    assert score_of(sample, True) == 1
    assert score_of(replace(sample, judged=True), False) is None
    assert score_of(replace(sample, answer=""), False) is None
