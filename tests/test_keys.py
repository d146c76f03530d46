"""No mistyped word leads to another run: each is refused in one line that says what was meant."""

import subprocess
import sys

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from yaml import YAMLError

from composed import once, seams_as
from videopool.app import register_experiments
from videopool.commandline.composing import check_configurations, in_one_line
from videopool.commandline.groups import Groups
from videopool.commandline.keys import parameters
from videopool.commandline.words import parted, quoted, understood
from videopool.paths import shipped

MINE = """
from videopool.pooling import Pooling

class First(Pooling):
    def __init__(self, size=1):
        super().__init__()

class Free(First):
    def __init__(self, **anything):
        super().__init__()
"""


@pytest.fixture
def composed(monkeypatch, tmp_path):
    """Composes as the program does, with the folder `conf` in tmp_path, if there is one, as --config-dir."""
    register_experiments(shipped("experiments"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)

    def call(*words):
        path = create_config_search_path(str(shipped("conf")))
        if (tmp_path / "conf").exists():
            of = {"provider": "command-line", "path": f"file://{tmp_path}/conf"}
            path.prepend(**of, anchor=SearchPathQuery(provider="schema"))
        return ConfigLoaderImpl(path).load_configuration("config", [*words, "hydra.job.name=x"], RunMode.RUN)

    with seams_as(once()):  # files are read once for all tests
        check_configurations.__wrapped__()
        yield call


def own(tmp_path, **files):
    for name, text in files.items():
        path = tmp_path / "conf" / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def refused(compose, *words):
    with pytest.raises((HydraException, YAMLError)) as told:
        compose(*words)
    line = in_one_line(told.value)
    assert "\n" not in line
    for advice in ("append", "search path", "full_key", "override '", "https"):
        assert advice not in line
    return line


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("poolng=adaptive", "pooling"), ("+poolng=adaptive", "pooling"), ("++poolng=adaptive", "pooling"),
        ("+model.dtyp=bfloat16", "dtype"), ("+lora.alfa=3", "alpha"), ("+job.wrkers=3", "workers"), ("++x=1", "x"),
        ("+frames.nm=8", "num"), ("frames.nm=8", "num"), ("pooling=adaptive +pooling.shap=[1,2,3]", "shape"),
        ("+trainer.presicion=16", "precision"), ("+trainer.limit_predict_batch=2", "limit_predict_batches"),
        ("trainer.limit_predict_batches=2", "+trainer.limit_predict_batches"), ("+hydra.x=1", "hydra"),
        ("hydra.sweep.dri=x", "dir"), ("pooling=adaptve", "adaptive"), ("pooling=zoo/adaptve", "zoo/adaptive"),
        ("experiment=quikstart", "quickstart"), ("job=nroms", "norms"), ("hydra/launcher=jobib", "joblib"),
        ("pooling.shape=[8,6]", "pooling=adaptive"), ("+pooling=adaptive", "without the plus"), ("+sed=3", "seed"),
        ("++pooling=adaptive", "without the plus"), ("+pooling@foo=average", "without the plus"),
        ("num=8", "frames.num"), ("frame.num=8", "frames.num"),
        ("+job.stages=[encoder]", "job=norms"), ("clip=x", "job=show"), ("+prompt.trimm=true", "trim"),
        ("+benchmark.limt=3", "limit"), ("benchmark=clips +benchmark.columns.video_nme=x", "video_name"),
        ("+judge.temprature=0", "judge=none has no temprature"), ("judge=openai +judge.time_out=3", "timeout"),
        ("~pooling.stage", "pooling.stage=..."), ("~frames.num", "frames.num=..."), ("~trainer.devices", "devices"),
        ("~benchmark.scoring", "scoring"), ("~seed", "seed=..."), ("~lora.alpha", "alpha"),
        ("pooling._target_=mine.First +pooling.sze=3", "size"), ("pooling._target_=mine.First pooling.size=3",
        "+pooling.size"),
        ("pooling=chain pooling.steps=[{_target_:mine.First,sze:3}]", "size"),
        ("pooling=chain pooling.steps=[{_target_:videopool.pooling.Median,shap:[1,2,3]}]", "shape"),
        ("pooling.stage=encodr", "encoder"), ("benchmark.scoring=likelyhood", "likelihood"),
        ("model.dtype=bf16", "bfloat16"),
        ("frames.num=a", "number"), ("force=yess", "true or false"), ("job=norms job.texture=maybe", "true or false"),
        ("training.steps=3", "job=finetune"), ("experiment=baseline_pllava +pooling.shap=1", "shape"),
    ],
)  # fmt: skip
def test_what_nothing_reads_is_refused_with_what_was_meant(composed, words, meant):
    assert meant in refused(composed, *words.split())


