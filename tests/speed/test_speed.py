"""job=speed: that it measures what it says, and that sharing changes no prediction. No test depends on time."""

import json
import math
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from composed import composed as compose
from composed import opened
from random_models import save, save_added
from videopool.jobs import multirun
from videopool.jobs import run as jobs_run
from videopool.jobs.speed import run as speed
from videopool.models import ModelError, load_backbone, prefill_flops
from videopool.models.cost import peak_bytes, weight_bytes
from videopool.models.shape import shape_from
from videopool.paths import shipped
from videopool.pooling import Adaptive, FrameCls, NoPooling
from videopool.shapes.tokenizer import build_tokenizer
from videopool.speed import commands as speed_commands
from videopool.speed import meta as speed_meta
from videopool.speed import training as speed_training
from videopool.speed.bench import bench
from videopool.speed.parts import ALONE
from videopool.speed.points import compare, shared_share, token_ratio
from videopool.speed.random_models import save_random_model
from videopool.speed.rates import products, rates, works_of
from videopool.speed.table import missed
from videopool.speed.timing import bandwidths, interleaved, median_interval, turn

LITTLE = (
    "job=speed", "logger=none", "job.repeats=1", "job.sizes.tiny.clips=1", "job.sizes.tiny.per_clip=2",
    "job.training.loop_rounds=1", "job.asked=[1,3]", "job.operators.shape=[1,4,12,12,8]", "job.one.frames=2",
    "job.prefix.frames=2", "job.prefix.clips=1",
)  # fmt: skip
POOLING = "{_target_: videopool.pooling.%s}"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return save(tmp_path_factory.mktemp("small"), "llava", side=96)


@pytest.fixture
def composed(tmp_path, monkeypatch, small):
    """Configurations as the command line makes them, of a model smaller than the toy one; results go below tmp_path."""
    monkeypatch.chdir(tmp_path)
    with opened():
        yield lambda *words: compose(*LITTLE, f"job.sizes.tiny.source={small}", *words)


def measured(config, tmp_path):
    outcome = speed(config)
    assert outcome.status == "complete"
    study = tmp_path / "results" / "default"
    assert sorted(p.name for p in study.iterdir() if p.name != "figures") == ["speed.json"], "the rest is thrown away"
    return json.loads((study / "speed.json").read_text())


def test_a_point_prefixes_and_operators(composed, tmp_path, capsys):
    found = measured(composed("job.parts=[a,d,f]"), tmp_path)
    assert {"size", "started", "machine", "versions", "git", "wall_seconds", "model", "clips", "parts"} <= found.keys()
    assert len(found["machine"]["load_average"]) == 3
    assert list(found["parts"]) == ["a", "d", "f"]
    assert all(part["wall_seconds"] > 0 for part in found["parts"].values())

    for scoring, last in (("likelihood", "questions"), ("generate", "generate")):
        one = found["parts"]["a"][scoring]
        assert one["samples"] == 2
        assert {"decode", "preprocess", "vision", "pool", "prefill", last, "other"} <= one["by_kind"].keys()
        assert sum(one["by_kind"].values()) == pytest.approx(one["seconds_per_sample"])

    rows = found["parts"]["d"]["rows"]
    assert [row["questions"] for row in rows] == [1, 3]
    for row in rows:
        assert row["visual_tokens"] == 72
        assert row["agreement"]["compared"] == row["questions"]
        assert row["agreement"]["max_difference"] <= 1e-3
        assert row["ratio"] == pytest.approx(row["alone_seconds"] / row["shared_seconds"])
        assert row["share_reached"] == pytest.approx(row["ratio"] / row["allowed_ratio"])
    assert rows[0]["allowed_ratio"] == pytest.approx(1)
    assert 2 < rows[1]["allowed_ratio"] < 3

    rows = {row["name"]: row for row in found["parts"]["f"]["rows"]}
    assert rows.keys() == {"copy", *(p.stem for p in (shipped("conf") / "pooling").glob("*.yaml"))}
    assert rows["copy"]["gb_per_second"] * rows["copy"]["seconds"] * 1e9 == pytest.approx(2 * 4 * 4 * 144 * 8)
    assert "error" in rows["none"]
    assert "tiled before the tower" in rows["image_grid"]["error"]

    table = capsys.readouterr().out
    for words in ("speed, tiny", "questions at 72 visual tokens", "copy", "load average"):
        assert words in table


