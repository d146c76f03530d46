"""docs/reproduce.md: its commands run as they stand, on stand-ins of what it downloads; its arithmetic holds."""

import csv
import json
import math
import re
import shlex
import shutil

import pytest
import yaml

import stand_ins
from chat_server import chat_server
from conftest import ROOT
from videopool.judges.protocol import ASPECTS
from videopool.paths import shipped

PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```\n(videopool .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in re.sub(r" *\\\n *", " ", block).splitlines()
    if line
]
# Per study: the samples that are scored, the groups and tasks with a score of their own, the judge's mean grade.
QA_GRADE = 2.5  # half the verdicts are right and 4, half are wrong and 1
AXES = {"correctness_of_information": 3, "detail_orientation": 2, "contextual_understanding": 4,
        "temporal_understanding": 1, "consistency": 5}  # fmt: skip
ROWS = {
    "pllava_mvbench": (32, set(), {task for tasks in stand_ins.MVBENCH.values() for task in tasks}, None),
    "pllava_vcgbench": (7, set(AXES), {"generic", "temporal", "consistency"}, 3.0),
    "video_llava_msvd": (4, set(), set(), QA_GRADE),
    "video_llava_msrvtt": (4, set(), set(), QA_GRADE),
    "video_llava_tgif": (4, set(), {"object", "color"}, QA_GRADE),
    "video_llava_activitynet": (4, set(), {"yes or no", "object"}, QA_GRADE),
}


def study_of(command):
    return re.search(r"\bstudy=(\S+)", command)[1]


def graded(number, body):
    """A short answer to an even question is right; an axis has a grade of its own."""
    system, user = (message["content"] for message in body["messages"])
    if '"pred"' in user:
        right = "moves 0" in user
        return json.dumps({"pred": "yes" if right else "no", "score": 4 if right else 1})
    (grade,) = [grade for axis, grade in AXES.items() if ASPECTS[axis] in system]
    return json.dumps({"score": grade})


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    stand_ins.data(folder / "DATAS")
    return folder, stand_ins.weights(folder / "weights")


@pytest.mark.parametrize("study", ROWS)
def test_a_row_from_check_to_report(study, downloads, videopool, tmp_path):
    folder, weights = downloads
    shutil.copytree(folder / "DATAS", tmp_path / "DATAS")  # the page's paths are relative to it
    check, plan, evaluate, report = (shlex.split(command)[1:] for command in COMMANDS if study_of(command) == study)
    jobs = [re.search(r"job=(\w+)|$", " ".join(words))[1] for words in (check, plan, evaluate, report)]
    assert jobs == ["check_videos", "plan", None, "report"]
    quiet = ["logger=none"]

    videopool(*check, *quiet, small=False)
    with (tmp_path / "results" / study / "check_videos.csv").open() as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"ok"}

    (_, *costs) = next(row for row in table("Cost") if study.endswith(ending(row[0])))
    prefill = costs[1].split(" + ")[0]
    assert f"{prefill} TFLOPs of prefill" in videopool(*plan, *quiet, small=False).stdout

    base, lora, other = weights.values()
    here = [f"model.source={base}", f"lora.checkpoint={lora}"] if "pllava" in evaluate[0] else [f"model.source={other}"]
    with chat_server(graded) as server:
        local = [f"judge.base_url={server.base_url}", "judge.key_env=null"] if "judge=openai" in evaluate else []
        limits = ["benchmark.max_new_tokens=3", "job.workers=0"]
        videopool(*evaluate, *quiet, *here, *local, *limits, small=False)
        assert {body["model"] for body in server.asked} == ({"gpt-3.5-turbo-0125"} if local else set())
    samples, groups, tasks, grade = ROWS[study]
    (folder,) = (tmp_path / "results" / study).glob("*/metrics.json")
    metrics = json.loads(folder.read_text())
    assert (metrics["n"], metrics["n_failed"]) == (samples, 0)
    assert groups == set(metrics["groups"]) - {"all"}
    assert tasks == {task for task in metrics["tasks"] if task}
    assert metrics.get("judge_grade") == grade
    for axis in groups:
        assert metrics["groups"][axis]["judge_grade"] == AXES[axis]
    records = [json.loads(line) for line in (folder.parent / "records.jsonl").read_text().splitlines()]
    frames, tokens = (16, 2304) if "pllava" in evaluate[0] else (8, 8 * (36 + 1))
    assert {(len(r["frame_indices"]), r["visual_tokens"]) for r in records} == {(frames, tokens)}

    videopool(*report, *quiet, small=False)
    written = (tmp_path / "results" / study / "table.md").read_text().replace("\\", "")
    value = re.match(r"[\d.]+", expected()[study][1])[0]
    name = "PLLaVA 7B" if "pllava" in study else "Video-LLaVA 7B"
    assert re.search(rf"\| {metrics_benchmark(evaluate)}/test \| {name} \| {value} \|", written)


def metrics_benchmark(words):
    return next(word.split("=")[1] for word in words if word.startswith("benchmark="))


def ending(row):
    """The last word of a row's study."""
    return row.split(", ")[-1].removesuffix("-QA").lower()


def table(heading):
    """Rows of the first table under a heading of the page, as lists of cells."""
    text = PAGE.split(f"\n## {heading}\n")[1]
    rows = text[text.index("|") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]


def expected():
    return {row[-1]: row for row in table("What to expect")}


def test_the_page_and_the_published_figures_agree():
    published = yaml.safe_load((shipped("experiments") / "published.yaml").read_text())["published"]
    for study, row in expected().items():
        model, name = row[0].replace("-7B", " 7B").split(", ")
        benchmark = name.lower().replace("-", "_")
        (value,) = [p["value"] for p in published if (p["model"], p["benchmark"]) == (model, f"{benchmark}/test")]
        assert row[1].startswith(f"{value} "), study
    assert set(expected()) == set(ROWS)


def test_half_widths_and_hours_follow_from_the_columns():
    for _, published, questions, per_clip, independent, clustered, _ in expected().values():
        if not independent:
            continue  # of grades
        share = float(published.split()[0]) / 100
        width = 196 * math.sqrt(share * (1 - share) / int(questions))
        assert float(independent) == pytest.approx(width, abs=0.06)
        assert float(clustered) == pytest.approx(width * math.sqrt(1 + 0.1 * (int(per_clip) - 1)), abs=0.06)
    for row, clips, tflops, reading, tokens, writing in table("Cost"):
        each = sum(map(float, tflops.split(" + ")))
        assert float(reading) == pytest.approx(int(clips) * each / 125 / 3600, abs=0.006), row
        assert float(writing) == pytest.approx(int(clips) * int(tokens) * 0.035 / 3600, abs=0.006), row


def test_commands_can_be_pasted_into_any_shell():
    for command in COMMANDS:
        assert command.startswith("videopool ")
        assert not re.search(r"[#\[\]{}()*?$!~&;<>|`]", re.sub(r"'[^']*'", "", command)), command
