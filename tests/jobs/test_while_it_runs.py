"""A running command: first words, bars, minute lines, the log file, causes told once, a terminal that closes."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from made_study import record, write_clips, write_point
from videopool.config.build import jsonable
from videopool.points.setting import prefill_costs
from videopool.reports import page
from videopool.reports.files import write_report, written_report
from videopool.runtime import log, progress, sweep

COLUMNS = 80


def read_until(master, process, seen, enough, seconds=240.0):
    """Read a terminal until `enough()`; returns whether it came. `seen` gets (seconds, text)."""
    started = time.monotonic()
    while time.monotonic() - started < seconds and not enough():
        if select.select([master], [], [], 0.05)[0]:
            try:
                seen.append((time.monotonic() - started, os.read(master, 65536).decode(errors="replace")))
            except OSError:  # the other end is closed
                return enough()
        elif process.poll() is not None:
            return enough()
    return enough()


@pytest.fixture(autouse=True)
def own_display(monkeypatch):
    """One that no earlier test silenced."""
    monkeypatch.setattr(progress, "_display", progress._Display(silent=False))


def test_a_terminal_sees_what_goes_on_and_may_close(tmp_path):
    """From nothing, clips and all: words before the first long import, bars within 80 columns. Then it hangs up."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    words = ["-m", "pooling=none,adaptive_Tx6x6", "frames.num=16,8", "study=p", "job.max_clips=1", "logger=none"]
    words += ["benchmark.clips=24", "benchmark.per_task=2", f"data_dir={tmp_path}/data", f"results_dir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "videopool", *words],
        stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, env={**os.environ, "TERM": "xterm"},
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    seen: list[tuple[float, str]] = []

    def records():
        return sum(len(path.read_bytes().splitlines()) for path in (tmp_path / "p").glob("*/records.jsonl"))

    assert read_until(master, process, seen, lambda: records() >= 5), seen[-5:]
    read_until(master, process, seen, lambda: False, 1.0)
    os.close(master)
    assert process.wait(60) == 130
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "".join(part for _, part in seen))
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert re.match(r"VideoPool \S+: study p, 4 points, results in ", lines[0])
    assert max(len(line) for line in lines if "results in" not in line) <= COLUMNS
    steps = ["importing libraries", "rendering clips", "reading the weights of mini", "answering"]
    shown = [step for step in steps if step in text]
    assert set(steps) - set(shown) <= {"reading the weights of mini"}  # which may take less than a frame of the bars
    assert shown == sorted(shown, key=text.index)
    assert re.search(r"pooling=none frames.num=16 .* point 1 of 4", text)
    assert re.search(r"answering .* \d+ of 34, \d+ s left", text)
    assert len(seen) > 20, "it is drawn again and again"
    kept = records()
    assert 5 <= kept < 4 * 34
    logged = (tmp_path / "p" / "videopool.log").read_text()
    assert "samples of mini-none-f16" in logged
    places = [logged.index(step) for step in steps]  # of their ends: whatever the bars showed
    assert places == sorted(places)
    assert "stopped; run the same command again to go on" in logged
    assert logged.splitlines()[-1].endswith("ended with exit code 130")
    assert "Traceback" not in logged


def test_without_a_terminal_long_work_says_so_in_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.3)
    told = ""
    with progress.progress("reading", 40) as advance:
        for _ in range(40):
            advance(1, "fast")
            time.sleep(0.05)
            told += capsys.readouterr().out
    lines = told.splitlines()
    assert 3 <= len(lines) <= 8
    assert all(re.fullmatch(r"reading: \d+ of 40, fast, \d+ s (left|so far)", line) for line in lines)
    time.sleep(0.5)
    assert capsys.readouterr().out == "", "nothing is left that prints"


def test_no_line_for_short_work_and_none_for_the_quiet(monkeypatch, capsys):
    assert list(progress.watched([1, 2, 3], "reading")) == [1, 2, 3]
    monkeypatch.setenv(log.VERBOSITY, "quiet")
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    for _ in progress.watched([1, 2], "reading"):
        time.sleep(0.4)
    log.say("a line")
    log.warn("a note")
    log.say("a result", result=True)
    log.fail("a failure")
    assert capsys.readouterr() == ("a result\n", "a failure\n")