def test_a_sweep_with_and_without_sharing(composed, tmp_path, capsys):
    poolings = f"job.poolings=[{POOLING % 'Average'},{POOLING % 'Strided'}]"
    found = measured(composed("job.parts=[sweep,floor]", poolings, "job.frames=[1,2]"), tmp_path)
    jobs_run, b, c = found["sweep"], found["parts"]["b"], found["parts"]["c"]
    assert [(row["pooling"], row["frames"]) for row in jobs_run["points"]] == [
        ("average time", 1), ("average time", 2), ("strided 2 avg", 1), ("strided 2 avg", 2),
    ]  # fmt: skip
    assert (jobs_run["frames_distinct"], jobs_run["frames_of_all_points"]) == (3, 6)
    for way, seconds in jobs_run["seconds"].items():
        assert seconds == pytest.approx(sum(row[way] for row in jobs_run["points"]))
        if way != "floor":  # whose kinds include reading, which is counted apart
            assert seconds == pytest.approx(sum(jobs_run["seconds_by_kind"][way].values()))
    kinds = jobs_run["seconds_by_kind"]
    assert kinds["off"]["load"] > kinds["cold"]["load"]
    assert kinds["warm"].get("vision", 0.0) == 0.0
    assert "prefill" not in kinds["off"]
    assert "whole prompts" not in kinds["cold"]

    assert b["ratio"] == pytest.approx(b["off_seconds"] / b["shared_seconds"])
    assert b["allowed_ratio"] == pytest.approx(b["off_seconds"] / sum(b["remaining_seconds"].values()))
    assert b["share_reached"] == pytest.approx(b["ratio"] / b["allowed_ratio"])
    assert b["remaining_seconds"]["load"] == pytest.approx(kinds["off"]["load"] / 4)
    assert b["remaining_seconds"]["language model"] < kinds["off"]["whole prompts"]
    assert b["agreement"]["compared"] == c["agreement"]["compared"] == 8
    assert b["agreement"]["max_difference"] <= 1e-3
    assert c["agreement"]["max_difference"] == 0
    floor = c["floor_reading_seconds"] + c["floor_model_seconds"]
    assert c["cold_over_floor"] == pytest.approx(c["cold_seconds"] / floor)
    assert c["warm_over_floor"] == pytest.approx(c["warm_seconds"] / c["floor_model_seconds"])
    assert (tmp_path / "results" / "default" / "figures" / "speed.svg").is_file()
    assert "share reached" in capsys.readouterr().out


@pytest.mark.usefixtures("sooner")
def test_fine_tuning_from_the_store_the_loop_and_going_on(composed, tmp_path, capsys, monkeypatch):
    ways = {way: speed_commands.SIGNALS[way] for way in ("kill -9",)}  # tests/training stop runs in other ways
    for module in (speed_training, speed_commands):
        monkeypatch.setattr(module, "SIGNALS", ways)
    poolings = f"job.training.poolings=[{POOLING % 'Average'},{POOLING % 'Strided'}]"
    little = ["job.training.frames=2", "job.training.steps=2", "job.training.loop_steps=3", "job.training.rounds=2"]
    little += ["job.sizes.tiny.clips=2", "job.training.job.checkpoint_every=3"]
    little += ["job.training.recipe.global_batch=2", "job.training.recipe.micro_batch=2"]
    part = measured(composed("job.parts=[g]", poolings, *little), tmp_path)["parts"]["g"]
    jobs_run, loop, resume = part["sweep"], part["loop"], part["resume"]
    assert [row["pooling"] for row in jobs_run["rows"]] == ["average time", "strided 2 avg"]
    assert jobs_run["epochs"] == 2
    for way in ("kept", "alone"):
        assert jobs_run[f"{way}_seconds"] == pytest.approx(sum(row[way] for row in jobs_run["rows"]))
    assert jobs_run["ratio"] == pytest.approx(jobs_run["alone_seconds"] / jobs_run["kept_seconds"])
    assert loop["overhead_low"] <= loop["overhead"] <= loop["overhead_high"]
    assert min(loop["job_seconds"], loop["bare_seconds"]) > 0
    (killed,) = resume
    assert killed["way"] == "kill -9"
    assert 0 <= killed["again"] <= 3
    assert killed["kept"] % 3 == 0
    assert all(row["seconds"] > 0 for row in resume)
    table = capsys.readouterr().out
    for words in ("resuming after kill -9", "loop over a bare one", "with nothing kept"):
        assert words in table


