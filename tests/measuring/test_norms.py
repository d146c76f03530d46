"""job=norms from the command line to its files; kills; what it says of impossible settings."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from composed import composed
from conftest import numbered_frames
from videopool.config.errors import ConfigError
from videopool.figures.style import save_figure
from videopool.measuring.figures import point_figures
from videopool.measuring.settings import check
from videopool.measuring.stages import describe_stage, lineages, parse_layers, parse_scores, parse_stages
from videopool.measuring.study import labels, load_study_norms
from videopool.measuring.table import fates
from videopool.models import load_backbone, load_config, model_shape
from videopool.norms import NormsError, load_norms
from videopool.norms.saved import PARTIAL
from videopool.reports import read_spreadsheet
from videopool.shapes.clips import write_mp4
from videopool.tracking.point import MOST_BINS, narrowed
from videopool.video import UniformSampler, open_clip

MINI = "videopool:shapes/mini_llava"
CLIPS, FRAMES = 7, 4
# Changes nothing; but without KILL_FLAG on disk, the fourth clip is the last of this process.
KILLER = """
import os, signal
from videopool.pooling.intervention import Intervention

class Killer(Intervention):
    seen = 0

    def pool(self, grid, context=None):
        flag = os.environ["KILL_FLAG"]
        Killer.seen += grid.shape[-1] > 3  # not when it is only looked at
        if Killer.seen == 4 and not os.path.exists(flag):
            open(flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return grid
"""
OUTLIERS = "{_target_: videopool.pooling.InjectOutliers, fraction: 0.02, factor: 10}"


@pytest.fixture
def run(videopool, tmp_path):
    """Runs job=norms on seven clips of different sizes of frames and one that cannot be read."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(CLIPS):
        frames = numbered_frames(10 + number, 96, 96)
        frames[:, 30:60, 10 * number : 10 * number + 20] = (200, 30 * number, 90)
        write_mp4(folder / f"c{number}.mp4", frames)
    (folder / "broken.mp4").write_bytes(b"nothing that a reader knows")
    (tmp_path / "killer.py").write_text(KILLER)
    fixed = ["job=norms", "benchmark=clips", f"benchmark.root={folder}", f"frames.num={FRAMES}", "job.workers=0"]

    def start(*words, check=0):
        env = {"KILL_FLAG": str(tmp_path / "flag")}
        return videopool(*[w for w in words if w == "-m"], *fixed, "job.max_failed_fraction=0.2",
                         *[w for w in words if w != "-m"], small=False, check=check, env=env)  # fmt: skip

    return start


def point(study, word):
    (folder,) = [path.parent for path in study.glob(f"norms-*{word}*/run.json")]
    return folder


EVEN_STEPS = "[{_target_: videopool.pooling.RescaleNorm, norm: 5},{_target_: killer.Killer}]"
OUTLIER_STEPS = f"[{{_target_: videopool.pooling.RescaleNorm, norm: 5}},{OUTLIERS}]"
MEASURED = (
    "model.attention=eager", "job.attention_layers=[2]", "job.stages=[encoder,encoder.1,pooled,llm.0]",
    "job.save_every=2", "pooling=chain",
)  # fmt: skip


def test_a_study_of_norms_and_a_killed_one(run, tmp_path, monkeypatch):
    (tmp_path / "flag").touch()
    done = run("-m", "study=s", "logger=wandb", *MEASURED, f"pooling.steps={EVEN_STEPS},{OUTLIER_STEPS}")
    study = tmp_path / "results" / "s"
    even, put_in = load_norms(point(study, "killer")), load_norms(point(study, "inject"))
    _same_as_the_tower(even, tmp_path / "clips")
    _as_predicted(even, put_in)
    for saved in (even, put_in):
        assert (saved.numbers["clips"], list(saved.numbers["failed"])) == (CLIPS, ["broken.mp4"])
        assert saved.numbers["attention"]["2"]["clips"] == CLIPS
        assert 0 < saved.numbers["attention"]["2"]["visual_share"] < 1
        assert not (saved.folder / PARTIAL).exists()
    first, second = (json.loads((saved.folder / "metrics.json").read_text()) for saved in (even, put_in))
    assert first["n_failed"] == second["n_failed"] == 1
    assert first["frames_decoded"] == CLIPS * FRAMES
    assert second["frames_decoded"] == 0, "every frame is read and encoded once"
    assert "vision" not in second["seconds"]
    table = pd.read_csv(study / "norms.csv")
    assert len(table) == 8
    assert set(table.stage) == {"encoder", "encoder.1", "pooled", "llm.0"}
    assert table["outliers.times_median.share"].max() == pytest.approx(12 / 576)
    assert "norms in s" in done.stdout
    logged = b"".join(path.read_bytes() for path in study.glob("wandb/*/run-*.wandb"))
    assert b"pooled/norms" in logged
    assert b'"histogram"' in logged

    run_of = "results/s/run"
    for name, frames, checkpoint in (
        ("a", 10, None),
        ("b", 2, None),
        ("c", 4, None),
        ("d", 2, f"{run_of}/export"),
        ("e", 2, f"{run_of}/exports/step-9"),
    ):
        copy = shutil.copytree(even.folder, tmp_path / "ordered" / f"norms-{name}") / "norms.json"
        told = json.loads(copy.read_text())
        told["about"]["frames"], told["about"]["checkpoint"] = frames, checkpoint
        copy.write_text(json.dumps(told))
    ordered = load_study_norms(tmp_path / "ordered")
    assert [saved.numbers["about"]["frames"] for saved in ordered] == [2, 4, 10, 2, 2]
    assert ordered[-1].numbers["about"]["checkpoint"].endswith("/export")  # what a run ends with, behind what it made

    (tmp_path / "flag").unlink()
    monkeypatch.setenv("VIDEOPOOL_FIGURES", "svg")
    words = ["study=k", "logger=none", *MEASURED, f"pooling.steps={EVEN_STEPS}"]
    run(*words, check=-signal.SIGKILL)
    killed = point(tmp_path / "results" / "k", "killer")
    assert (killed / PARTIAL).is_file()
    assert not (killed / "metrics.json").exists()
    told = run(*words).stdout
    assert "not measured: broken.mp4" in told
    again = load_norms(killed)
    for name in ("histogram", "map", "profile", "redundancy", "attention"):
        assert (killed / "figures" / f"{name}.svg").stat().st_size > 5000
    assert again.folder.name == even.folder.name
    assert again.numbers == even.numbers
    for stage, arrays in even.arrays.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(again.arrays[stage][name], values)
    decoded = json.loads((killed / "metrics.json").read_text())["frames_decoded"]
    assert 0 < decoded < CLIPS * FRAMES, "what was done before the kill is not done again"


ALL = (
    "job.stages=[encoder.*,projector,pooled,llm.*]", "job.tower_scores=[received.*,cls.2,values.3]",
    "job.vocabulary=true", "job.rules.times_median=1.2", "job.rules.absolute=[6,9.5]", "job.rules.massive=[2,3]",
    "job.rules.phi=2.5",
)  # fmt: skip


def test_all_layers_and_scores_against_plain_loops(run, tmp_path):
    (tmp_path / "clips" / "broken.mp4").unlink()
    run("study=all", "pooling=none", "job.clips=3", "logger=none", *ALL)
    saved = load_norms(point(tmp_path / "results" / "all", "none"))
    with torch.inference_mode():
        seen = [_seen(tmp_path / "clips" / name) for name in saved.numbers["contents"]]
    assert len(seen) == saved.numbers["clips"] == 3
    stages, scores = saved.numbers["stages"], saved.numbers["scores"]
    assert list(scores) == list(seen[0]["scores"])
    marks = {layer: [_marks(clip["states"][layer]) for clip in seen] for layer in range(5)}
    for layer, clips in marks.items():
        for rule in clips[0]:
            share = np.mean([own[rule] for own in clips])
            assert stages[f"encoder.{layer}"]["outliers"][rule]["share"] == pytest.approx(share)
            born = [own[rule] for own in clips]  # outliers from this layer on, but not in the one before
            for later in range(layer + 1, 5):
                born = [one & own[rule] for one, own in zip(born, marks[later], strict=True)]
            if layer:
                born = [one & ~own[rule] for one, own in zip(born, marks[layer - 1], strict=True)]
            every = np.sum([own[rule] for own in marks[4]])
            expected = pytest.approx(np.sum(born) / every) if every else None
            assert stages[f"encoder.{layer}"]["born"][rule] == expected
    for name, numbers in scores.items():
        own = [clip["scores"][name] for clip in seen]  # [T, C + H*W], 1 in a frame
        patches = [score[:, 1:] for score in own]
        assert numbers["visual_share"] == pytest.approx(np.mean([score.sum(axis=1).mean() for score in patches]))
        ratios = [np.mean([max(row) / np.median(row) for row in score]) for score in patches]
        assert numbers["max_over_median"] == pytest.approx(np.mean(ratios), rel=1e-5)
        for key, layer in (("spearman", 4), ("spearman_entering", int(name.partition(".")[2]) - 1)):
            pairs = [(clip["states"][layer], score) for clip, score in zip(seen, patches, strict=True)]
            found = [spearmanr(np.linalg.norm(state, axis=-1), score.ravel()).statistic for state, score in pairs]
            assert numbers[key] == pytest.approx(np.mean(found), abs=1e-4)
    _words_and_both_sides(stages, seen)
    figures = point_figures(saved)
    for name in ("births", "scores", "crossed"):
        (file,) = save_figure(figures[name], tmp_path / name)
        assert Path(file).stat().st_size > 5000


def test_what_poolings_keep_by_task(videopool, tmp_path):
    words = ("job.overlap=true", "job.stages=[encoder]", "job.rules.times_median=1.1", "job.tower_scores=[received.2]")
    words += ("+benchmark.tasks=[existence,scene,event_order]",)
    words = ("-m", "job=norms", "study=o", "pooling=even,average", "frames.num=3", "benchmark.limit=2", *words)
    videopool(*words)
    done = videopool(*words, env={"VIDEOPOOL_FIGURES": "svg"})  # the study's: its points are kept, without theirs
    study = tmp_path / "results" / "o"
    table = pd.read_csv(study / "norms_overlap.csv").set_index(["pooling", "task"])
    tasks = {task for _, task in table.index if isinstance(task, str)}
    assert len(tasks) > 1
    for pooling, kept in (("even 0.25", 108 / 432), ("average time", 0)):
        for task in tasks:
            row = table.loc[pooling, task]
            assert (row.kept, row.kept + row.dropped + row.merged) == (pytest.approx(kept), pytest.approx(1))
            assert row["outliers.times_median.kept_by_chance"] == pytest.approx(kept)
    even = load_norms(point(study, "even"))
    assert "overlap" in point_figures(even)
    whole = even.numbers["overlap"][""]
    drawn = fates(read_spreadsheet(study / "norms_overlap.csv"))
    assert set(drawn) == {"even 0.25", "average time"}
    assert drawn["even 0.25"] == pytest.approx(whole["outliers"]["times_median"])
    agreement = whole["agreement"]
    assert agreement["saliency-kept"]["jaccard"] == pytest.approx(whole["jaccard_by_chance"], abs=0.1)
    assert -1 <= agreement["norm-saliency"]["spearman"] <= 1
    assert whole["clips"] == even.numbers["clips"]
    for name in ("histogram", "overlap"):
        assert (study / "figures" / f"norms_{name}.svg").stat().st_size > 5000
    assert "norms_overlap.csv" in done.stdout


def test_a_changed_tower_has_results_and_features_of_its_own(run, tmp_path):
    (tmp_path / "clips" / "broken.mp4").unlink()
    store = ("features=disk", f"features.root={tmp_path / 'store'}", "logger=none")
    words = ("study=t", "pooling=none", "job.stages=[encoder]", "job.rules.times_median=1.1", *store)
    told = run(*words, "job.register_neurons=3").stdout
    study = tmp_path / "results" / "t"
    first = load_norms(point(study, "none"))
    neurons = first.numbers["register_neurons"]
    assert [mean for *_, mean in neurons] == sorted((mean for *_, mean in neurons), reverse=True)
    pairs = "[" + ", ".join(f"[{block}, {neuron}]" for block, neuron, _ in neurons) + "]"
    assert f"model.tower.register=test_time 'model.tower.neurons={pairs}'" in told
    change = ("model.tower.register=test_time", f"model.tower.neurons={pairs}")
    run(*words, *change)
    changed = load_norms(point(study, "register-3-neurons"))
    assert changed.numbers["about"]["model"] == "mini register 3 neurons"
    backbone = load_backbone(MINI, tower={"register": "test_time", "neurons": [list(one[:2]) for one in neurons]})
    norms = []
    for name in changed.numbers["contents"]:
        with open_clip(tmp_path / "clips" / name, "pyav") as clip:
            indices = UniformSampler(FRAMES).indices(clip.info, None, None, name)
            norms.append(backbone.encode(backbone.preprocess(clip.frames(indices))).double().norm(dim=-1).numpy())
    assert changed.numbers["stages"]["encoder"]["mean"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert abs(changed.numbers["stages"]["encoder"]["mean"] / first.numbers["stages"]["encoder"]["mean"] - 1) > 1e-4
    run(*words, *change, "pooling=average")
    again = point(study, "3-neurons-average")
    for folder, stored in ((changed.folder, 0), (again, CLIPS * FRAMES)):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert (metrics["frames_decoded"], metrics["frames_from_store"]) == (CLIPS * FRAMES - stored, stored)
    assert load_norms(again).numbers["stages"] == changed.numbers["stages"]


def _seen(path):
    """Of a clip: states of the tower's layers [T*H*W, D], scores [T, 1 + H*W], and the words nearest to its tokens."""
    backbone = load_backbone(MINI, attention="eager")
    tower = backbone.parts.vision_tower
    with open_clip(path, "pyav") as clip:
        pixels = backbone.preprocess(clip.frames(UniformSampler(FRAMES).indices(clip.info, None, None, path.name)))
    seen = tower(pixels, output_hidden_states=True, output_attentions=True)
    block = tower.encoder.layers[2]
    values = block.self_attn.v_proj(block.layer_norm1(seen.hidden_states[2])).double().norm(dim=-1)
    tokens = backbone.project(backbone.grid(seen.hidden_states[-1])).flatten(0, 2).double()
    words = backbone.embed(torch.arange(len(backbone.tokenizer))).double()
    return {
        "states": [state[:, 1:].flatten(0, 1).double().numpy() for state in seen.hidden_states],
        "scores": {
            **{f"received.{n + 1}": own.double().mean((1, 2)).numpy() for n, own in enumerate(seen.attentions)},
            "cls.2": seen.attentions[1].double().mean(1)[:, 0].numpy(),
            "values.3": (values / values.sum(dim=1, keepdim=True)).numpy(),
        },
        "words": [int((words @ token / words.norm(dim=1)).nan_to_num(-9e9).argmax()) for token in tokens],
        "sinks": _marks(tokens.numpy())["times_median"],
    }


def _marks(states):
    """Outliers [N] by rule of tokens [N, D] of a clip."""
    norms, sizes = np.linalg.norm(states, axis=-1), np.abs(states)
    normed = sizes / np.sqrt((sizes**2).mean(axis=1, keepdims=True))
    sinks = np.argsort(-normed.max(axis=0))[:2]
    cutoff = max(2, 3 * np.sort(sizes, axis=None)[(sizes.size - 1) // 2])
    return {"times_median": norms > 1.2 * np.median(norms), "above_6": norms > 6, "above_9.5": norms > 9.5,
            "massive": sizes.max(axis=1) > cutoff, "phi": normed[:, sinks].max(axis=1) > 2.5}  # fmt: skip


def _words_and_both_sides(stages, seen):
    sinks, every = np.concatenate([clip["sinks"] for clip in seen]), [word for clip in seen for word in clip["words"]]
    plain = [{w for w, sink in zip(clip["words"], clip["sinks"], strict=True) if not sink} for clip in seen]
    dead = [sum(word in own for own in plain) > 1.5 and not sink for word, sink in zip(every, sinks, strict=True)]
    for stage in ("projector", "pooled"):
        kinds = stages[stage]["vocabulary"]
        assert (kinds["sink"], kinds["dead"]) == (pytest.approx(np.mean(sinks)), pytest.approx(np.mean(dead)))
        assert sum(kinds[kind] for kind in ("sink", "dead", "alive")) == pytest.approx(1)
    for layer in range(6):
        of_llm = stages[f"llm.{layer}"]
        for rule, cells in of_llm["with_tower"].items():
            assert cells["both"] + cells["llm"] == pytest.approx(of_llm["outliers"][rule]["share"])
            assert cells["both"] + cells["tower"] == pytest.approx(stages["encoder.4"]["outliers"][rule]["share"])
    born = [stages[f"llm.{layer}"]["born"]["times_median"] for layer in range(6)]
    assert sum(born) == pytest.approx(1)


def _same_as_the_tower(saved, folder):
    """Norms at the tower's stages, against transformers' own hidden states without their first position, the CLS."""
    backbone = load_backbone(MINI)
    norms = {"encoder": [], "encoder.1": []}
    for path in sorted(folder.glob("c*.mp4")):
        with open_clip(path, "pyav") as clip, torch.inference_mode():
            pixels = backbone.preprocess(clip.frames(UniformSampler(FRAMES).indices(clip.info, None, None, path.name)))
            states = backbone.parts.vision_tower(pixels, output_hidden_states=True).hidden_states
        for name, layer in (("encoder", -1), ("encoder.1", 1)):
            norms[name].append(np.linalg.norm(states[layer][:, 1:].double().numpy(), axis=-1))
    for name, values in norms.items():
        every, numbers = np.stack(values), saved.numbers["stages"][name]
        assert numbers["tokens"] == every.size
        assert numbers["mean"] == pytest.approx(every.mean(), rel=1e-5)
        assert numbers["std"] == pytest.approx(every.std(), rel=1e-3)
        assert numbers["max"] == pytest.approx(every.max(), rel=1e-5)
        assert numbers["quantiles"]["0.5"] == pytest.approx(np.median(every), rel=0.006)
        np.testing.assert_allclose(saved.arrays[name]["frame.norm"], every.mean(axis=(0, 2)), rtol=1e-5)
        np.testing.assert_allclose(saved.arrays[name]["map.norm"].ravel(), every.mean(axis=(0, 1)), rtol=1e-5)


def _as_predicted(even, put_in):
    """Equal norms, and a share s of them ten times as large: all that is measured follows from s."""
    s = 12 / 576  # 2 % of 4 x 12 x 12 tokens, rounded
    for stage in ("pooled", "llm.0"):
        plain, outliers = (saved.numbers["stages"][stage] for saved in (even, put_in))
        assert plain["max_over_median"] == pytest.approx(1, abs=1e-3)
        assert plain["mean"] == pytest.approx(5, rel=1e-4)
        assert plain["outliers"]["times_median"]["share"] == 0
        assert outliers["max_over_median"] == pytest.approx(10, rel=0.006)
        assert outliers["outliers"]["times_median"]["share"] == outliers["gap"]["share"] == pytest.approx(s)
        assert outliers["outliers"]["times_median"]["clips_with"] == 1
        assert outliers["gap"]["ratio"] == pytest.approx(10, rel=0.03)
        assert outliers["excess_kurtosis"] == pytest.approx((1 - 6 * s * (1 - s)) / (s * (1 - s)), rel=1e-3)
        assert outliers["gini"] == pytest.approx(10 * s / (1 + 9 * s) - s, abs=0.003)
        np.testing.assert_allclose(  # the directions stay
            put_in.arrays["pooled"]["distance.cosine"], even.arrays["pooled"]["distance.cosine"], atol=1e-5
        )
    assert even.numbers["stages"]["encoder"] == put_in.numbers["stages"]["encoder"]


@pytest.fixture(scope="module")
def config():
    return lambda *words: composed("job=norms", "logger=none", *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["job.p=0"], r"job\.p=0"),
        (["job.p=.nan"], r"job\.p"),
        (["job.clips=0"], r"job\.clips must be a whole number"),
        (["job.save_every=none"], r"job\.save_every"),
        (["job.texture=maybe"], r"job\.texture='maybe'"),
        (["job.overlap=some"], r"job\.overlap='some'"),
        (["job.vocabulary=perhaps"], r"job\.vocabulary='perhaps'"),
        (["job.rules.absolute=[100,30]"], r"job\.rules\.absolute=\[100, 30\]: give rising numbers"),
        (["job.rules.massive=100"], r"job\.rules\.massive=100: give a list"),
        (["job.rules.times_median=0.5"], r"job\.rules\.times_median=0\.5"),
        (["+job.rules.taste=2"], r"job\.rules=.*there are times_median, robust_z, gap"),
        (["trainer.devices=2"], r"trainer\.devices"),
        (["model=api"], "model=api: nothing is known of the inside"),
        (["job.attention_layers=[1]"], r"model\.attention=eager"),
    ],
)
def test_impossible_settings_are_told(config, words, told):
    with pytest.raises((ConfigError, NormsError), match=told):
        check(config(*words))


SHAPE = model_shape(load_config(MINI))


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([], "names no stage"),
        ("encoder", "give a list"),
        (["encoder", "encoder"], "encoder stands twice"),
        (["decoder"], r"no stage decoder; there are encoder, encoder\.<layer>"),
        (["llm"], "no stage llm"),
        (["projector.1"], "no stage"),
        (["encoder.5"], r"mini has layers 0\.\.4 there"),
        (["llm.-7"], r"mini has layers 0\.\.5 there"),
        (["llm.two"], "got two"),
    ],
)
def test_stages_that_a_model_lacks_are_told(stages, told):
    with pytest.raises(ConfigError, match=told):
        parse_stages(stages, SHAPE, "mini")


