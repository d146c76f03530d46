"""job=plan and job=inspect: costs and stages without weights, network or data."""

import csv
import json
import os
from dataclasses import asdict, replace

import pytest
from hydra import compose
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from rich.console import Console

from composed import composed as composed_
from composed import once, opened, seams_as
from videopool.config.errors import ConfigError
from videopool.jobs import multirun
from videopool.jobs import run as jobs_run
from videopool.jobs.inspect import stage_table
from videopool.jobs.plan import run as plan
from videopool.models import ModelError
from videopool.models.cost import parameter_count, prefill_flops
from videopool.models.shape import point_shape
from videopool.paths import shipped
from videopool.planning.cost import cost_of, plan_table, with_power, with_twins
from videopool.points.setting import StatedSetting
from videopool.pooling import PoolingShapeError
from videopool.results.statistics import detectable_difference
from videopool.runtime import sweep

MODELS = sorted(p.stem for p in (shipped("conf") / "model").glob("*.yaml") if p.stem not in ("local", "api"))
OFFLINE = {"https_proxy": "http://127.0.0.1:9"}  # nothing answers there
SEVEN_B = ("job=plan", "model=llava_next_vicuna_7b")


@pytest.fixture
def composed(tmp_path, monkeypatch):
    """Configurations as the command line makes them, in a folder where nothing is."""
    monkeypatch.chdir(tmp_path)
    return composed_


@pytest.fixture
def choices():
    """The configuration for some words, and what it chose of each group."""
    with opened(), seams_as(once()):

        def call(*words):
            config = compose("config", overrides=list(words), return_hydra_config=True)
            return config, config.hydra.runtime.choices

        yield call


def plan_rows(tmp_path, study="default"):
    with (tmp_path / "results" / study / "plan.csv").open() as file:
        return list(csv.DictReader(file))