def test_the_overhead_of_the_loop_is_that_of_steps_side_by_side(composed, monkeypatch):
    """Steps of both loops in turn; a wait in the job's alone is its overhead, one in both is none."""
    begun = []

    def waiting(take_steps, config, tuner, *others):
        computed, seconds = tuner.losses, 0.2 if config.study.startswith("g-job") else 0.0

        def slow(batch):
            begun.append(config.study.split("-")[1])
            time.sleep(seconds)
            return computed(batch)

        tuner.losses = slow
        return take_steps(config, tuner, *others)

    for name in ("fit", "bare_loop"):
        monkeypatch.setattr(speed_training, name, partial(waiting, getattr(speed_training, name)))
    words = [
        "job.training.loop_steps=4",
        "job.training.loop_rounds=2",
        "job.training.frames=1",
        "job.sizes.tiny.clips=4",
    ]
    words += ["job.training.recipe.global_batch=1", "job.training.recipe.micro_batch=1"]
    with bench(composed(*words)) as made:
        found = speed_training.loop(made, lambda: None)
    assert begun[4:] == ["job", "bare"] * 4 + ["bare", "job"] * 4  # behind those that fill the store
    assert found["job_seconds"] - found["bare_seconds"] > 0.1
    assert 0 < found["overhead_low"] <= found["overhead"] <= found["overhead_high"]


@pytest.mark.parametrize("count", [1, 2, 30, 119])
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(count):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        values = rng.exponential(size=count)
        low, high = median_interval(values)
        assert {low, high} <= set(values)
        held += low <= math.log(2) <= high
    assert count < 3 or held >= 0.93 * 400  # of fewer there is no such interval
    below = sum(math.comb(count, k) for k in range(sorted(values).index(low))) / 2**count
    assert below < 0.025
    assert sorted(values).index(low) == sorted(values, reverse=True).index(high)


