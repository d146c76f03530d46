"""Help is what the configuration's files say."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from videopool.commandline.groups import Groups, summary
from videopool.commandline.help import UnknownTopic, asked, overview, topic, welcome
from videopool.commandline.keys import flat
from videopool.paths import shipped

LIGHT = """
import sys
from videopool.app import main
sys.argv = ["videopool", *sys.argv[1:]]
try:
    main()
finally:
    print(sorted({"torch", "hydra", "pytorch_lightning", "transformers"} & set(sys.modules)))
"""


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def light(tmp_path, *words):
    """The program, and which heavy libraries it imported."""
    done = subprocess.run([sys.executable, "-c", LIGHT, *words], cwd=tmp_path, capture_output=True, text=True)
    return done, done.stdout.splitlines()[-1]


def test_the_command_alone_says_what_can_be_done_and_does_nothing(tmp_path):
    done, imported = light(tmp_path)
    assert done.returncode == 0
    assert imported == "[]"
    assert 6 <= done.stdout.count("videopool ") <= 12
    assert welcome() in done.stdout
    assert not list(tmp_path.iterdir())


def test_help_fits_a_terminal():
    lines = overview(Groups()).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert "..." not in "".join(line for line in lines if "[" not in line)  # every job's description is whole
    for group in Groups().names():
        assert group in overview(Groups()) or group == "job"


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["help"], ["help", "pooling"], ["--help", "job=norms"], ["-h", "x=1"]]
)
def test_help_is_light(tmp_path, words):
    done, imported = light(tmp_path, *words)
    assert done.returncode == 0
    assert imported == "[]"
    assert not done.stderr


@pytest.mark.parametrize("words", [["+poolng=adaptive"], ["pooling.stage=encodr"], ["frames.num=a"], ["norms"]])
def test_wrong_words_are_refused_before_libraries_are_imported(tmp_path, words):
    done, imported = light(tmp_path, *words)
    assert done.returncode == 2
    assert "torch" not in imported
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("group", [*Groups().names(), "hydra/launcher"])
def test_every_choice_of_a_group_is_described(group):
    page, groups = topic([group], Groups()), Groups()
    for name, path in groups.choices(group):
        assert f"  {name}" in page
        assert summary(path).split()[0] in page
        assert 10 <= len(summary(path)) <= 200, name
        if name == groups.defaults.get(group):
            assert f"{name} (default)" in page
        assert name in topic([f"{group}={name}"], groups)


@pytest.mark.parametrize(
    "choice",
    [*(f"job={name}" for name, _ in Groups().choices("job")), "benchmark=tgif_qa", "benchmark=recaption",
     "model=pllava_34b", "lora=pllava_7b", "pooling=adaptive_1x6x6", "pooling=st_gridpool", "trainer=fsdp",
     "training_data=shapes_events", "training=pllava", "features=disk"],
)  # fmt: skip
def test_the_keys_shown_are_those_that_hydra_composes(hydra_conf, choice):
    group, _, name = choice.partition("=")
    groups = Groups()
    job = ["job=finetune"] if group.startswith("training") else []
    composed = dict(flat(OmegaConf.to_container(hydra_conf(*job, choice))))
    shown = {key.name: key for key in groups.keys(groups.file(group, name))}
    wanted = {
        key for key in composed if key.startswith(f"{group}.") and not any(part.isdigit() for part in key.split("."))
    }
    missing = wanted - set(shown)
    assert not {key for key in missing if not any(shown.get(above) for above in parents(key))}
    assert not set(shown) - set(composed)


def parents(key):
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(2, len(parts))]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pooling=adaptive"], ["pooling.shape=[16, 12, 12]", "null keeps an axis", "encoder: before the projector"]),
        (["pooling/adaptive"], ["pooling.shape=[16, 12, 12]"]),
        (["pooling/zoo/adaptive"], ["pooling=zoo/adaptive", "pooling.shape="]),
        (["frames.num"], ["frames.num=16", "frames per clip", "uniform.yaml"]),
        (["pooling.shape"], ["not a key of pooling=none", "generalised_mean"]),
        (["study"], ["study=default", "one folder per point", "config.yaml"]),
        (["job=norms"], ["job.stages=[encoder, projector, pooled]", "outlier thresholds", "Examples", "-m job=norms"]),
        (["norms"], ["job.stages="]),
        (["experiment=quickstart"], ["trade off", "frames.num:", "1,4,16,8", "benchmark=shapes"]),
        (["job.workers"], ["loader processes"]),
    ],
)
def test_a_topic_says_what_its_file_says(words, told):
    page = topic(words, Groups())
    for words in told:
        assert words in page
    assert all(len(line) <= 100 for line in page.splitlines())


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("pooing", "pooling"),
        ("pooling=adaptve", "adaptive"),
        ("frames.nm", "frames.num"),
        ("nroms", "norms"),
        ("xyzzy", "--help"),
    ],
)
def test_an_unknown_topic_is_told_with_what_was_meant(word, meant):
    with pytest.raises(UnknownTopic, match=meant) as told:
        topic([word], Groups())
    assert "\n" not in str(told.value)


def test_every_job_has_examples_of_itself():
    for name, _ in Groups().choices("job"):
        page = asked([f"job={name}", "frames.num=4"], ["--help"], Groups())
        examples = page.partition("Examples\n")[2].partition("\n\n")[0].splitlines()
        assert any(f"job={name}" in line or name == "evaluate" for line in examples), name
        assert all(line.strip().startswith("videopool ") and "#" not in line for line in examples)


def test_own_groups_and_choices_are_shown(tmp_path):
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "mine.yaml").write_text("# My own questions.\ndefaults: [qa_sheet, _self_]\nid: mine\n")
    groups = Groups(tmp_path)
    assert "My own questions" in topic(["benchmark"], groups)
    page = topic(["benchmark=mine"], groups)
    assert "benchmark.id=mine" in page
    assert "the sheet" in page
    assert groups.hidden() is None
    (tmp_path / "benchmark" / "shapes.yaml").write_text("id: mine\n")
    assert groups.hidden() == tmp_path / "benchmark" / "shapes.yaml"


def test_all_files_begin_with_what_they_are():
    for path in shipped("conf").rglob("*.yaml"):
        assert summary(path), path
