"""job=features: what it prints, removes and ends with."""

import os
import re

import pytest

from composed import composed
from made_features import ROWS, SOURCE, WIDTH, key, made
from videopool.features import DiskStore, FeatureSource
from videopool.jobs import features as features_module
from videopool.jobs.run import run_and_tell
from videopool.runtime import exit_code

LIMIT = 1 << 30


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The job in this process: how it ended, and the exit code."""

    def call(*words):
        monkeypatch.setattr(exit_code, "_exit_code", 0)
        paths = [f"results_dir={tmp_path}/results", f"data_dir={tmp_path}", "logger=none"]
        run_and_tell(composed(*paths, "job=features", *words))
        return exit_code.exit_code()

    return call


@pytest.fixture
def root(tmp_path):
    """Where the configuration puts the store: two sources, three clips and one."""
    mini = FeatureSource(
        "pyav", "p" * 64, "0123456789abcdef", "video", "-1", "float32", (ROWS, WIDTH), "cpu sdpa", "av 1", "mini"
    )
    for source, clips, dtype in ((SOURCE, 3, "float16"), (mini, 1, None)):
        kept = DiskStore(tmp_path / "features", LIMIT, dtype)
        for clip in range(clips):
            kept.put(key(clip, source), made(1, 2, 3))
        kept.finish()
    return tmp_path / "features"


def segments(root):
    return sorted(root.rglob("*.safetensors"))


def test_from_the_command_line(videopool, tmp_path):
    """What a point kept, by the words that a user gives."""
    where = [f"features.root={tmp_path}/kept"]
    videopool("features=disk", *where, "frames.num=1", "study=one", "benchmark.limit=1")
    assert "1 sources" in videopool("job=features", *where, small=False).stdout
    path = next((tmp_path / "kept").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    assert str(path) in videopool("job=features", "job.action=verify", *where, check=1, small=False).stderr
    assert "1 damaged" in videopool("job=features", "job.action=prune", *where, small=False).stdout
    assert not list((tmp_path / "kept").rglob("*.damaged"))


def test_listing(run, root, capsys):
    assert run() == 0
    told = capsys.readouterr().out
    for word in (
        "mini",
        "video 01234567, layer -1",
        "float16",
        "float32 on cpu sdpa; pyav",
        "2 sources",
        "most 100 GB",
    ):
        assert word in told
    assert re.search(r" 3 +9 ", told), "clips and views"
    assert re.search(r" 1 +3 ", told)


@pytest.mark.parametrize("action", ["list", "verify", "prune"])
def test_where_nothing_is_kept(run, tmp_path, action, capsys):
    assert run(f"job.action={action}") == 0
    assert f"nothing is kept in {tmp_path}/features" in capsys.readouterr().out


def test_verifying_ends_with_one_if_anything_is_damaged(run, root, capsys):
    assert run("job.action=verify") == 0
    assert "12 views in 4 segments" in capsys.readouterr().out
    path = segments(root)[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert run("job.action=verify") == 1
    told = capsys.readouterr()
    assert "1 damaged files set aside" in told.err
    assert str(path) in told.err
    assert run("job.action=verify") == 0, "what was set aside is not there any more"


def test_pruning_says_what_it_freed(run, root, capsys):
    paths = segments(root)
    size = paths[0].stat().st_size
    paths[0].rename(f"{paths[0]}.damaged")
    leftover = paths[1].with_name(".0123.tmp")
    leftover.write_bytes(b"x" * 10)
    os.utime(leftover, (1, 1))
    assert run("job.action=prune") == 0
    assert "1 damaged, 1 unfinished)" in capsys.readouterr().out
    assert run("job.action=prune") == 0
    assert "freed 0 B (nothing to remove)" in capsys.readouterr().out
    assert run("job.action=prune", f"features.limit_bytes={size}") == 0
    assert "beyond the limit)" in capsys.readouterr().out
    assert sum(path.stat().st_size for path in segments(root)) <= size


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["job.action=burn"], "job.action='burn': choose one of list, verify, prune"),
        (["features=memory"], "not MemoryStore: say features=disk"),
        (["features.dtype=float8"], "features.dtype=float8: choose one of"),
        (["features.limit_bytes=much"], "features.limit_bytes=much"),
    ],
)
def test_wrong_words(run, root, words, told, capsys):
    assert run(*words) == 1
    assert told in capsys.readouterr().err


def test_a_store_that_cannot_be_changed(run, root, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(features_module, "prune", refuse)
    assert run("job.action=prune") == 1
    assert f"{root}: Read-only file system" in capsys.readouterr().err