@pytest.mark.parametrize("broken", ["sweep", "loop"])
def test_ways_of_training_that_do_not_learn_alike_are_told(composed, tmp_path, monkeypatch, broken):
    run = speed_training.train
    told = []

    def spoilt(config, *parts):
        seconds, rows = run(config, *parts)
        told.append(rows)
        wrong = config.study.startswith("g-kept" if broken == "sweep" else "g-bare")
        return seconds, [{**row, "loss": row["loss"] + wrong} for row in rows]

    monkeypatch.setattr(speed_training, "train", spoilt)
    words = ["job.training.frames=1", "job.training.steps=1", "job.training.loop_steps=2", "job.parts=[g]"]
    words += ["job.training.recipe.global_batch=1", "job.training.recipe.micro_batch=1"]
    with pytest.raises(AssertionError, match="losses of" if broken == "sweep" else "the job's loop has a loss of"):
        speed(composed(*words, f"job.training.poolings=[{POOLING % 'Average'}]"))
    assert told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["job.size=huge"], "job.size='huge': choose one of tiny, small, llava7b"),
        (
            ["job.parts=[a,z]"],
            "job.parts=['a', 'z']: choose from point, sweep, floor, prefix, processes, operators, training",
        ),
        (["job.parts=[]"], "choose from point, sweep, floor, prefix, processes, operators, training"),
        (["job.repeats=0"], "job.repeats must be a whole number of at least 1, got 0"),
        (["job.training.loop_rounds=0"], "job.training.loop_rounds must be a whole number of at least 1, got 0"),
        (["job.operators.names=[nothing]"], "job.operators.names: there is no pooling nothing"),
        (["job.operators.dtype=int3"], "job.operators.dtype='int3': choose one of"),
        (["job.asked=[0]", "job.parts=[d]"], "must have positive sizes"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_words_end_in_a_clear_line(composed, monkeypatch, capsys, words, told):
    ended = []
    monkeypatch.setattr(jobs_run, "settle", ended.append)
    monkeypatch.setattr(multirun, "settle", ended.append)
    assert jobs_run.run_and_tell(composed(*words)) == "failed"
    said = capsys.readouterr().err
    assert told in said
    assert "internal error" not in said
    assert len(said.strip().splitlines()) == 1
    assert ended == [1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_and_nothing_is_made(composed, tmp_path):
    outcome = speed(composed("job.device=cuda", "job.size=llava7b"))
    assert (outcome.status, outcome.message) == ("complete", "skipped: there is no GPU here (job.device=cuda)")
    assert list(tmp_path.iterdir()) == []


def little(**more):
    sizes = {
        "family": "llava_next", "text": "llama", "height": 3, "width": 3, "vision_dim": 32, "dim": 48, "context": 512,
        "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 12, "intermediate": 64, "vocabulary": 192,
        "vision_layers": 3, "vision_layers_run": 2, "vision_heads": 4, "vision_intermediate": 48, "patch": 16,
        "image_size": 48,
    }  # fmt: skip
    return shape_from({**sizes, **more})


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_a_random_model_is_loaded_like_any_other(tmp_path, family):
    shape = little(family=family, tied=family == "llava")
    save_random_model(shape, build_tokenizer(), tmp_path, torch.bfloat16, shard=40_000)
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) > 3
    assert max(path.stat().st_size for path in shards) < 50_000
    backbone = load_backbone(str(tmp_path), dtype="bfloat16")
    assert (backbone.shape, backbone.dtype) == (shape, torch.bfloat16)
    weights = dict(backbone.model.named_parameters())
    assert sum(one.nbytes for one in weights.values()) == weight_bytes(shape, 2)
    assert backbone.model.lm_head.weight.float().std() == pytest.approx(48**-0.5, rel=0.1)
    assert {float(v) for name, one in weights.items() if "norm" in name for v in one.float().unique()} == {0.0, 1.0}


def test_rates_are_of_the_operations_that_run(tmp_path, composed):
    """Operations as torch counts them, in the parts and in the bare products; attention's masks hide none."""
    with bench(composed("job.sizes.tiny.source=null", *sized("tiny"))) as made:
        found, backbone = rates(made, lambda *_: lambda: None), made.backbone
        backbone.model.set_attn_implementation("eager")  # which torch counts
        works = dict(works_of(backbone, made.size["rates"]))
        for row, (name, work) in zip(found["rows"], works.items(), strict=True):
            counts = {}
            for way, run in {"base": work.base or (lambda: None), "whole": work.run}.items():
                with FlopCounterMode(display=False) as counter, torch.inference_mode():
                    run()
                counts[way] = counter.get_total_flops()
            logits = {"questions": 2, "decoding": 2 * work.times}.get(name, 0) * 2 * 48 * 192
            one = (counts["whole"] - counts["base"] - logits) / work.times
            assert work.flops == pytest.approx(one, rel=0.02), name
            assert row["seconds"] * row["tflops"] * 1e12 == pytest.approx(work.flops)
            assert row["share"] == pytest.approx(row["tflops"] / row["product_tflops"])
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                products(backbone, work)()
            weights = 2 * (4 * 32**2 + 2 * 32 * 48) if name == "tower" else 2 * (48 * (2 * 48 + 2 * 24) + 3 * 48 * 64)
            assert counter.get_total_flops() == 2 * work.rows * weights
    assert found["square_tflops"] > 0
    assert found["copy_gb_per_second"] > 0


@pytest.mark.parametrize("family", ["smolvlm", "qwen3_vl"])
def test_rates_are_measured_of_added_families(tmp_path, composed, family):
    """Of a folder that job.sizes names: SmolVLM2's patches are merged, Qwen3-VL's tokens have DeepStack's levels."""
    source = save_added(tmp_path / "m", family)
    with bench(composed(f"job.sizes.tiny.source={source}", *sized("tiny"))) as made:
        rows = rates(made, lambda *_: lambda: None)["rows"]
    assert {row["what"].split()[0] for row in rows} == {"tower", "prefill", "questions", "decoding"}
    assert all(row["tflops"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"family": "llava_onevision"}, "no random llava_onevision"),
        ({"vocabulary": 100}, "a vocabulary of 100 does not hold the tokenizer's"),
    ],
)
def test_sizes_that_no_random_model_has(tmp_path, changes, told):
    with pytest.raises(ModelError, match=told):
        save_random_model(little(**changes), build_tokenizer(), tmp_path)