SIGLIP = replace(SHAPE, cls=False, pooling_head=False, feature_layers=1)


@pytest.mark.parametrize(
    ("scores", "shape", "told"),
    [
        ("cls.1", SHAPE, "give a list"),
        (["received"], SHAPE, r"no score received; there are received\.<block>, cls\.<block>, values\.<block> and"),
        (["heads"], SHAPE, "no score heads"),
        (["received.0"], SHAPE, r"mini has layers 1\.\.4 there"),
        (["values.5"], SHAPE, "got 5"),
        (["received.*", "received.2"], SHAPE, r"received\.2 stands twice"),
        (["cls.1"], SIGLIP, "the tower of mini has none: take attention received"),
        (["head"], SHAPE, "SigLIP's pooling head, and the tower of mini has none"),
    ],
)
def test_scores_that_a_tower_lacks_are_told(scores, shape, told):
    with pytest.raises(ConfigError, match=told) as caught:
        parse_scores(scores, shape, "mini")
    assert "\n" not in str(caught.value)


def test_births_are_traced_up_to_the_feature_layer():
    inner = replace(SHAPE, vision_layers_run=3)
    stages = parse_stages(["pooled", "encoder", "encoder.*", "llm.-1", "llm.2"], inner, "mini")
    assert lineages(stages, inner) == {
        "encoder": ["encoder.0", "encoder.1", "encoder.2", "encoder.3"],
        "llm": ["llm.2", "llm.-1"],
    }
    assert lineages(stages, replace(SHAPE, feature_layers=2)).keys() == {"llm"}
    assert lineages(parse_stages(["encoder", "encoder.3", "llm.0"], inner, "mini"), inner) == {}
    assert [score.block for score in parse_scores(["values.-1", "received.*"], inner, "mini")] == [4, 1, 2, 3, 4]