@pytest.mark.parametrize(
    "words",
    [
        "pooling._target_=mine.First +pooling.size=3", "pooling._target_=mine.Free +pooling.whatever=3",
        "+trainer.limit_predict_batches=2", "+trainer.num_nodes=2", "+prompt.trim=true",
        "pooling=zoo/strided +pooling.mode=max",
        "+kept=here features=disk features.root=${kept}", "+benchmark.tasks=[existence]",
        "benchmark=mvbench +benchmark.groups={a:[b]}",
        "+benchmark.groups.mine=[existence]", "benchmark=qa_sheet +benchmark.task_names.0=motion",
        "job=finetune +training_data.sources.more={_target_:videopool.training_data.load_llava,path:a,root:b}",
        "experiment=zoo pooling=none", "experiment=zoo pooling=zoo/adaptive",
        "experiment=high_norm_features job=plan",
        "+hydra.job.env_set.X=1", "hydra.sweep.dir=x", "pooling=adaptive pooling._target_=mine.Free ~pooling.shape",
        "figures=[{_target_:mine.Free,most:10}]", "job=plan model=llava_1.5_7b model.shape={layers:3}",
        "view=none_f4", "~view",
        "frames.num=null", "model=qwen3_vl_8b model.frame_size=clip",
        "job=norms job.p=inf", "trainer.devices=auto", "experiment=finetune_pooling job=plan",
    ],
)  # fmt: skip
def test_what_something_reads_is_accepted(composed, words):
    assert composed(*words.split())


def test_keys_of_own_files_are_checked_too(composed, tmp_path):
    own(
        tmp_path,
        experiment__alfa="defaults: [override /pooling: adaptive]\nlora: {alfa: 3}\n",
        experiment__shap="# @package _global_\ndefaults: [override /pooling: adaptive]\npooling: {shap: [1,2,3]}\n",
        experiment__sed="sed: 3\n",
        experiment__choice="defaults: [override /pooling: adaptve]\n",
        experiment__group="defaults: [override /poolng: adaptive]\n",
        experiment__many="frames: {num: many}\n",
        experiment__broken="study: [a\nlora: 3\n",
        pooling__own="_target_: mine.First\nsze: 3\nstage: encoder\n",
        lora__own="checkpoint: x\nalfa: 3\n",
        model__own="defaults: [local, _self_]\ndtyp: float32\nsource: x\n",
        extra__a="side: 3\n",
    )
    for words, meant in {
        "experiment=alfa": "experiment/alfa.yaml: lora.alfa: lora=none has no alfa; did you mean alpha?",
        "experiment=shap": "did you mean shape?",
        "experiment=sed": "did you mean seed?",
        "experiment=choice": "did you mean adaptive",
        "experiment=group": "cannot override poolng: there is no such group; did you mean pooling?",
        "experiment=many": "frames.num=many: give a number",
        "experiment=broken": "broken.yaml, line 2",
        "pooling=own": "pooling/own.yaml: pooling.sze: mine.First takes no sze; did you mean size?",
        "lora=own": "did you mean alpha?",
        "model=own": "did you mean dtype?",
        "+extra=a": "nothing reads a key or group extra",
    }.items():
        assert meant in refused(composed, words)
    assert composed("+extra=a", "frames.num=${extra.side}").frames.num == 3


def test_an_own_experiment_needs_no_package_line_and_may_have_keys_that_it_reads(composed, tmp_path):
    study = "defaults: [override /pooling: adaptive, override /benchmark: own]\nstudy: mine\nside: 6\n"
    own(
        tmp_path,
        experiment__mine=study + "pooling: {shape: [4, '${side}', '${side}']}\n",
        benchmark__own="defaults: [qa_sheet, _self_]\nid: own\nroot: ~/clips\nannotations: x.csv\n",
    )
    config = composed("experiment=mine")
    assert (config.study, config.pooling.shape, config.benchmark.id) == ("mine", [4, 6, 6], "own")
    assert not config.benchmark.root.startswith("~")
    assert "side" in config


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("pooling = average", "pooling=average"), ("pooling= average", "pooling=average"),
        ("pooling =average", "pooling=average"), ("evaluate", "job=evaluate"), ("job evaluate", "job=evaluate"),
        ("norms", "job=norms"), ("quickstart", "experiment=quickstart"), ("adaptive", "pooling=adaptive"),
        ("evalute", "job=evaluate"), ("frames.num 8", "frames.num=8"), ("pooling", "help pooling"),
        ("pooling=none,average", "-m"), ("pooling.shape=8,6,6", "[8,6,6]"), ("pooling.shape=[8,6",
        "'pooling.shape=[8,6]'"),
        ("pooling.shape=[8, 6, 6]", "'pooling.shape=[8, 6, 6]'"), ("model.name=a]b", "quote"),
        ("--pooling average", "pooling=average"), ("--pooling=average", "pooling=average"), ("--frames.num=8",
        "frames.num=8"),
        ("\u2013m pooling=none", "-m"), ("\u2014help", "--help"), ("-multirun", "--multirun"), ("--confg job",
        "--config-dir"),
    ],
)  # fmt: skip
def test_words_that_are_no_overrides_are_told_with_what_to_write(words, told):
    with pytest.raises(ValueError, match=r".") as error:
        understood(parted(words.split(" "))[1], Groups(), False)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pasted_comment_and_flags_anywhere_are_understood():
    words = ["pooling=average", "--config-dir", "conf", "-m", "frames.num=4,8", "#", "every", "combination=1"]
    flags, others, comment = parted(words)
    assert flags == ["--config-dir", "conf", "-m"]
    assert others == ["pooling=average", "frames.num=4,8"]
    assert comment == "# every combination=1"
    assert understood(["+view=none_f4", "~view"], Groups(), False) == ["view=none_f4", "~view"]


