"""Tasks of lmms-eval: fields, templates, values, and functions that run only if they are allowed to."""

import json

import pytest

from composed import composed
from toy_task import write_tasks
from videopool.benchmarks import BenchmarkError, load_lmms_task
from videopool.config.build import build

DOCS = [
    {"video": "a.mp4", "question": "what ?", "options": ["red", "blue"], "answer": 1, "right": "B"},
    {"video": "b.mp4", "question": "who ?", "options": ["he", "she", "it"], "answer": 0, "right": "A"},
]
TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: docs.json, train: none.json}}
test_split: test
output_type: %s
doc_to_text: "{{question | upper}} {%% for one in options %%}[{{one}}]{%% endfor %%}"
doc_to_visual: video
doc_to_target: answer
doc_to_choice: "{{options}}"
description: "Watch. "
"""
CODE = """\
import re

def visual(doc):
    return [doc["video"]]

def text(doc, kwargs):
    return kwargs["before"] + doc["question"]

def bad(doc):
    raise KeyError("nothing")
"""


@pytest.fixture
def task(tmp_path):
    def write(text=TASK % "multiple_choice", docs=DOCS, name="mine.yaml"):
        (tmp_path / "docs.json").write_text(docs if isinstance(docs, str) else json.dumps(docs))
        (tmp_path / "utils.py").write_text(CODE)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_fields_and_templates(task, tmp_path):
    benchmark = load_lmms_task(task(), root=tmp_path)
    assert (benchmark.id, benchmark.split, benchmark.scoring) == ("lmms_eval_mine/test", "test", "cloze")
    first, second = benchmark.samples
    assert (first.id, first.question, first.options, first.answer) == (
        "0", "Watch. WHAT ? [red][blue]", ("red", "blue"), "blue",
    )  # fmt: skip
    assert (second.id, second.clip, second.clip_id, second.answer) == ("1", tmp_path / "b.mp4", "b.mp4", "he")


def test_what_the_user_says_replaces_what_the_task_says(task, tmp_path):
    text = TASK % "generate_until" + "doc_to_visual: !function utils.visual\n"
    with pytest.raises(
        BenchmarkError, match=r"doc_to_visual is the function utils.visual, which is not run.*functions=true"
    ):
        load_lmms_task(task(text), root=tmp_path)
    more = {"doc_to_visual": "video", "doc_to_text": "question", "doc_to_target": "right"}
    benchmark = load_lmms_task(task(text), root=tmp_path, limit=1, **more)
    (sample,) = benchmark.samples
    assert benchmark.scoring == "likelihood"
    assert (sample.question, sample.answer) == ("Watch. what ?", "blue")


def test_functions_run_if_the_user_trusts_them(task, tmp_path):
    text = TASK % "generate_until" + (
        "doc_to_visual: !function utils.visual\ndoc_to_text: !function utils.text\n"
        "lmms_eval_specific_kwargs: {default: {before: 'Look. '}, other: {before: 'No. '}}\ndoc_to_choice: null\n"
    )
    benchmark = load_lmms_task(task(text), root=tmp_path, functions=True)
    assert [sample.question for sample in benchmark.samples] == ["Watch. Look. what ?", "Watch. Look. who ?"]
    assert (benchmark.scoring, benchmark.samples[0].answer) == ("generate", "1")
    (tmp_path / "utils.py").write_text(CODE + "\n# another version\n")
    assert (
        load_lmms_task(tmp_path / "mine.yaml", root=tmp_path, functions=True).annotation_hash
        != benchmark.annotation_hash
    )
    with pytest.raises(BenchmarkError, match=r"utils\.bad: KeyError"):
        load_lmms_task(task(text + "doc_to_target: !function utils.bad\n"), root=tmp_path, functions=True)
    with pytest.raises(BenchmarkError, match=r"no .*lacking.py for the function lacking.f"):
        load_lmms_task(task(text + "doc_to_target: !function lacking.f\n"), root=tmp_path, functions=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "task: x\ntest_split: test\ndataset_path: lmms-lab/MVBench\n",
            "lmms-lab/MVBench on the hub; say benchmark.documents",
        ),
        ("task: x\ndataset_path: json\n", "no test_split"),
        ("group: g\ntask: [a, b]\n", "a group of tasks; name one of a, b"),
        ("- 1\n", "keys and values"),
        ("a: [\n", "no YAML"),
        ("include: mine.yaml\n", "include one another"),
        (TASK % "x" + "doc_to_text: '{{nothing}}'\n", "doc_to_text='{{nothing}}' cannot be filled in"),
        (TASK % "x" + "doc_to_text: null\n", "has no doc_to_text"),
        (TASK % "x" + "doc_to_text: \"{{''.__class__.__mro__}}\"\n", "cannot be filled in"),  # a template is no program
        (TASK % "x" + "doc_to_choice: '{{question}}'\n", "doc_to_choice gives no list"),
        (TASK % "x" + "doc_to_target: 7\n", "doc_to_target='7' is none of the 2 options"),
        (TASK % "x" + "doc_to_visual: options\n", "path of one clip, got list"),
        ("x: !!python/object/apply:os.system ['true']\n", "no YAML"),
    ],
)
def test_one_line_for_what_cannot_be_read(task, tmp_path, text, words):
    with pytest.raises(BenchmarkError) as error:
        load_lmms_task(task(text), root=tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_documents_from_elsewhere_and_lines_in_a_json_file(task, tmp_path):
    (tmp_path / "hub").mkdir()
    for name in ("test", "train"):
        (tmp_path / "hub" / f"{name}-00000-of-00001.json").write_text(
            "\n".join(json.dumps({**doc, "question": f"{name} ?"}) for doc in DOCS)
        )
    path = task((TASK % "multiple_choice").replace("dataset_path: json", "dataset_path: lmms-lab/some"))
    samples = load_lmms_task(path, root=tmp_path, documents=tmp_path / "hub").samples
    assert [sample.question.split(" [")[0] for sample in samples] == ["Watch. TEST ?"] * 2


def test_the_toy_benchmark_as_a_task_is_the_toy_benchmark(tmp_path, data_dir):
    words = ("benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=2", f"data_dir={data_dir}")
    own = build(composed(*words), "benchmark")
    write_tasks(own, tmp_path)
    prompt = build(composed(), "prompt")
    for name in ("toy_choice", "toy_write"):
        samples = build(composed("benchmark=lmms_task", f"benchmark.task={tmp_path}/{name}.yaml"), "benchmark").samples
        for sample, right in zip(samples, own.samples, strict=True):
            assert sample.clip == right.clip.absolute()
            assert sample.question == prompt.question_text(right.question, right.options)
            place = right.options.index(right.answer)
            assert sample.answer == (f"({'ABCDEFGH'[place]}" if name == "toy_choice" else right.answer)
    clips = {sample.clip_id: sample.clip for sample in samples}
    assert {path.name for path in clips.values()} == set(clips)
