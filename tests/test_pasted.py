"""Every command on the pages: pasted into bash and zsh it is the same words, and the program does what they say."""

import json
import shutil
import subprocess
from itertools import zip_longest

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import random_models
import stand_ins
from chat_server import chat_server
from conftest import ROOT
from pages import FILE, PAGES, SHELL, blocks, own_files
from videopool.paths import shipped

# Stands for each program: notes its words, with a mark after the last, and does nothing.
NOTE = """#!/bin/sh
printf '%s\\0' "${0##*/}" "$@" '<end>' >> "$NOTED"
"""
PROGRAMS = (
    "videopool", "make", "python", "python3", "pip", "pytest", "wandb", "git", "docker", "uv", "conda", "rm",
    "pdflatex", "sphinx-build", "hf",
)  # fmt: skip
WRONG = ("no matches found", "command not found", "not found:", "parse error", "syntax error", "event not found")
SHELLS = ("source", "export", "cd", "mkdir", "eval")  # what a shell does itself


def pasted(shell, text, folder):
    """The words of the commands that an interactive shell starts when a text is pasted, and what it complains of."""
    programs = folder / "programs"
    (folder / ".venv").mkdir()
    programs.mkdir()
    (folder / ".venv" / "bin").symlink_to(programs)
    for name in PROGRAMS:
        (programs / name).write_text(NOTE)
        (programs / name).chmod(0o755)
    (programs / "activate").touch()
    (folder / "results" / "mine" / "wandb" / "offline-run-1").mkdir(parents=True)  # what a page names by a pattern
    noted = folder / "noted"
    noted.touch()
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "NOTED": str(noted), "TERM": "dumb"}
    options = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"]}[shell]
    done = subprocess.run(
        [shutil.which(shell), *options, "-i", "-s"],
        input=text, capture_output=True, text=True, env=environment, cwd=folder, timeout=60, check=False,
    )  # fmt: skip
    words, ended = [[]], noted.read_text().split("\0")[:-1]
    for word in ended:
        words.append([]) if word == "<end>" else words[-1].append(word)
    words = [each for each in words if "-sc" not in each]  # of a completion that a shell evaluates
    wrong = [line for line in done.stderr.splitlines() if any(one in line for one in WRONG)]
    return words[:-1], wrong


