"""The command from Python: its output is passed on, its failure is an error of one line."""

import pytest

from videopool import __version__
from videopool.command import CommandFailed, run

pytestmark = pytest.mark.usefixtures("sooner")


def test_output_is_passed_on(capsys):
    run("--version")
    assert capsys.readouterr().out == f"videopool {__version__}\n"


def test_a_failure_says_what_was_run_and_why_it_failed(tmp_path, capsys):
    with pytest.raises(CommandFailed) as told:
        run("job=report", "study=nothing", f"results_dir={tmp_path}")
    lines = str(told.value).splitlines()
    assert len(lines) == 1
    for words in ("job=report study=nothing", "exit code 1", "there is no study"):
        assert words in lines[0]
    assert "there is no study" in capsys.readouterr().out


def test_it_runs_where_the_caller_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(
        "job=plan",
        "results_dir=here",
        "study=planned",
        "frames.num=2",
        "-m",
        "benchmark.clips=60",
        "benchmark.per_task=8",
    )
    assert (tmp_path / "here" / "planned" / "plan.csv").is_file()


def test_a_kernel_that_asks_for_colours_gets_plain_lines_as_wide_as_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    run("job=plan", "-m", f"results_dir={tmp_path}", "frames.num=2", "benchmark.clips=60", "benchmark.per_task=8")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) > 100
