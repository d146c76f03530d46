"""Records, fingerprints, metrics and claims."""

import json
import multiprocessing
import subprocess
import sys

import pytest

from videopool.paths import shipped
from videopool.reports.tables import published_figures
from videopool.results import PointBusy, PointFolder, RecordLog, ResultsError, fingerprint, metrics_of, read_records


def record(number, status="ok", score=1.0, **more):
    return {"id": f"s{number}", "clip": f"c{number % 3}", "task": "t", "options": ["a", "b"], "status": status,
            "score": score if status == "ok" else None, **more}  # fmt: skip


def test_records_survive_a_cut_at_every_byte(tmp_path):
    whole = "".join(json.dumps(record(n, text="é\n")) + "\n" for n in range(4)).encode()
    path = tmp_path / "records.jsonl"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        log = RecordLog(path)
        done = set(log.done)
        assert done == {f"s{n}" for n in range(len(done))}
        log.append([record(n, text="é\n") for n in range(4)])
        assert [r["id"] for r in read_records(path)] == ["s0", "s1", "s2", "s3"]
        assert len(path.read_text().splitlines()) == 4


def test_each_sample_has_one_record_and_failed_ones_are_tried_again(tmp_path):
    path = tmp_path / "records.jsonl"
    log = RecordLog(path)
    log.append([record(0), record(1, status="unreadable_video"), record(0, score=0.0)])
    log.append([record(0, score=0.0)])
    assert [(r["id"], r["score"]) for r in read_records(path)] == [("s0", 1.0), ("s1", None)]
    log = RecordLog(path)
    assert log.done == {"s0"}
    log.append([record(1)])
    assert [(r["id"], r["status"]) for r in read_records(path)] == [("s0", "ok"), ("s1", "ok")]


FULL = """
import resource, signal, sys
from pathlib import Path
from videopool.results import RecordLog, ResultsError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = RecordLog(Path(sys.argv[1]))
log.append([{"id": "a", "status": "ok"}])
size = Path(sys.argv[1]).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))  # the next line does not fit whole
try:
    log.append([{"id": "b", "status": "ok"}])
except ResultsError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path):
    path = tmp_path / "records.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert path.read_text() == '{"id": "a", "status": "ok"}\n'


def append_many(log, worker):
    for number in range(200):
        log.append([{"id": f"{worker}-{number}", "status": "ok", "text": "x" * (number * 37 % 3000)}])


@pytest.mark.usefixtures("sooner")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_append_whole_lines_to_one_log(tmp_path, method):
    log = RecordLog(tmp_path / "records.jsonl")
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=append_many, args=(log, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(f"{w}-{n}" for w in range(3) for n in range(200))


def test_fingerprint_depends_on_content_alone():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint({"b": [1, 2]}) != fingerprint({"b": [2, 1]})
    # Golden value: results on disk must stay findable.
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": float("nan")})


def test_failed_samples_are_counted_and_never_scored():
    records = [record(n, score=float(n % 2)) for n in range(8)]
    records += [record(8, status="unreadable_video"), record(9, score=0.0, parsed=None)]
    metrics = metrics_of(records, {"g": ["t"], "other": ["u"]}, lambda task: True)
    assert (metrics["n"], metrics["n_failed"], metrics["n_unparsed"]) == (9, 1, 1)
    assert metrics["score"] == pytest.approx(4 / 9)
    assert metrics["chance"] == 0.5
    assert (metrics["ci_low"], metrics["ci_high"]) == (None, None)  # of nine clips at most
    many = metrics_of([record(n, score=float(n % 2), clip=f"c{n}") for n in range(20)], {}, lambda task: True)
    assert many["ci_low"] < many["score"] < many["ci_high"]
    assert metrics["groups"]["g"]["score"] == metrics["score"]
    assert metrics["groups"]["other"]["score"] is None
    unscored = metrics_of([{**record(0), "score": None}], {}, lambda task: True)
    assert (unscored["score"], unscored["n"], unscored["n_unscored"]) == (None, 0, 1)


def test_a_point_is_claimed_by_one_process_and_freed_by_its_death(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from videopool.results import PointFolder\n"
        "with PointFolder(Path(sys.argv[1]), 'p', 'f' * 64): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(PointBusy, match=f"process {holder.pid}"), PointFolder(tmp_path, "p", "f" * 64):
        pass
    holder.kill()
    holder.wait()
    with PointFolder(tmp_path, "p", "f" * 64) as folder:
        assert not folder.finished
        folder.write_manifest({})
        folder.write_metrics({"score": 1})
        assert folder.finished


def test_a_folder_of_another_point_is_refused(tmp_path):
    with PointFolder(tmp_path, "p", "a" * 64) as folder:
        folder.write_manifest({})
    other = PointFolder(tmp_path, "p", "a" * 8 + "b" * 56)
    with pytest.raises(ResultsError, match="belongs to another configuration"), other:
        pass


def test_lengths_of_generated_answers_and_token_f1():
    def answer(number, text, **more):
        return {**record(number), "score": None, "clip": f"c{number % 2}", "prediction": text, **more}

    made = [answer(0, "one two three", token_f1=0.5), answer(1, "one", token_f1=1.0), answer(2, ""), answer(3, "a b")]
    likelihood = answer(4, "red", option_logprobs=[-1.0, -2.0])
    failed = {**answer(5, None), "status": "unreadable_video"}
    metrics = metrics_of([*made, likelihood, failed], {}, lambda task: True)
    words = metrics["answer_words"]
    assert (words["n"], words["mean"], words["p50"], words["longest"], words["empty"]) == (4, 1.5, 1.5, 3, 1)
    assert words["p10"] == pytest.approx(0.3)  # between 0 and 1, by linear interpolation
    assert metrics["token_f1"]["n"] == 2
    assert metrics["token_f1"]["mean"] == 0.75
    none = metrics_of([likelihood], {}, lambda task: True)
    assert none["answer_words"] is none["token_f1"] is None


def test_published_figures_are_those_of_the_same_split(tmp_path):
    path = tmp_path / "published.yaml"
    entry = "{benchmark: b/test, model: M, value: 46.6, source: arXiv 1, protocol: p}"
    path.write_text(f"published:\n  - {entry}\n  - {entry.replace('b/test', 'b/val')}\n")
    table = published_figures(path, ["b/test"])
    assert table.to_dict("records") == [
        {"benchmark": "b/test", "model": "M", "value": 46.6, "unit": "%", "source": "arXiv 1", "protocol": "p"}
    ]
    assert published_figures(tmp_path / "none.yaml", ["b/test"]).empty
    for content, said in (("published: 3", "a list"), ("published: [{benchmark: b}]", "entry 0: needs model, value")):
        path.write_text(content)
        with pytest.raises(ResultsError, match=said):
            published_figures(path, ["b/test"])


def test_shipped_published_figures_are_whole():
    table = published_figures(shipped("experiments") / "published.yaml", ["mvbench/test", "msvd_qa/val"])
    assert set(table.benchmark) == {"mvbench/test", "msvd_qa/val"}
    assert table.protocol.str.len().min() > 5