def shown(table):
    console = Console(width=150, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_the_acceptance_command_on_a_clean_machine(videopool, tmp_path):
    words = ["-m", *SEVEN_B, "pooling=none,adaptive", "frames.num=4,16,64", f"data_dir={tmp_path}/nothing"]
    done = videopool(*words, small=False, env=OFFLINE)
    rows = plan_rows(tmp_path)
    assert [(r["pooling"], r["frames"], r["visual_tokens"]) for r in rows] == [
        ("none", "4", "2304"), ("none", "16", "9216"), ("none", "64", "36864"),
        ("adaptive 16x12x12", "4", "576"), ("adaptive 16x12x12", "16", "2304"), ("adaptive 16x12x12", "64", "2304"),
    ]  # fmt: skip
    assert float(rows[4]["prefill_tflops"]) == pytest.approx(32, rel=0.03)
    assert [bool(r["warnings"]) for r in rows] == [False, True, True, False, False, False]
    assert "9216 visual tokens and 256 of text do not fit the context of 4096" in done.stdout
    assert done.stdout.count("warning:") == 2
    assert done.stdout.count("visual tokens  ") == 1, "one table for all points"
    assert sorted(p.name for p in (tmp_path / "results" / "default").iterdir()) == [".sweep", "plan.csv"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results"]


def test_a_point_alone_prints_its_table_and_writes_nothing(videopool, tmp_path):
    done = videopool(*SEVEN_B, "pooling=adaptive", small=False, env=OFFLINE)
    assert "2304" in done.stdout
    assert "32.6" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_study_from_a_file_and_a_bad_point(videopool, tmp_path):
    done = videopool("-m", "job=plan", "experiment=quickstart", "frames.num=8,0", small=False, check=1)
    assert done.stderr.count("FAILED") == 6
    assert "frames.num must be a positive integer, got 0" in done.stderr
    assert "Traceback" not in done.stderr
    rows = plan_rows(tmp_path, "quickstart")
    assert {r["model"] for r in rows} == {"mini"}
    assert [r["visual_tokens"] for r in rows] == ["1152", "144", "288", "72", "144", "36"]
    assert {(r["benchmark"], r["clips"]) for r in rows} == {("shapes", "120")}
    assert {r["warnings"] for r in rows} == {""}
    assert not (tmp_path / "data").exists(), "nothing is rendered"
    assert not (tmp_path / "results" / "quickstart" / "sweep.csv").exists()


def test_points_that_end_in_any_order_are_listed_in_order(composed, choices, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_run, "settle", lambda code: pytest.fail("all points are complete"))
    monkeypatch.setattr(multirun, "settle", lambda code: pytest.fail("all points are complete"))
    callback, (config, _) = multirun.SweepCallback(), choices(*SEVEN_B, "study=s")
    callback.on_multirun_start(config)
    with open(os.environ[sweep.OUTCOMES], "w") as file:
        for number in (2, 0, 1):
            outcome = plan(composed(*SEVEN_B, f"frames.num={number + 1}"))
            file.write(json.dumps({"number": number, "job": "plan", **asdict(outcome)}) + "\n")
    callback.on_multirun_end(config)
    assert [r["frames"] for r in plan_rows(tmp_path, "s")] == ["1", "2", "3"]


def test_small_models_are_told_in_small_units(composed):
    mini = shown(plan_table([cost_of(composed("job=plan", "model=mini", "frames.num=1"))]))
    assert "prefill GFLOPs" in mini
    assert "KV cache MB" in mini
    assert "weights 7.06 MB in float32" in mini
    assert "prefill TFLOPs" in shown(plan_table([cost_of(composed(*SEVEN_B, "frames.num=1"))]))


def test_the_words_of_an_evaluation_are_taken(composed):
    words = ("job.max_visual_tokens=2304", "job.workers=0", "job.reader=decord", "pooling=adaptive")
    assert cost_of(composed(*SEVEN_B, *words))["clips_at_once"] == 1
    assert StatedSetting(composed("job=inspect", *words)).visual_tokens == 2304


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pooling=adaptive", "pooling.shape=[0,6,6]"], "three positive integers"),
        (["pooling.stage=llm"], "pooling.stage='llm'"),
        (["pooling=image_grid", "frames.num=5"], "frames.num=6"),
        (["pooling=frame_cls", "model=llava_onevision_7b"], "cls"),
        (["model.shape.layers=many"], "model.shape.layers must be a whole number of at least 1, got 'many'"),
        (["+model.shape.depth=3"], "model.shape: no such key: depth"),
        (["~model.shape.layers"], "model.shape: missing: layers"),
        (["model.dtype=int3"], "model.dtype=int3: choose one of"),
        (["model=local"], "model.source is not given"),
        (["model=local", "model.source=./nowhere"], "./nowhere"),
        (["job.text_tokens=-1"], "job.text_tokens must be a whole number of at least 0"),
        (["model.rope_factor=0.5"], "model.rope_factor=0.5"),
        (["model.tower.replace=mean", "model.tower.layer=99"], "model.tower.layer=99"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_built_ends_in_a_clear_line(composed, words, told, capsys, monkeypatch):
    codes = []
    monkeypatch.setattr(jobs_run, "settle", codes.append)
    monkeypatch.setattr(multirun, "settle", codes.append)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    jobs_run.run_and_tell(composed(*SEVEN_B, *words))
    captured = capsys.readouterr()
    assert codes == [1]
    assert told in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_planned_and_shown(composed, name):
    config = composed("job=plan", f"model={name}", "pooling=adaptive")
    row = cost_of(config)
    shape = point_shape(OmegaConf.to_container(config.model))
    assert row["model"] == (f"{name} alpha 4" if name.startswith("pllava") else name)
    moments = 16 // shape.together
    rows, columns = min(12, shape.height), min(12, shape.width)
    beside = shape.separators + shape.frame_text * (moments - 1) + shape.row_newlines * moments * rows
    assert row["visual_tokens"] == moments * rows * columns + beside
    json.dumps(row)
    parts = ("weights_gb", "kv_cache_gb")
    assert row["peak_memory_gb"] > sum(row[key] for key in parts)
    assert name in shown(plan_table([row]))
    text = shown(stage_table(StatedSetting(config)))
    assert f"[{moments}, {shape.height}, {shape.width}, {shape.dim}]" in text
    assert f"{shape.layers} layers" in text


def test_numbers_of_a_row(composed):
    row = cost_of(composed(*SEVEN_B, "pooling=adaptive", "frames.num=16"))
    assert row["weights_gb"] == pytest.approx(2 * 7.0634, rel=1e-4)
    assert row["kv_cache_gb"] == pytest.approx((2304 + 1024) * 32 * 4096 * 2 * 2 / 1e9)  # four questions of 256
    assert row["features_mb_per_clip"] == pytest.approx(16 * 577 * 1024 * 2 / 1e6)
    assert row["features_gb"] == pytest.approx(400 * row["features_mb_per_clip"] / 1e3)
    assert row["clips_at_once"] == 3
    assert row["projector_tflops"] == pytest.approx(2 * 16 * 576 * (1024 + 4096) * 4096 / 1e12)
    encoder = cost_of(composed(*SEVEN_B, "pooling=adaptive", "pooling.stage=encoder"))
    assert encoder["projector_tflops"] == pytest.approx(row["projector_tflops"] / 4)
    changed = cost_of(composed(*SEVEN_B, "frames.num=16", "pooling=adaptive", "model.tower.register=3"))
    layer = 2 * 3 * (4 * 1024**2 + 2 * 1024 * 4096) + 4 * 1024 * (580**2 - 577**2)
    assert changed["tower_tflops"] - row["tower_tflops"] == pytest.approx(16 * 23 * layer / 1e12)
    assert changed["hours"] > row["hours"]
    kept = cost_of(composed(*SEVEN_B, "features=none"))
    assert kept["features_gb"] == 0
    more = cost_of(composed(*SEVEN_B, "pooling=none", "pooling._target_=own_poolings.Salient", "frames.num=16"))
    assert more["features_mb_per_clip"] == pytest.approx(16 * 577 * ((1024 + 64) * 2 + 4) / 1e6)  # keys, saliency


def test_memory_counts_the_questions_that_are_read_at_once(composed):
    """25 generated answers on each of 14 clips of 576 tokens: all share their clip's KV cache."""
    words = (
        *SEVEN_B,
        "pooling=adaptive_4x6x6",
        "pooling.shape=[4,12,12]",
        "frames.num=16",
        "benchmark.scoring=generate",
    )
    words += ("benchmark=mvbench", "benchmark.root=nowhere", "job.clips=100", "job.text_tokens=50")
    cached = {}
    for questions, more in (
        (1, ()),
        (25, ()),
        (25, ("job.max_cache_bytes=1",)),
        (25, ("job.max_cache_bytes=5000000000",)),
    ):
        row = cost_of(composed(*words, f"job.samples={questions * 100}", "benchmark.max_new_tokens=50", *more))
        assert (row["visual_tokens"], row["clips_at_once"]) == (576, 14)
        cached[questions, *more] = row["kv_cache_gb"] / (2 * 32 * 4096 * 2 / 1e9)
        assert row["peak_memory_gb"] > row["weights_gb"] + 14 * row["kv_cache_gb"]
    assert list(cached.values()) == pytest.approx([676, 576 + 2500, 676, 576 + 500])


def test_hours_are_operations_at_a_speed(composed):
    """Clips once, questions after them, answers as long as they may be; nothing where numbers are unknown."""
    words = (*SEVEN_B, "pooling=adaptive", "benchmark=mvbench", "benchmark.root=nowhere", "job.text_tokens=100")
    sizes = ("job.clips=10", "job.samples=30")
    row, shape = cost_of(composed(*words, *sizes)), point_shape(composed(*words).model)
    clip = (row["prefill_tflops"] + row["tower_tflops"] + row["projector_tflops"]) * 1e12
    question = prefill_flops(shape, 2304 + 100) - prefill_flops(shape, 2304)
    assert row["hours"] == pytest.approx((10 * clip + 30 * question) / 125e12 / 3600)
    answered = cost_of(composed(*words, *sizes, "benchmark.scoring=generate", "benchmark.max_new_tokens=32"))
    longer = prefill_flops(shape, 2304 + 132) - prefill_flops(shape, 2304)
    assert answered["hours"] == pytest.approx((10 * clip + 30 * longer) / 125e12 / 3600)
    assert cost_of(composed(*words, *sizes, "job.tflops_per_second=250"))["hours"] == pytest.approx(row["hours"] / 2)
    for unknown in ((), ("job.clips=10",), (*sizes, "job.tflops_per_second=null")):
        assert cost_of(composed(*words, *unknown))["hours"] is None
    with pytest.raises(ConfigError, match=r"job\.tflops_per_second must be a number"):
        cost_of(composed(*words, *sizes, "job.tflops_per_second=0"))
    text = " ".join(shown(plan_table([row, row])).split())
    assert "benchmark unnamed: 10 clips, 30 samples in the score" in text
    assert f"an estimate for one GPU at 125 TFLOP/s, without reading clips; {2 * row['hours']:.3g} in all" in text


def test_a_newline_token_is_read_too(composed):
    row = cost_of(composed("job=plan", "model=llava_onevision_7b", "pooling=none", "frames.num=1", "job.text_tokens=0"))
    assert row["visual_tokens"] == 730
    assert row["kv_cache_gb"] == pytest.approx(730 * 2 * 28 * 512 * 2 / 1e9)


def test_a_tiled_image_is_one_to_the_tower(composed):
    one = cost_of(composed(*SEVEN_B, "pooling=none", "frames.num=1"))
    tiled = cost_of(composed(*SEVEN_B, "pooling=image_grid", "frames.num=6"))
    assert tiled["tower_tflops"] == one["tower_tflops"]
    assert tiled["visual_tokens"] == 576
    with pytest.raises(PoolingShapeError):
        cost_of(composed(*SEVEN_B, "pooling=image_grid", "frames.num=5"))


def test_clips_are_counted_where_they_are(composed, tmp_path):
    root = tmp_path / "mv"
    (root / "json").mkdir(parents=True)
    words = (*SEVEN_B, "benchmark=mvbench", "frames.num=1")
    rows = [{"video": v, "question": "q", "candidates": ["a", "b"], "answer": "a"} for v in ("1.mp4", "2.mp4", "1.mp4")]
    (root / "json" / "task.json").write_text(json.dumps(rows))
    assert cost_of(composed(*words, f"benchmark.root={root}"))["clips"] == 2
    assert cost_of(composed(*words, f"benchmark.root={root}", "job.clips=7"))["clips"] == 7
    assert cost_of(composed(*words))["clips"] is None
    away = cost_of(composed(*words, "benchmark.root=elsewhere"))
    assert (away["clips"], away["features_gb"]) == (None, None)
    assert cost_of(composed(*words, "benchmark.root=elsewhere", "job.clips=7"))["clips"] == 7
    (tmp_path / "broken" / "json").mkdir(parents=True)
    (tmp_path / "broken" / "json" / "task.json").write_text("{")
    broken = cost_of(composed(*words, f"benchmark.root={tmp_path}/broken"))
    assert broken["clips"] is None
    assert "task.json" in broken["warnings"][0]
    assert cost_of(composed(*SEVEN_B, "benchmark.clips=60"))["clips"] == 60
    assert not (tmp_path / "data").exists()


def test_positions_beyond_the_trained_range_are_told(composed):
    words = (*SEVEN_B, "pooling=none", "frames.num=10")
    assert "do not fit the context of 4096" in cost_of(composed(*words))["warnings"][0]
    stretched = cost_of(composed(*words, "model.rope_factor=2"))
    assert (stretched["context"], stretched["model"]) == (8192, "llava_next_vicuna_7b rope 2")
    assert "beyond the 4096 positions that were trained" in stretched["warnings"][0]
    fits = composed(*SEVEN_B, "pooling=adaptive", "job.text_tokens=1792")
    assert cost_of(fits)["warnings"] == []
    assert cost_of(composed(*SEVEN_B, "pooling=adaptive", "job.text_tokens=1793"))["warnings"]


def test_inspect_tells_the_way_of_a_clip(videopool):
    done = videopool("job=inspect", "model=llava_next_vicuna_7b", "pooling=adaptive", small=False, env=OFFLINE)
    lines = [line for line in done.stdout.splitlines() if "[" in line and "stage" not in line]
    expected = ["[16, 3, 336, 336]", "[16, 24, 24, 1024]", "[16, 24, 24, 4096]", "[16, 12, 12, 4096]", "[2304, 4096]"]
    assert len(lines) == len(expected)
    for line, shape in zip(lines, expected, strict=True):
        assert shape in line
    for part in ("23 of 24 layers", "CLS dropped", "32 heads", "context 4096", "7.06 billion weights"):
        assert part in done.stdout


def test_inspect_follows_stage_and_family(composed):
    encoder = shown(stage_table(StatedSetting(composed("model=mini", "pooling=adaptive", "pooling.stage=encoder"))))
    assert encoder.index("pooling") < encoder.index("projector")
    assert "[16, 12, 12, 128]" in encoder
    video = shown(stage_table(StatedSetting(composed("model=video_llava_7b", "pooling=frame_cls", "frames.num=8"))))
    assert "CLS kept for the pooling" in video
    assert "of 2 towers" in video
    assert "[2056, 4096]" in video
    words = ("model=llava_onevision_0.5b", "pooling=none", "frames.num=2")
    onevision = shown(stage_table(StatedSetting(composed(*words))))
    assert "no CLS" in onevision
    assert "14 heads (2 for keys and values)" in onevision
    assert "[1459, 896]" in onevision


# By model: tokens of so many frames, and what stands among them at most.
TODAY = {
    "qwen3_vl_8b": (lambda frames: frames // 2 * 196, lambda frames: 9 * (frames // 2 - 1)),
    "llava_video_7b": (lambda frames: frames * 729, lambda frames: frames * 27),
    "internvl3_8b": (lambda frames: frames * 256, lambda frames: 7 * (frames - 1)),
    "smolvlm2_500m": (lambda frames: frames * 64, lambda frames: 13 * (frames - 1)),
}


@pytest.mark.parametrize("name", TODAY)
def test_todays_models_are_planned_with_their_layouts(composed, name):
    """Weights and the KV cache of the sizes that their files state; a compression leaves texts that may stay."""
    frames = 64
    tokens, among = (count(frames) for count in TODAY[name])
    words = (f"model={name}", f"frames.num={frames}", "job=plan")
    shape, size = point_shape(composed(*words).model), 4 if name == "smolvlm2_500m" else 2
    whole, quarter = (cost_of(composed(*words, f"pooling={pooling}")) for pooling in ("none", "vidcom2"))
    for row, share in ((whole, 1), (quarter, 0.25)):
        assert (row["visual_tokens"], row["separators"]) == (int(share * tokens) + among, among)
        assert row["weights_gb"] == pytest.approx(parameter_count(shape) * size / 1e9)
    fewer = (whole["visual_tokens"] - quarter["visual_tokens"]) * 2 * shape.layers * shape.kv_heads * shape.head_dim
    assert whole["kv_cache_gb"] - quarter["kv_cache_gb"] == pytest.approx(fewer * size / 1e9)


@pytest.mark.parametrize(("size", "side"), [("clip", 448), ("[4096,200704]", 448), ("[4096,200000]", 416), (224, 224)])
def test_sizes_of_frames_are_planned_without_weights(composed, size, side):
    """Of clips that differ, squares are assumed, and a line says so."""
    config = composed("model=qwen3_vl_8b", f"model.frame_size={size}", "frames.num=16", "pooling=none", "job=plan")
    row = cost_of(config)
    assert row["visual_tokens"] - row["separators"] == 8 * (side // 32) ** 2
    told = f"clips differ in the size of their frames: {side} x {side} pixels are assumed"
    assert with_twins([row])[0]["note"] == ("" if isinstance(size, int) else told)


CHOSEN = {
    "llava_1.5_7b": ("vicuna", "none"), "llava_1.5_13b": ("vicuna", "none"),
    "llava_next_vicuna_7b": ("vicuna", "none"), "llava_next_vicuna_13b": ("vicuna", "none"),
    "llava_next_34b": ("chatml", "none"), "llava_onevision_0.5b": ("qwen", "none"),
    "llava_onevision_7b": ("qwen", "none"), "video_llava_7b": ("video_llava", "none"), "mini": ("plain", "none"),
    "pllava_7b": ("vicuna", "pllava_7b"), "pllava_13b": ("vicuna", "pllava_13b"),
    "pllava_34b": ("chatml", "pllava_34b"),
    "llava_video_7b": ("qwen", "none"), "llava_video_72b": ("qwen", "none"),
    **dict.fromkeys(
        ("internvl3_8b", "internvl3_5_8b", "qwen2.5_vl_3b", "qwen2.5_vl_7b", "qwen3_vl_2b", "qwen3_vl_4b",
         "qwen3_vl_8b", "smolvlm2_256m", "smolvlm2_500m", "smolvlm2_2.2b"),
        ("chat_template", "none"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_brings_its_prompt_and_its_checkpoint(choices, name):
    config, chosen = choices(f"model={name}")
    assert (chosen.prompt, chosen.lora) == CHOSEN[name]
    assert config.model.name == name
    if name.startswith("pllava"):
        assert config.lora.checkpoint == f"ermu2001/{name.replace('_', '-')}"
        assert config.lora.alpha == 4


def test_the_command_line_and_a_study_have_the_last_word(choices):
    node = OmegaConf.create({"defaults": [{"override /model": "pllava_34b"}, {"override /prompt": "qwen"}]})
    ConfigStore.instance().store(group="experiment", name="own", node=node, package="_global_")

    def chosen(*words):
        _, made = choices(*words)
        return made.model, made.prompt, made.lora

    assert chosen("experiment=own") == ("pllava_34b", "qwen", "pllava_34b")
    assert chosen("experiment=own", "prompt=plain", "lora=none") == ("pllava_34b", "plain", "none")
    assert chosen("experiment=own", "model=mini") == ("mini", "qwen", "none")
    assert chosen("model=pllava_7b", "prompt=plain") == ("pllava_7b", "plain", "pllava_7b")


def test_a_multirun_over_models(videopool, tmp_path):
    words = ("-m", "job=plan", "model=mini,llava_onevision_0.5b,pllava_7b", "frames.num=1")
    done = videopool(*words, small=False, env=OFFLINE)
    assert [r["model"] for r in plan_rows(tmp_path)] == ["mini", "llava_onevision_0.5b", "pllava_7b alpha 4"]
    assert "0.00706" in done.stdout, "a column of weights in GB, as models differ"


def test_a_shape_that_is_not_square_to_its_patches_is_an_error(composed):
    with pytest.raises(ModelError, match="grid of 24 x 24"):
        cost_of(composed(*SEVEN_B, "model.shape.height=23"))


def test_power_is_that_of_the_study(composed):
    """Holm corrects for the comparisons of the run's points; what nothing can find is said to be found by nothing."""
    small = ("job=plan", "model=mini", "job.clips=60", "job.samples=300", "job.flipped=0.4")
    names = [("none", 4), ("none", 8), ("average", 4), ("average", 8), ("adaptive_1x6x6", 4)]
    rows = [cost_of(composed(*small, f"pooling={name}", f"frames.num={frames}")) for name, frames in names]
    for several, comparisons in ((rows[:1], 1), (rows, 3)):
        told = with_power(several)
        assert {row["comparisons"] for row in told} == {comparisons}
        wanted = detectable_difference([5] * 60, 0.1, 0.4, comparisons)
        assert {row["detectable_difference"] for row in told} == {wanted}
    assert f"{100 * wanted:.1f} points with 300 samples among 3 comparisons" in " ".join(
        shown(plan_table(rows)).split()
    )
    stated = [cost_of(composed(*small, "job.clips=20", "job.samples=100", "job.flipped=0.2", "job.comparisons=100"))]
    assert with_power(stated)[0]["detectable_difference"] is None
    assert "no difference is detectable with 100 samples" in " ".join(shown(plan_table(stated)).split())


def test_pruning_and_positions_are_planned(composed):
    """After layer 8 of 32 each question reads a tenth of the tokens; whole grids may exceed the context."""
    words = (*SEVEN_B, "benchmark=mvbench", "benchmark.root=nowhere", "job.text_tokens=100", "job.clips=10")
    words = (*words, "job.samples=30", "pooling=subsample", "pooling.tokens=2000")
    pruned = cost_of(composed(*words, "pruning=fastv", "pruning.layer=8", "pruning.share=0.1"))
    shape = point_shape(composed(*words).model)

    def flops(layers, tokens):
        return prefill_flops(replace(shape, layers=layers), tokens)

    assert pruned["prefill_tflops"] == pytest.approx((flops(8, 2000) + flops(24, 200)) / 1e12)
    clip = flops(8, 2000) + (pruned["tower_tflops"] + pruned["projector_tflops"]) * 1e12
    question = flops(8, 2100) - flops(8, 2000) + flops(24, 300)
    assert pruned["hours"] == pytest.approx((10 * clip + 30 * question) / 125e12 / 3600)
    assert pruned["kv_cache_gb"] == pytest.approx((2000 / 4 + 100 + 650) * 2 * 32 * 4096 * 2 / 1e9)
    rows = [cost_of(composed(*words, f"positions={where}", "frames.num=8")) for where in ("contiguous", "original")]
    assert not rows[0]["warnings"]
    assert rows[1]["warnings"] == [
        "4608 positions of the whole grid and 100 of text do not fit the context of 4096: such a point fails"
    ]
    text = shown(plan_table([*rows, pruned]))
    assert "original" in text
    assert "fastv 8 0.1" in text
    assert "positions" not in shown(plan_table([rows[0], rows[0]]))