def alike(found, expected):
    """Whether a program got the words of the page; what the shell replaces may be anything."""
    if None in (found, expected) or len(found) != len(expected):
        return False
    program, *others = expected
    pairs = zip(found, [program.rpartition("/")[2], *others], strict=True)
    return all(one == other or {"$", "*"} & set(other) for one, other in pairs)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_pasted_commands_are_the_words_on_the_page(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    faults = {}
    for number, page in enumerate(PAGES):
        shown = [block for block in blocks(page) if block.kind in SHELL]
        expected = [words for block in shown for words in block.commands if words[0] not in SHELLS]
        folder = tmp_path / str(number)
        folder.mkdir()
        found, wrong = pasted(shell, "\n".join(block.text for block in shown) + "\n", folder)
        unlike = [pair for pair in zip_longest(found, expected) if not alike(*pair)]
        if wrong or unlike:
            faults[str(page.relative_to(ROOT))] = wrong or unlike
    assert not faults, faults


def test_the_shells_notice_what_they_would_do_to_words(tmp_path):
    """The check can fail: a comment and a bare bracket."""
    for shell, text in (("zsh", "videopool frames.num=2  # two\n"), ("zsh", "videopool job.poolings=[a,b]\n")):
        if shutil.which(shell):
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            words, wrong = pasted(shell, text, folder)
            assert wrong or words != [["videopool", "frames.num=2"]]


# Pages whose commands other tests carry out: tests/test_tutorial.py, tests/test_reproduce.py.
ELSEWHERE = ("docs/tutorial.md", "docs/faq.md", "docs/reproduce.md")
# What makes a command small, by one of its words.
LESS = {
    "experiment=quickstart": ["frames.num=1", "pooling=none,average"],
    "experiment=compression": ["frames.num=2", "pooling=even,visionzip", "pooling.share=0.1"],
    "experiment=finetune_pooling": ["view=none_f4", "seed=0"],
    "job=finetune": [
        "training_data.sources.shapes.clips=60", "training_data.sources.shapes.per_task=8", "training.steps=1",
        "training.global_batch=1", "training.micro_batch=1", "training.lora.rank=4",
    ],
    "job=norms": ["frames.num=2"],
    "clip=00036": ["benchmark.limit=null"],
    "frames.num=16": ["frames.num=5"],
    "job=show": ["frames.num=2"],
    "trainer.devices=2": ["trainer.accelerator=cpu"],
    "judge=local": ["judge.source=my_llava"],
    "job=pretrain": [
        "job.images=24", "job.recipe.check_images=8", "job.recipe.final_images=8", "job.recipe.language.steps=2",
        "job.recipe.language.stop=2", "job.recipe.letters.steps=2", "job.recipe.language.images=4",
        "job.recipe.letters.images=4",
    ],
}  # fmt: skip
FEW_CLIPS = ["clips=12", "per_task=1"]  # of a world that no other test renders
LESS["experiment=finetune_pooling"] += [word for word in LESS["job=finetune"] if "shapes" not in word]
LESS["experiment=finetune_pooling"] += [f"training_data.sources.shapes_events.{word}" for word in FEW_CLIPS]
LESS["experiment=finetune_pooling"] += [f"benchmark.{word}" for word in FEW_CLIPS]
LESS["benchmark=shapes_images"] = [f"benchmark.{word}" for word in (*FEW_CLIPS, "limit=1")]
# Words of commands that need a server, a cluster or a recipe's data: their configuration is composed.
COMPOSED = (
    "logger.mode=online", "job.entity=my_team", "hydra/launcher=submitit_slurm", "training_data=videochat2",
    "judge=local", "lora.checkpoint=run/step1000,run/step2000", "hydra/launcher=joblib",
    "job.size=llava7b", "model=llava_video_7b", "model=qwen2.5_vl_7b",
    *(
        f"benchmark={name}"
        for name in (
            "longvideobench", "mlvu", "mlvu_test", "tempcompass", "perceptiontest", "lvbench", "tvbench", "tomato",
            "motionbench", "egoschema_full", "recaption",
        )
    ),
)  # fmt: skip
DRAWN = ["job=report", "study=mine"]  # with its figures
TINY = ("benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1")  # of the world that other tests render
TASKS = "++benchmark.tasks=[existence,event_order]"  # of those that the bundled benchmark has
SERVED = {"judge=openai": "judge", "model=api": "model"}
VAL = """video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4
cat,12,96,64,what runs,1,0,CW,a cat,a dog,a cow,a man,a car
"""
SHEET = "video_name,question,answer,question_id,question_type,a0,a1\n{},who,1,q,CW,a,b\n"


def set_up(folder):
    """The files that the pages name: own ones, and those of public benchmarks."""
    own_files(folder)
    stand_ins.data(folder / "DATAS")
    qa, vcg = folder / "DATAS" / "VideoQA", folder / "DATAS" / "VCGBench"
    for name, place in {
        "MVBench": folder / "DATAS" / "MVBench",
        "Test_Videos": vcg / "Videos" / "Benchmarking",
        "Benchmarking_QA": vcg / "Zero_Shot_QA" / "Benchmarking_QA",
        "YouTubeClips": qa / "MSVD_Zero_Shot_QA" / "videos",
        "MSVD_Zero_Shot_QA": qa / "MSVD_Zero_Shot_QA",
        "ActivityNet": qa / "ActivityNet",
        "NExTVideo": folder / "my_videos",
        "Charades_v1_480": folder / "my_videos",
    }.items():
        (folder / name).symlink_to(place)
    (folder / "val.csv").write_text(VAL)
    (folder / "NExT_QA.csv").write_text(SHEET.format("cat"))
    (folder / "STAR.csv").write_text(SHEET.format("cat_0_2"))
    (folder / "video_mme" / "data").mkdir(parents=True)
    shutil.copy(folder / "my_videos" / "cat.mp4", folder / "video_mme" / "data" / "cat.mp4")
    row = {
        "videoID": "cat", "question_id": "1-1", "question": "who?", "options": ["A. x", "B. y", "C. z", "D. w"],
        "answer": "B", "duration": "short", "domain": "d", "sub_category": "s", "task_type": "t",
    }  # fmt: skip
    pd.DataFrame([row]).to_parquet(folder / "video_mme" / "test-00000-of-00001.parquet")
    lmms_eval(folder)


def lmms_eval(folder):
    """The task of the page, its documents, and what lmms-eval logged of another model."""
    text = next(block.text for block in blocks(ROOT / "docs" / "lmms_eval.md") if block.text.startswith("# tasks/"))
    (folder / "tasks").mkdir()
    (folder / "tasks" / "doors.yaml").write_text(text)
    document = {"video": "cat", "question": "is the door open?", "options": ["yes", "no"], "answer": 1}
    (folder / "tasks" / "doors.json").write_text(json.dumps([document]))
    (folder / "logs" / "other").mkdir(parents=True)
    score = {"videoID": "v1", "pred_answer": "A", "answer": "A"}
    line = {"doc_id": 0, "target": "A", "filtered_resps": "A", "input": "who?", "videomme_perception_score": score}
    (folder / "logs" / "other" / "20260101_000000_samples_videomme.jsonl").write_text(json.dumps(line))


def answered(number, body):
    return json.dumps({"pred": "yes", "score": 4}) if "pred" in str(body["messages"]) else "A"


def prepared(words, folder, server):
    """A command's words with what makes it small and sets it up on this machine."""
    words = [own_export(word, folder) for word in fewer(words)]
    if not any(word.startswith(("job=plan", "job=inspect", "help", "--")) for word in words):
        own = any(word.startswith("benchmark=") for word in words)
        words += [] if any(word.startswith("frames.num=") for word in words) else ["frames.num=2"]
        words += [] if own else [*TINY] if "experiment=finetune_pooling" in words else [*TINY, TASKS]
        words += [] if any(word.startswith(("job=", "experiment=finetune")) for word in words) else ["job.workers=0"]
    for word in words[:]:
        words += [less for less in LESS.get(word, ()) if not less.startswith("pooling=") or "-m" in words]
        if word in SERVED:
            words += [f"{SERVED[word]}.base_url={server.base_url}", f"{SERVED[word]}.key_env=null"]
    if "job=assemble" in words:
        parts = random_models.save_parts(folder / "parts of models")
        words.append(f"job.tower={parts / 'clip'}")
        words += [] if any("videopool:" in word for word in words) else [f"job.language={parts / 'llama'}"]
    if "model=pllava_7b" in words and "job=plan" not in words:
        base, lora, _ = stand_ins.weights(folder / "weights").values()
        words += [f"model.source={base}", f"lora.checkpoint={lora}"]
    return words


def fewer(words):
    """A sweep of both ends of its first list, but for plans and trainings, and of each other list the last value."""
    short, first = [], not {"job=plan", "job=finetune"} & set(words)
    for word in words:
        (each,) = OverridesParser.create().parse_overrides([word]) if "=" in word and "," in word else [None]
        if each and each.is_sweep_override():
            values = list(each.sweep_string_iterator())
            if (shipped("conf") / each.key_or_group).is_dir():
                assert all((shipped("conf") / each.key_or_group / f"{value}.yaml").is_file() for value in values), word
            word = f"{each.key_or_group}={values[0]},{values[-1]}" if first else f"{each.key_or_group}={values[-1]}"
            first = False
        short.append(word)
    return short


def own_export(word, folder):
    """A checkpoint's path with the name that this run gave it."""
    key, _, path = word.partition("=")
    return f"{key}={next(folder.glob('results/tuned/*/export'))}" if path.startswith("results/tuned/") else word


def videopools(page):
    return [
        words[1:]
        for block in blocks(page)
        if block.kind in SHELL
        for words in block.commands
        if words[0].rpartition("/")[2] == "videopool"
    ]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if videopools(page) and str(page.relative_to(ROOT)) not in ELSEWHERE],
    ids=lambda page: page.stem,
)
def test_the_program_takes_them(page, forked, tmp_path, data_dir, hydra_conf):
    folder = tmp_path / "here"
    folder.mkdir()
    set_up(folder)
    (folder / "data").symlink_to(data_dir)
    calls = videopools(page)
    ours = [words for words in calls if "study=mine" in words]
    if ours and ours[0][0].startswith("job="):  # of a study on another page
        calls.insert(0, ["-m", "pooling=none,average", "frames.num=8", "study=mine"])
    for block in blocks(page):
        if block.kind in SHELL and (written := FILE.findall(block.text)):
            made = [" ".join(words) for words in block.commands if words[0] == "mkdir"]
            subprocess.run(["bash", "-c", "\n".join(made + written)], cwd=folder, check=True)
    runs_of = [] if page.stem == "dashboards" else ["logger=none"]
    with chat_server(answered) as server:
        for call in calls:
            if {*COMPOSED} & {*call}:
                hydra_conf(*(word.partition(",")[0] if "[" not in word else word for word in call if word != "-m"))
                continue
            words = prepared(call, folder, server)
            quiet = runs_of if not {"help", "--help", "--version"} & set(words) else []
            figures = "svg" if call == DRAWN else "none"
            env = {"OPENAI_API_KEY": "none", "OMP_NUM_THREADS": "1", "VIDEOPOOL_FIGURES": figures}
            done = forked.run([*words, *quiet], folder, env=env)
            assert done.returncode == 0, (call, done.stdout[-2000:], done.stderr[-2000:])
            assert done.stdout.strip(), call