def test_the_rest_of_a_sweep_is_told_from_the_costs_of_its_points():
    costs = {number: float(cost) for number, cost in enumerate([1, 50, 1, 50, 1])}
    assert sweep.seconds_left(costs, {}, ()) is None
    assert sweep.seconds_left(costs, {0: 3.0}, (0, 2, 3, 4)) == pytest.approx(150.0), "nothing tells an own share yet"
    assert sweep.seconds_left(costs, {0: 3.0, 1: 101.0}, (0, 1, 4)) == pytest.approx(104.0)
    assert sweep.seconds_left(costs, {0: 9.0, 1: 4.0}, (0, 1, 3, 4)) == pytest.approx(6.5), "never less than nothing"
    assert sweep.seconds_left(dict.fromkeys(range(4), 0.0), {0: 4.0, 1: 6.0}, (0, 1)) == pytest.approx(10.0)


def test_points_that_were_finished_before_are_not_among_those_left(hydra_conf, tmp_path):
    configs = [hydra_conf(f"frames.num={n}", "study=s", f"results_dir={tmp_path}") for n in (1, 2)]
    assert sorted(prefill_costs(configs)) == [0, 1]
    folder = tmp_path / "s" / "a"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps({"config": jsonable(configs[0])}))
    assert list(prefill_costs(configs)) == [1]
    configs[0].force = True
    assert sorted(prefill_costs(configs)) == [0, 1]


def test_a_cause_is_told_once_and_logged_without_secrets(videopool, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hiddenvalue")
    words = ["pooling=none,average,adaptive_Tx3x3", "frames.num=1,2,4", "study=c"]
    words += ["logger=wandb", "logger.project=hiddenvalue"]
    done = videopool("-m", *words, "benchmark.per_task=400", check=1)
    told = done.stderr.splitlines()
    cause = told[0].partition(": ")[2]
    assert told[0].startswith("[0] FAILED  pooling=none frames.num=1: ")
    assert told[1:9] == [f"[{n}] FAILED  {label} (same cause)" for n, label in enumerate(grid()) if n]
    assert told[9:] == [
        f"failed: {cause}",
        *(f"    {label}" for label in grid()),
        "Finished points are kept: mend the cause, then give the same command again.",
    ]
    logged = (tmp_path / "results" / "c" / "videopool.log").read_text()
    assert "hiddenvalue" not in logged
    assert "logger.project=***" in logged
    assert cause in logged
    head = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (DEBUG|INFO|WARNING|ERROR) +(pooling=\S+ \S+|-) "
    for line in logged.splitlines():
        assert line.startswith("    ") or re.match(head, line)


def grid():
    return [f"pooling={pooling} frames.num={n}" for pooling in ("none", "average", "adaptive_Tx3x3") for n in (1, 2, 4)]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("judge.api_key=abc model=x", "judge.api_key=*** model=x"),
        ('{"token": "abc"}', '{"token": ***}'),
        ("https://me:pass@host/v1", "https://***@host/v1"),
        ("key is hiddenvalue.", "key is ***."),
        ("benchmark.max_new_tokens=32 judge.key_env=OPENAI", "benchmark.max_new_tokens=32 judge.key_env=OPENAI"),
    ],
)
def test_secrets_are_not_logged(monkeypatch, text, safe):
    monkeypatch.setenv("SOME_API_KEY", "hiddenvalue")
    assert log.without_secrets(text) == safe


def test_a_trace_is_in_the_log_and_a_library_warning_too(videopool, tmp_path):
    (tmp_path / "wrong.py").write_text(
        "import warnings\nfrom videopool.pooling import Average\n\n\nclass Wrong(Average):\n"
        "    def pool(self, grid, context=None):\n        warnings.warn('a library says so')\n"
        "        return 1 / 0 if grid.shape[-1] > 3 else super().pool(grid, context)\n"
    )
    done = videopool("pooling._target_=wrong.Wrong", "study=t", "frames.num=1", check=1)
    path = tmp_path / "results" / "t" / "videopool.log"
    assert done.stderr.strip().endswith("line 8): ZeroDivisionError: division by zero")
    logged = path.read_text()
    assert 'wrong.py", line 8, in pool' in logged
    assert re.search(r"INFO +evaluate +py.warnings: .*a library says so", logged)
    assert sorted(one.name for one in path.parent.iterdir() if one.is_file()) == ["videopool.log"]


