"""Files and folders that take another's place: whole or not at all, on the disk, and nothing left beside them."""

import json
import multiprocessing
import os
import resource
import signal
import sys
import threading

import pytest

from videopool import files
from videopool.files import whole, whole_folder
from videopool.norms import NormsError
from videopool.norms import saved as norms
from videopool.results import PointFolder, RecordLog, ResultsError, write_records
from videopool.results.point import write_json
from videopool.results.records import write_captions

BIG = "x" * 5000
RECORD = {"id": "a", "status": "ok", "clip": "c", "question": "", "prediction": BIG, "frame_indices": [0]}


def rewrite_log(folder):
    path = folder / "records.jsonl"
    if not path.exists():
        path.write_text(json.dumps(RECORD) + "\n")
    os.truncate(path, path.stat().st_size - 1)  # a kill cut it off
    RecordLog(path)


class Measured:
    """Stands for a measurement with large arrays."""

    def arrays(self):
        import numpy as np

        return {"a": np.zeros(5000)}

    state = arrays


WRITERS = {
    "metrics": lambda folder: write_json(folder / "metrics.json", {"a": BIG}),
    "records": lambda folder: write_records(folder / "records.jsonl", [RECORD]),
    "log": rewrite_log,
    "captions": lambda folder: write_captions(folder, [RECORD]),
    "norms": lambda folder: norms.save_arrays(folder, Measured()),
    "partial norms": lambda folder: norms.save_partial(folder, Measured(), norms.MeasuredSoFar()),
}


def on_a_full_disk(writer, folder, answer):
    """Write where no file can have more than 4000 bytes, and tell the error."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    try:
        WRITERS[writer](folder)
    except Exception as error:
        answer.send(f"{type(error).__name__} {error}")
    answer.close()


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, writer):
    WRITERS[writer](tmp_path)  # what there is before
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    forked = multiprocessing.get_context("fork")
    told, answer = forked.Pipe(duplex=False)
    process = forked.Process(target=on_a_full_disk, args=(writer, tmp_path, answer))
    process.start()
    answer.close()
    said = told.recv()
    process.join()
    assert process.exitcode == 0
    assert "cannot be written" in said
    assert said.startswith(("ResultsError", "NormsError"))
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if writer == "log":  # which this test cut off
        before["records.jsonl"] = after["records.jsonl"]
    assert after == before


@pytest.mark.parametrize("writer", WRITERS)
def test_what_replaces_a_result_is_on_the_disk_first(tmp_path, monkeypatch, writer):
    done = []
    for name in ("fsync", "replace"):
        own = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, own=own, name=name: (done.append(name), own(*a))[1])
    WRITERS[writer](tmp_path)
    assert done == ["fsync", "replace"]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_any_error_leaves_what_was_there(tmp_path, error):
    path, folder = tmp_path / "file", tmp_path / "folder"
    path.write_text("old")
    folder.mkdir()
    (folder / "old").touch()
    for write in (whole(path), whole_folder(folder)):
        with pytest.raises(error), write:
            raise error
    assert path.read_text() == "old"
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["file", "folder", "old"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_folder_is_exchanged_for_another(tmp_path, monkeypatch, atomic):
    """Somebody who looks all the time finds the old file or the new one: always, where the system can exchange."""
    if not atomic:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda name: object())
    folder = tmp_path / "export"
    missed, over = [], threading.Event()

    def look():
        while not over.is_set():
            try:
                (folder / "weights").read_text()
            except FileNotFoundError:
                missed.append(1)

    with whole_folder(folder) as part:
        (part / "weights").write_text("0")
    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(1, 60):
        with whole_folder(folder) as part:
            (part / "weights").write_text(str(number))
    over.set()
    watcher.join()
    assert (folder / "weights").read_text() == "59"
    assert [one.name for one in tmp_path.iterdir()] == ["export"]
    if atomic and sys.platform == "linux":
        assert not missed


def test_what_dead_processes_left_is_cleared(tmp_path):
    folder = PointFolder(tmp_path, "p", "f" * 64)
    folder.path.mkdir()
    left = [".metrics.json.1234", ".failure.json.77", ".run.json.0a1b2c3d.part", "records.part", "norms.part"]
    for name in left:
        (folder.path / name).write_text("{")
    (folder.path / ".export.part").mkdir()
    (folder.path / ".export.part" / "weights").touch()
    kept = ["run.json", "records.jsonl", ".norms-partial"]
    with folder:
        folder.write_manifest({})
        for name in kept[1:]:
            (folder.path / name).touch()
    with folder:
        pass
    assert sorted(path.name for path in folder.path.iterdir()) == sorted([*kept, "lock"])


def test_parts_of_a_file_that_many_write_go_when_they_are_old(tmp_path):
    for name, age in ((".plan.csv.aaaa.part", 10**5), (".plan.csv.bbbb.part", 0)):
        (tmp_path / name).touch()
        moment = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (moment, moment))
    with whole(tmp_path / "plan.csv") as part:
        part.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".plan.csv.bbbb.part", "plan.csv"]


def test_errors_name_the_file(tmp_path):
    with pytest.raises(ResultsError, match=r"nowhere/metrics\.json cannot be written: No such file"):
        write_json(tmp_path / "nowhere" / "metrics.json", {})
    with pytest.raises(NormsError, match=r"norms\.safetensors cannot be written"):
        norms.save_arrays(tmp_path / "nowhere", Measured())