def sized(size):
    """Words that make a size of job=speed small, with random weights."""
    shape = ",".join(
        f"{key}: {value}" for key, value in vars(little(rope_theta=1e4)).items() if value not in (None, "")
    )
    words = {"shape": f"{{{shape}}}", "clips": 1, "per_clip": 2, "pixels": 96, "hold": 1}
    words["rates"] = "{tokens: [9, 30], batch: 30, frames: 2, asked: 2, prefix: 9, written: 2, side: 64}"
    return [f"job.sizes.{size}.{key}={value}" for key, value in words.items()]


def test_what_a_model_of_real_size_goes_through(composed, tmp_path, monkeypatch, capsys):
    """What job.size=llava7b does, on a CPU and in small."""
    monkeypatch.setattr(speed_meta, "released_shape", lambda name: little(layers=2 if name == "a" else 3))
    one = "{frames: 2, pooling: {_target_: videopool.pooling.Adaptive, shape: [2, 3, 3]}}"
    config = composed(
        "job.size=llava7b", *sized("llava7b"), "job.meta.models=[a,b]", "job.meta.frames=2",
        "job.meta.pooling.shape=[2,3,3]", f"job.loaded.points=[{one}]",
    )  # fmt: skip
    found = measured(config, tmp_path)
    assert list(found["parts"]) == ["h", "i", "j"]
    assert found["model"]["dtype"] == "bfloat16"
    i = found["parts"]["i"]
    assert [row["scoring"] for row in i["rows"]] == ["likelihood", "generate"]
    for row in i["rows"]:
        assert row["samples"] == 2
        assert row["seen_over_planned"] == pytest.approx(row["seen_bytes"] / row["planned_bytes"])
        assert row["seen_bytes"] > 1e8, "of this process"
    assert i["lora"]["difference"] > 0 == i["lora"]["difference_at_0"]
    for row, layers in zip(found["parts"]["j"]["rows"], (2, 3), strict=True):
        own = little(layers=layers)
        assert row["weight_bytes"] == row["planned_weight_bytes"] == weight_bytes(own, 2)
        assert row["planned_bytes"] == peak_bytes(own, 2, 18 + 256, 2, attention="eager")
        assert 0.95 < (row["planned_bytes"] - row["weight_bytes"]) / (row["peak_bytes"] - row["weight_bytes"]) < 1.35
        assert row["trained_tensors"] == layers * 8 + 4
        assert row["training_bytes"] > row["weight_bytes"] + 4 * 4 * row["trained"]
    table = capsys.readouterr().out
    for words in ("prefill, 3 x 9 visual tokens", "  peak memory", "a, ", "a training step", "within 15 %"):
        assert words in table