def test_a_trace_without_a_log_is_printed(tmp_path, monkeypatch, capsys):
    log.configure()
    path = tmp_path / "videopool.log"
    for name, told in ((str(path), f"trace: {path}"), (str(tmp_path / "none" / "videopool.log"), "trace above")):
        monkeypatch.setenv(log.FILE, name)
        try:
            raise KeyError("of the program")
        except KeyError:
            assert log.trace() == told
        assert ("KeyError: 'of the program'" in capsys.readouterr().err) is (told == "trace above")
    assert "KeyError: 'of the program'" in path.read_text()


def test_what_only_reads_writes_no_log(videopool, tmp_path):
    videopool("job=plan", "frames.num=1", "study=r")
    videopool("job=report", "study=r", check=1)
    assert not list(tmp_path.rglob("videopool.log"))


def test_a_report_on_the_way_changes_nothing_of_the_last_one(tmp_path, monkeypatch):
    """It says how far the study is, is not taken for the last one, and leaves no file behind."""
    monkeypatch.setattr(page, "_time", lambda moment: moment[:10])  # which the page tells to the minute
    studies = tmp_path / "one" / "study", tmp_path / "two" / "study"
    clips = write_clips(tmp_path / "clips")
    for study in studies:
        for pooling in ("none", "average"):
            records = [record(n, (n + len(pooling)) % 3 > 0, -1.0, [1]) for n in range(8)]
            write_point(study, records, clips, pooling=pooling)
        if study == studies[1]:
            write_report(study, "none", so_far="2 of 3 points so far.")
            assert "2 of 3 points so far." in (study / "report.html").read_text()
            assert written_report(study, "none", []) is None
        write_point(study, [record(n, n > 3, -1.0, [1]) for n in range(8)], clips, pooling="third")
        write_report(study, "none")
    files = [
        {path.relative_to(study): path.read_bytes() for path in study.rglob("*") if is_report(path)}
        for study in studies
    ]
    assert files[0] == files[1]
    assert written_report(studies[1], "none", []) is not None


def is_report(path: Path) -> bool:
    return path.is_file() and path.suffix in (".csv", ".html", ".md", ".tex", ".svg", ".png", ".pdf")


def test_a_report_on_the_way_costs_little_of_a_sweep(tmp_path, monkeypatch):
    """The first is not too early, further ones are rare, and one that failed is not tried again."""
    monkeypatch.setenv(sweep.OUTCOMES, str(tmp_path / "o"))
    clock = [0.0]
    monkeypatch.setattr(sweep.time, "time", lambda: 1e9 + clock[0])
    monkeypatch.setattr(sweep.time, "perf_counter", lambda: clock[0])
    monkeypatch.setenv(sweep.SWEEP, json.dumps({"began": 1e9}))

    def write():
        clock[0] += 2.0
        return clock[0]

    written = []
    for second in range(240):
        clock[0] = max(clock[0], second)
        written += filter(None, [sweep.sparingly(write)])
    assert written[0] == sweep.EARLIEST + 2
    assert 2 * len(written) <= 0.03 * 240
    clock[0] = 1e4
    with pytest.raises(ZeroDivisionError):
        sweep.sparingly(lambda: 1 / 0)
    clock[0] = 1e6
    assert sweep.sparingly(write) is None


def test_a_point_that_another_process_has_says_how_to_wait(videopool, tmp_path):
    first = ["study=b", "frames.num=1"]
    videopool(*first)
    (folder,) = [path.parent for path in (tmp_path / "results" / "b").glob("*/metrics.json")]
    (folder / "metrics.json").unlink()
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = videopool(*first, check=1)
    assert "busy" in done.stdout
    assert "or with -m, which waits for it" in done.stdout