PATHS = ("study", "results_dir", "benchmark.root", "benchmark.annotations", "model.source", "clip", "lora.checkpoint")
NAMES = ("vidé os 中文", "a(b)", "it's", 'a"b', "a&b", "a:b", "a#b", "1_000", "1e3", "a=b", "[x] y", "a{b}",
"C:\\x", "x\\",
    "~/videos", "-x", "a;b", "50%", "a!b", "@x", "a b", "007", "é,a")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_paths_are_taken_as_typed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if "," in name:
        (tmp_path / name).touch()  # a list of values, unless there is such a file
    for key in PATHS:
        (override,) = OverridesParser.create().parse_overrides([quoted(f"{key}={name}")])
        assert override.value() == name


def test_other_texts_are_quoted_where_needed_and_values_stay_values():
    for word, value in {
        "model.name=Größe (7B)": "Größe (7B)", "model.name=it's": "it's",
        "benchmark.questions=null": None, "seed=3": 3,
        "pooling.shape=[8,6,6]": [8, 6, 6], "study='a'": "a", "baseline=average time": "average time",
        "results_dir=${study}": "${study}",
    }.items():  # fmt: skip
        (override,) = OverridesParser.create().parse_overrides([quoted(word)])
        assert override.value() == value
    swept = quoted("study=é,a(b),c", multirun=True)
    (override,) = OverridesParser.create().parse_overrides([swept])
    assert [str(getattr(one, "text", one)) for one in override.value().list] == ["é", "a(b)", "c"]


@pytest.mark.parametrize(("key", "value"), [
    ("share", "0.25"), ("shape", "[8,6,6]"), ("options", "{a:1,b:2}"), ("file", "'a, b'"),
])  # fmt: skip
def test_one_value_goes_to_each_choice_of_a_swept_group(key, value):
    def points(*words):
        read = understood(words, Groups(), True)
        (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(read), None)
        applied = [word for word in read if not OverridesParser.create().parse_override(word).is_sweep_override()]
        return applied, jobs

    word = f"pooling.{key}={value}"
    applied, jobs = points("pooling=visionzip,vidcom2", word, "frames.num=4")
    assert applied == ["frames.num=4"]  # what Hydra applies to the default pooling, before it sweeps
    parsed = [OverridesParser.create().parse_override(one).value() for job in jobs for one in job if key in one]
    assert parsed == [OverridesParser.create().parse_override(word).value()] * 2
    assert [job[0] for job in jobs] == ["pooling=visionzip", "pooling=vidcom2"]
    assert points("pooling=vidcom2", word, "frames.num=4,8")[0] == ["pooling=vidcom2", word]


def test_signatures_are_those_that_python_has():
    import importlib
    import inspect

    import pytorch_lightning

    real = set(inspect.signature(pytorch_lightning.Trainer.__init__).parameters) - {"self"}
    assert parameters("pytorch_lightning.Trainer") == real
    for group in ("pooling", "frames"):
        for _, path in Groups().choices(group):
            target = OmegaConf.load(path).get("_target_")
            if target:
                module, _, name = target.rpartition(".")
                one = getattr(importlib.import_module(module), name)
                taken = set(inspect.signature(one).parameters) - {"args", "kwargs"}
                assert parameters(target) == taken, target
    assert parameters("videopool.benchmarks.load_clips") is None  # it passes others on


OWN = {
    "good": "from videopool.pooling import NoPooling\nclass X(NoPooling):\n    pass\n",
    "syntax": "import torch\n\ndef f(:\n",
    "imports": "import torch\nimport nosuchlibrary\n",
    "names": "x = 1\ny = zz\n",
    "init": "class X:\n    def __init__(self):\n        pass\n        raise RuntimeError('no luck')\n",
}


@pytest.mark.usefixtures("sooner")
def test_a_pooling_in_the_current_folder_is_found_and_its_errors_have_a_line(videopool, tmp_path):
    for name, text in OWN.items():
        (tmp_path / f"{name}.py").write_text(text)
    safe = [
        sys.executable,
        "-P",
        "-m",
        "videopool",
        "job=plan",
        "study=s",
        f"results_dir={tmp_path}",
        "pooling._target_=good.X",
    ]
    done = subprocess.run(safe, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for target, told in {
        "syntax.X": "syntax.py, line 3: SyntaxError", "imports.X": "imports.py, line 2: ModuleNotFoundError",
        "names.X": "names.py, line 2: NameError", "init.X": "init.py, line 4: RuntimeError: no luck",
        "good.Xx": "good has no Xx; did you mean X?", "goood.X": "did you mean good?",
        "videopool.pooling.Adaptve": "did you mean Adaptive?",
    }.items():  # fmt: skip
        (line,) = videopool("job=plan", f"pooling._target_={target}", check=1).stderr.splitlines()
        assert told in line
        assert "installed?" not in line