def test_the_gpu_check_at_tiny_size(videopool, tmp_path):
    """All its parts, on a CPU; its last line and its exit code are about the targets in its table."""
    words = ["job.device=cpu", "job.size=tiny", "job.repeats=1", "job.processes=[2]", "job.frames=[1]"]
    words += [f"job.poolings=[{POOLING % 'Average'}]", "job.multirun='pooling=average frames.num=1'", "job.asked=[1]"]
    words += ["job.sizes.tiny.clips=1", "job.sizes.tiny.per_clip=2", "job.training.lone_steps=2", "job.one.frames=2"]
    words += ["job.training.frames=1", "job.training.recipe.global_batch=1", "job.training.recipe.micro_batch=1"]
    words += ["job.training.recipe.lora.rank=4", f"job.training.poolings=[{POOLING % 'Average'}]"]
    words += ["job.loaded.points=[{frames: 1, pooling: %s}]" % (POOLING % "NoPooling")]
    words += ["job.sizes.tiny.rates={tokens: [144], batch: 144, frames: 1, asked: 2, prefix: 9, written: 2, side: 64}"]
    done = videopool("experiment=gpu_check", *words, small=False, check=None)
    found = json.loads((tmp_path / "results" / "gpu_check" / "speed.json").read_text())
    assert list(found["parts"]) == ["b", "c", "e", "h", "i", "k", "l"]
    (row,) = found["parts"]["e"]["rows"]
    assert (row["processes"], row["points"], row["speed_up"]) == (2, 1, 1)
    assert row["points_per_minute"] == pytest.approx(60 / row["seconds"])
    assert row["points_per_minute_at_work"] > row["points_per_minute"]
    assert [row["dtype"] for row in found["parts"]["k"]["rows"]] == ["float32", "bfloat16", "float16"]
    steps = found["parts"]["l"]
    assert steps["tokens_per_second"] * steps["step_seconds"] > 144
    assert "skipped" in steps["fsdp"]
    wrong = missed(found)
    assert any("peak memory" in figure for figure in wrong), "a process is larger than the toy model"
    assert done.returncode == 1
    assert f"{len(wrong)} targets are not met ({'; '.join(wrong)})" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_part_that_fails_is_a_target_missed_and_ends_no_check(composed, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setitem(ALONE, "d", broken)
    words = ["job.parts=[d,f]", "job.operators.names=[dual_mean]"]
    with pytest.raises(RuntimeError, match="no kernel"):
        speed(composed(*words))
    outcome = speed(composed(*words, "job.strict=true"))
    assert outcome.status == "failed"
    assert outcome.message.startswith("1 targets are not met (d prefix: failed: no kernel for this); wrote ")
    assert "GB/s" in capsys.readouterr().out, "of the other part"
    monkeypatch.setitem(ALONE, "d", lambda *_: {"rows": []})
    assert speed(composed(*words, "job.strict=true")).status == "complete"


def test_arithmetic_of_sharing():
    assert token_ratio(100, [10]) == 1
    assert token_ratio(90, [10] * 9) == pytest.approx(9 * 100 / (90 + 90))
    shape = little()
    assert shared_share(shape, 64, [8]) == pytest.approx(1)
    many = shared_share(shape, 64, [8] * 25)
    alone, once = prefill_flops(shape, 72), prefill_flops(shape, 64)
    assert many == pytest.approx((once + 25 * (alone - once)) / (25 * alone))


def test_turns_are_fair():
    names = ["x", "y", "z"]
    turns = [turn(names, number) for number in range(6)]
    assert all(sorted(one) == names for one in turns)
    assert {one[0] for one in turns} == set(names)
    assert [turn(["a", "b"], number)[0] for number in range(8)] == list("abbaabba")
    calls = []
    seconds = interleaved({name: lambda name=name: calls.append(name) for name in names}, rounds=4, warm_up=2)
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys(names, 4)
    assert [calls.count(name) for name in names] == [6, 6, 6]


def test_bandwidth_counts_what_must_move():
    grid = torch.rand(1, 4, 6, 6, 8)
    poolings = {"quarter": Adaptive((4, 3, 3)), "cls": FrameCls(NoPooling()), "odd": Adaptive((4, 5, 5))}
    rows = {row["name"]: row for row in bandwidths(poolings, grid, rounds=1)}
    moved = {name: row["gb_per_second"] * row["seconds"] * 1e9 / grid.nbytes for name, row in rows.items()}
    assert moved["copy"] == pytest.approx(2)
    assert moved["quarter"] == pytest.approx(1.25)
    assert moved["cls"] == pytest.approx(1 + 37 / 36)
    assert rows["odd"]["visual_tokens"] == 100
    assert rows["odd"]["slower_than_copy"] == pytest.approx(
        rows["copy"]["gb_per_second"] / rows["odd"]["gb_per_second"]
    )


def record(prediction, scores):
    return {"options": ["yes", "no"], "prediction": prediction, "option_logprobs": scores}


def test_records_are_held_to_each_other():
    one = {"q": record("yes", [-0.5, -1.0])}
    assert compare(one, {"q": record("yes", [-0.5002, -1.0])}, 1e-3)["max_difference"] == pytest.approx(2e-4)
    close = {"q": record("yes", [-0.6931, -0.6932])}
    assert compare(close, {"q": record("no", [-0.6932, -0.6931])}, 1e-3)["ties"] == 1
    for other, told in (
        ({"q": record("no", [-0.5, -1.0])}, "predicted 'yes' one way and 'no' the other"),
        ({"q": record("yes", [-0.6, -1.0])}, "differ by 0.1"),
        ({"p": record("yes", [-0.5, -1.0])}, "same samples"),
    ):
        with pytest.raises(AssertionError, match=told):
            compare(one, other, 1e-3)
