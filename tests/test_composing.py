"""Hydra's private seams: a multirun composes each point once, reads each file once, and is refused before it starts."""

import inspect
import json
import subprocess
import sys

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository

SWEEP = """
import collections, json, sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository

counts = {"points": collections.Counter(), "files": collections.Counter(), "run": []}

def counted(owner, name, kind, key):
    method = getattr(owner, name)
    def call(*parts):
        counts[kind][key(parts)] += 1
        return method(*parts)
    setattr(owner, name, call)

counted(ConfigLoaderImpl, "load_sweep_config", "points", lambda parts: " ".join(parts[2]))
counted(ConfigRepository, "load_config", "files", lambda parts: parts[1])
import hydra
from videopool.composing import compose_once

compose_once()
hydra.main(version_base="1.3", config_path=sys.argv.pop(1), config_name="config")(
    lambda config: counts["run"].append([config.kind.name, config.number])
)()
json.dump(counts, sys.stdout)
"""


def test_a_multirun_composes_each_point_once_and_reads_each_file_once(tmp_path):
    (tmp_path / "kind").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [kind: a, _self_]\nnumber: 0\n")
    for name in "ab":
        (tmp_path / "kind" / f"{name}.yaml").write_text(f"name: {name}\n")
    words = [str(tmp_path), "-m", "kind=a,b", "number=1,2", "hydra/hydra_logging=disabled"]
    done = subprocess.run([sys.executable, "-c", SWEEP, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["run"] == [["a", 1], ["a", 2], ["b", 1], ["b", 2]]
    assert counts["points"] == dict.fromkeys(
        ["kind=a number=1", "kind=a number=2", "kind=b number=1", "kind=b number=2"], 1
    )
    assert {"config", "kind/a", "kind/b"} <= counts["files"].keys()
    assert set(counts["files"].values()) == {1}


def test_the_seams_take_what_they_took():
    taken = {
        ConfigLoaderImpl.load_sweep_config: ["self", "master_config", "sweep_overrides"],
        ConfigRepository.load_config: ["self", "config_path"],
    }
    for seam, names in taken.items():
        assert list(inspect.signature(seam).parameters) == names
    assert list(inspect.signature(ConfigLoaderImpl.load_configuration).parameters)[:3] == [
        "self",
        "config_name",
        "overrides",
    ]
    assert callable(ConfigRepository.get_group_options)
