"""The keys at the top of a configuration, and what is chosen by name."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from videopool.commandline.top_level import check_choices, check_top_level
from videopool.commandline.words import quoted

GROUPS = (
    "features", "pooling", "frames", "job", "benchmark", "prompt", "lora", "model", "compat", "judge", "trainer",
    "logger",
)  # fmt: skip


@pytest.mark.parametrize(
    "word",
    [
        *(f"seed={value}" for value in ("abc", "null", "1.5", "-1", "true", "[1]", "99999999999999999999", "'7'")),
        *(f"force={value}" for value in ("abc", "null", "1", "0", "'true'")),
        *(f"study={value}" for value in ("null", "''", "'  '", ".", "..", "../x", "a/b", "/a", "a/")),
        *(f"study={value}" for value in ("true", "[a]", "{a: 1}")),
        *(f"{key}={value}" for key in ("results_dir", "data_dir") for value in ("null", "''", "true", "[a]")),
        *(f"{group}=null" for group in GROUPS),
    ],
)  # fmt: skip
def test_what_no_job_can_use_is_told_by_its_key(hydra_conf, word):
    config = hydra_conf()
    OmegaConf.set_struct(config, False)
    key, _, value = word.partition("=")
    config[key] = OmegaConf.create(f"x: {value}").x
    with pytest.raises(ValueError, match=rf"^{key}=") as told:
        check_top_level(config)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("study", ["a b", "vidéo 中文", "a.b", "-x", ".hidden", "...", 7, 1.5])
def test_names_that_folders_can_have_are_fine(hydra_conf, study):
    config = hydra_conf()
    config.study = study
    check_top_level(config)
    assert config.study == str(study)


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "\udcff"])
def test_names_that_no_folder_should_have_are_told(hydra_conf, name):
    config = hydra_conf()
    config.study = name
    with pytest.raises(ValueError, match="no folder can have this name"):
        check_top_level(config)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("frames=8", "frames.num=8"),
        ("frames=1_6", "frames.num=16"),
        ("frames=8.5", "frames.num=8.5"),
        ("trainer=2", "trainer.devices=2"),
        ("pooling=5", "adaptive"),
        ("model=7", "mini"),
        ("model=null", "mini"),
        ("pooling={a:1}", "adaptive"),
        ("logger=false", "wandb"),
    ],
)
def test_a_number_for_a_name_is_told_with_what_was_meant(word, meant):
    options = {
        "frames": ["uniform"],
        "pooling": ["adaptive"],
        "model": ["mini"],
        "trainer": ["ddp"],
        "logger": ["wandb"],
    }
    with pytest.raises(ValueError, match="is chosen by name") as told:
        check_choices(OverridesParser.create().parse_overrides([word]), lambda group: options.get(group, []))
    assert meant in str(told.value)
    words = ["study=7", "frames=uniform", "frames.num=8", "pooling=adaptive"]
    check_choices(OverridesParser.create().parse_overrides(words), lambda group: options.get(group, []))


@pytest.mark.parametrize("value", ["vidéo", "ü ber 中文", "/daten/vidé os", "é,a,中", "a\\é"])
def test_hydra_takes_names_that_are_not_ascii(value):
    (override,) = OverridesParser.create().parse_overrides([quoted(f"study={value}", multirun=True)])
    found = override.value()
    found = [str(getattr(one, "text", one)) for one in found.list] if override.is_sweep_override() else [found]
    assert found == value.split(",")
    for word in ("study=a", "study='é'", "study=null", "study=${seed}", "pooling.shape=[8,6,6]"):
        assert quoted(word) == word
