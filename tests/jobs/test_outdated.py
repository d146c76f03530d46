"""What a second command makes of a point whose clips, code or software are others by now."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import numbered_frames
from videopool.evaluation.run import evaluate, point_of
from videopool.models import identity
from videopool.points import lifecycle
from videopool.points import point as points_point
from videopool.reports.files import write_report
from videopool.results import fingerprint
from videopool.results.manifest import git_state
from videopool.shapes.clips import write_mp4

CLIPS = 3


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "clips").mkdir()
    for number in range(CLIPS):
        write_mp4(tmp_path / "clips" / f"{number}.mp4", numbered_frames(8, 96, 96) // (number + 1))
    return tmp_path / "clips"


@pytest.fixture
def point(hydra_conf, tmp_path, clips):
    """Runs a point on the clips in this process; its outcome."""

    def run(*more):
        words = ["benchmark=clips", f"benchmark.root={clips}", "benchmark.max_new_tokens=2", "job.workers=0"]
        words += [f"results_dir={tmp_path}/results", "logger=none", "frames.num=2", "pooling=average", *more]
        return evaluate(hydra_conf(*words))

    return run


def read(outcome, name="run"):
    return json.loads((Path(outcome.folder) / f"{name}.json").read_text())


def records(outcome):
    lines = (Path(outcome.folder) / "records.jsonl").read_text().splitlines()
    return {one["id"]: one for one in map(json.loads, lines)}


@pytest.mark.parametrize("half", [False, True], ids=["finished", "half done"])
def test_a_clip_with_other_content_is_evaluated_again_and_alone(point, clips, capsys, half):
    first = records(done := point())
    if half:  # as a kill leaves it: one record is lacking
        path = Path(done.folder) / "records.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        (Path(done.folder) / "metrics.json").unlink()
    write_mp4(clips / "0.mp4", 255 - numbered_frames(8, 96, 96))
    again = point()
    told = capsys.readouterr().err
    assert again.folder == done.folder
    assert "1 (0.mp4); samples done again: 1" in told
    second = records(again)
    assert list(second)[-1] == "0.mp4" or half  # done again last
    assert second["0.mp4"]["content"] != first["0.mp4"]["content"]
    assert all(second[name]["content"] == first[name]["content"] for name in first if name != "0.mp4")
    assert read(again, "metrics")["n_unscored"] == CLIPS
    assert not point().fresh


def test_a_clip_with_another_time_or_gone_is_no_other_clip(point, clips, capsys):
    point()
    for path in clips.iterdir():
        os.utime(path, (1, 1))
    assert not point().fresh
    for path in clips.iterdir():
        path.rename(path.with_suffix(".away"))
    assert not capsys.readouterr().err.count("done again")


def test_a_clip_that_came_later_is_evaluated(point, clips, tmp_path, capsys):
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("video_name,question\n" + "".join(f"{n}.mp4,what?\n" for n in range(CLIPS)))
    (clips / "2.mp4").rename(tmp_path / "2.mp4")
    words = [f"benchmark.questions={sheet}", "job.max_failed_fraction=0.5"]
    assert read(point(*words), "metrics")["n_failed"] == 1
    assert not point(*words).fresh
    (tmp_path / "2.mp4").rename(clips / "2.mp4")
    assert read(point(*words), "metrics")["n_failed"] == 0


OWN = """
from own_parts.numbers import SCALE
from own_parts.base import Base

class Mine(Base):
    def pool(self, grid, context=None):
        return grid * SCALE
"""
PARTS = {
    "own_pooling.py": OWN,
    "own_parts/__init__.py": "",
    "own_parts/numbers.py": "SCALE = 1.0\n",
    "own_parts/base.py": "from videopool.pooling.intervention import Intervention\n\nclass Base(Intervention): ...\n",
    "own_parts/unused.py": "",
}


@pytest.mark.parametrize("nested", [False, True])
def test_code_of_ones_own_counts_with_what_it_imports(hydra_conf, tmp_path, monkeypatch, data_dir, nested):
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in PARTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    words = ["pooling._target_=own_pooling.Mine"]
    if nested:
        words = ["pooling=chain", "pooling.steps=[{_target_: own_pooling.Mine}]"]
    config = hydra_conf(*words, f"data_dir={data_dir}", "benchmark.clips=60", "benchmark.per_task=8")

    def found():
        for name in [name for name in sys.modules if name.startswith("own_p")]:
            del sys.modules[name]
        return fingerprint(point_of(config).identity())

    before = found()
    assert found() == before
    for name in PARTS:
        (tmp_path / name).write_text(PARTS[name] + "# changed\n")
        assert (found() != before) == (name != "own_parts/unused.py")
        (tmp_path / name).write_text(PARTS[name])
    assert found() == before


def test_attempts_with_other_versions_are_told(point, tmp_path, monkeypatch):
    done = point()
    assert "mixed" not in read(done)
    (attempt,) = read(done)["attempts"]
    assert {record["attempt"] for record in records(done).values()} == {attempt}
    path = Path(done.folder) / "records.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    (Path(done.folder) / "metrics.json").unlink()
    real = lifecycle.versions()
    monkeypatch.setattr(lifecycle, "versions", lambda: {**real, "torch": "9.9"})
    again = point("model.attention=eager")
    assert read(again)["mixed"] == {"torch": sorted([real["torch"], "9.9"]), "attention": ["eager", "sdpa"]}
    assert len({record["attempt"] for record in records(again).values()}) == 2
    write_report(Path(again.folder).parent, "none")
    for name in ("sweep.csv", "report.html", "table.md"):
        assert f"{min(real['torch'], '9.9')} and 9.9" in (Path(again.folder).parent / name).read_text(), name


def test_provenance_names_no_repository_that_does_not_hold_the_code(tmp_path):
    """The package in an environment inside somebody else's checkout."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / ".gitignore").write_text("lib\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *words], check=True)
    package = Path(points_point.__file__).parents[1]
    (tmp_path / "lib").mkdir()
    copy = tmp_path / "lib" / "manifest.py"
    copy.write_text((package / "results" / "manifest.py").read_text())
    told = [sys.executable, "-c", "import manifest; print(manifest.git_state())"]
    environment = {**os.environ, "PYTHONPATH": str(copy.parent), "GIT_DIR": str(tmp_path / ".git")}
    found = subprocess.run(told, capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == "{}"
    subprocess.run([*git, "add", "-f", str(copy)], check=True)
    found = subprocess.run(told, capture_output=True, text=True, check=True, env=environment)
    assert "commit" in found.stdout
    assert isinstance(git_state(), dict)


@pytest.mark.parametrize("parent", ["runs/snapshots/best", f"models--a--b/snapshots/{'0' * 40}"])
def test_a_folder_that_looks_like_a_cache_is_known_by_its_content(tmp_path, parent):
    found = []
    for place in ("a", "b"):
        folder = tmp_path / place / parent
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(place.encode() * 100)
        found.append(identity(str(folder)))
    assert found[0] != found[1]