def test_layers_count_from_both_ends():
    assert [stage.layer for stage in parse_stages(["encoder.-1", "llm.-6", "encoder"], SHAPE, "mini")] == [4, 0, None]
    assert parse_layers([1, -1], SHAPE, "mini") == [1, 5]
    with pytest.raises(ConfigError, match=r"layers 1\.\.5"):
        parse_layers([0], SHAPE, "mini")
    (stage,) = parse_stages(["encoder"], SHAPE, "mini")
    told = describe_stage(stage, SHAPE, [4], "projector")
    assert "before the tower's post layer norm" in told
    assert "CLS left out" in told


def test_labels_say_what_differs():
    point = {"model": "mini", "checkpoint": None, "lora_alpha": None, "pooling": "none", "stage": "projector",
             "frames": 8, "benchmark": "b", "split": "s", "p": "2.0", "rules": {}}  # fmt: skip
    assert labels([point]) == ["none"]
    assert labels([point, {**point, "frames": 4}]) == ["8 frames", "4 frames"]
    tuned = [
        {**point, "model": f"mini {alpha}", "checkpoint": f"runs/a/{step}/adapter", "lora_alpha": alpha}
        for step, alpha in (("step100", 4.0), ("step200", 4.0))
    ]
    assert labels(tuned) == ["step100", "step200"]
    assert labels([point, *tuned])[0].startswith("base")
    assert labels([point, point]) == ["none (1)", "none (2)"]
    strict, young = ({**point, "rules": {"times_median": 4, "gap": 1.5, **more}} for more in ({}, {"phi": 20}))
    ruled = [{**point, "rules": {"times_median": 3, "gap": 1.5}}, strict, young]
    assert labels(ruled) == ["times median 3", "times median 4", "times median 4, phi 20"]
    assert labels([point, strict]) == ["fewer rules", "times median 4, gap 1.5"]


def test_histograms_fit_into_what_wandb_takes():
    counts = np.zeros(8192, int)
    counts[100:2000] = np.arange(1900)
    few, edges = narrowed(counts, np.arange(8193.0))
    assert len(few) + 1 == len(edges) <= MOST_BINS + 1
    assert few.sum() == counts.sum()
    assert (edges[0], edges[-1] >= 2000) == (101, True)
    assert narrowed(np.zeros(5, int), np.arange(6.0))[0].size == 0
