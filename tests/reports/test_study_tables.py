"""Tables at any width and in papers: numbers whole, points on lines of their own and apart, columns by name."""

import io
import random
import re
import shutil
import subprocess

import pytest
from omegaconf import OmegaConf
from rich.cells import cell_len
from rich.console import Console

import made_study
from made_study import NASTY, record, write_clips, write_point
from videopool.config.errors import ConfigError
from videopool.reports import markdown_tables
from videopool.reports.columns import check_columns, chosen_columns, study_columns
from videopool.reports.tables import latex_tables, shown
from videopool.results import compared_study
from videopool.runtime.tables import Heading, Shown, count_text, made_table, shortened, size_text

LONG = "adaptive 16x12x12 max over frames then mean"
ODD = "é \N{GREEK SMALL LETTER ALPHA} \N{MULTIPLICATION SIGN} \N{MINUS SIGN} 中文 ✓ $x^2$ #1"
NAMES = ("none", LONG, f"{LONG} squared", "token_merging_spatiotemporal_0.5_r8", NASTY[:60], ODD)
MODELS = (("llava_next_vicuna_7b", None), ("llava_next_vicuna_13b", None), ("pllava_7b alpha 4", 4.0))
JUDGES = (None, "gpt-4o-2024-08-06:v2:abcdef", "local:/data/models/qwen2.5-72b-instruct:v1")
STUDIES = {
    "names": [{"pooling": name, "frames": f, "visual_tokens": f + n} for n, name in enumerate(NAMES) for f in (4, 16)],
    "models": [
        {"pooling": name, "frames": f, "model": model, "lora_alpha": alpha, "stage": stage, "visual_tokens": 9 * f}
        for name in NAMES[:2] for f in (4, 16) for model, alpha in MODELS for stage in ("encoder", "projector")
    ],
    "alphas": [{"model": f"pllava alpha {alpha}", "lora_alpha": float(alpha)} for alpha in range(11)],
    "judges": [{"pooling": name, "judge": judge} for name in NAMES[:2] for judge in JUDGES],
    "many": [{"pooling": f"adaptive {n}x{n}x{n}", "frames": f} for n in range(1, 31) for f in (4, 16)],
    "one": [{"pooling": "average time"}],
    "benchmarks": [{"pooling": name, "benchmark": b} for name in NAMES[:2] for b in ("mvbench/test", "my_bench/val")],
}  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Studies by name, each as a table with differences, of scores of 12 clips."""
    folder = tmp_path_factory.mktemp("tables")
    clips, found = write_clips(folder / "data"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_study, "CLIPS", 12)  # of fewer than 10 there are no intervals
        for name, points in STUDIES.items():
            for number, about in enumerate(points):
                right = random.Random(f"{name} {number}")
                chance = 0.2 + 0.7 * number / len(points)
                answers = [record(n, right.random() < chance, -1.0, [1]) for n in range(48)]
                write_point(folder / name, answers, clips, **about)
            found[name] = compared_study(folder / name, "none")
        write_point(folder / "names", [], clips, failure=f"no clip: {NASTY}", pooling="median", visual_tokens=36)
        found["names"] = compared_study(folder / "names", "none")
    return found


def lines_of(renderable, width):
    """The lines as wide as they are."""
    screen = Console(width=width, file=io.StringIO(), color_system=None)
    screen.print(renderable)
    return screen.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_fits_any_terminal(tables, name, width):
    table = tables[name]
    lines = lines_of(shown(table, name, None), width)
    assert max(map(cell_len, lines)) <= width
    rule = next(n for n, line in enumerate(lines) if line.startswith("──"))
    rows = [line.rstrip() for line in lines[rule + 1 : rule + 1 + len(table)]]
    for row, point in zip(rows, table.itertuples(), strict=True):
        if point.status == "complete":
            score, low, high = (f"{100 * value:.1f}" for value in (point.score, point.ci_low, point.ci_high))
            assert f"{score} [{low}, {high}]" in row, "whole, in the point's own line"
            if point.difference is not None and "difference" in " ".join(lines[1:rule]):
                interval = f"[{100 * point.difference_low:.1f}, {100 * point.difference_high:.1f}]"
                assert f"{100 * point.difference:+.1f} {interval}" in row
        else:
            assert "failed" in row
    before = {re.split(r"\d+\.\d \[|failed", row)[0] for row in rows}
    assert len(before) == len(rows), "names and settings tell rows apart"
    head = " ".join(" ".join(lines[1:rule]).split())
    for word in ("pooling", "frames", "score (%)"):
        assert word in head
    assert ("difference" in head) is bool(table.difference.notna().any())
    assert "—" not in head


def test_more_columns_as_width_allows(tables):
    known = {width: " ".join(lines_of(shown(tables["names"], "s"), width)) for width in (80, 200)}
    assert "no room for:" in known[80]
    assert "p (Holm)" in known[200].partition("none")[0]
    assert "n = 48" in known[80], "a constant column stands below the table"
    assert "model mini" in known[80]


def test_names_are_shortened_apart():
    for width in range(8, 30):
        for names in (
            NAMES,
            [f"a_long_name_{n}_with_the_same_end_of_it" for n in range(60)],
            ["x" * 50, "x" * 51, "中" * 40],
        ):
            short = shortened([*names, *names], width)
            assert len(set(short)) == len(set(names))
            assert short[: len(names)] == short[len(names) :]
            assert max(map(cell_len, short)) <= width
    assert shortened(["none", "average"], 8) == ["none", "average"]


def test_sentences_wrap_and_numbers_stay():
    table = made_table(
        [Heading("what", False, wraps=True), Heading("size", rank=1)], [("many words " * 9, "123.45 MB")]
    )
    lines = lines_of(Shown(table, "a title"), 40)
    assert max(map(len, lines)) <= 40
    assert sum("many" in line for line in lines) > 2
    assert "123.45 MB" in "".join(lines)


@pytest.mark.parametrize(
    ("count", "size", "words"),
    [(366_300, "366 kB", "366 thousand"), (7.063e9, "7.06 GB", "7.06 billion"), (5, "5 B", "5"),
     (999_999, "1 MB", "1 million"), (3.4e13, "34 TB", "34 trillion"), (0, "0 B", "0")],
)  # fmt: skip
def test_sizes_have_sensible_units(count, size, words):
    assert (size_text(count), count_text(count)) == (size, words)


PAPER = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs}
\begin{document}
Text. \input{table.tex} \typeout{Column: \the\columnwidth} Text.
\end{document}
"""
WIDE = ["pooling", "frames", "tokens", "score", "difference", "difference_at_equal_tokens", "gflops", "p", "differs"]


@pytest.mark.parametrize(("name", "columns"), [(name, None) for name in STUDIES] + [("names", WIDE)])
def test_a_paper_takes_the_table_as_it_is(tables, tmp_path, name, columns):
    table = tables[name]
    text = latex_tables(table, f"{name}_study", chosen=columns)
    (tmp_path / "table.tex").write_text(text)
    (tmp_path / "paper.tex").write_text(PAPER)
    assert (r"\begin{table*}" in text) is (columns is not None)
    if not (shutil.which("pdflatex") and shutil.which("pdftotext")):
        pytest.skip("pdflatex or pdftotext is not installed")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "Float too large" not in done.stdout
    said = subprocess.run(["pdftotext", "paper.pdf", "-"], cwd=tmp_path, capture_output=True, text=True, check=True)
    numbers = re.sub(r"\s", "", said.stdout)
    for point in table[table.status == "complete"].itertuples():
        assert f"{100 * point.score:.1f}[{100 * point.ci_low:.1f}," in numbers
    assert "Score" in said.stdout


def test_a_paper_says_what_is_in_the_table(tables):
    text = latex_tables(tables["names"], "names")
    for part in (r"\toprule", r"Visual tokens", r"Score (\%)", "Difference", r"\emph{4 frames}", r"\mathbf{"):
        assert part in text
    assert "difference: from none at as many frames" in text
    assert "differences in percentage points" in text
    assert "Pooling of visual tokens: model mini, benchmark made/" in text
    assert "Difference at equal tokens" in latex_tables(tables["names"], "names", chosen=WIDE)
    assert "Prefill GFLOPs per clip" in latex_tables(tables["names"], "names", chosen=WIDE)


def test_markdown_has_the_columns_of_the_report(tables):
    head = markdown_tables(tables["names"], "s").split("\n\n")[1].splitlines()[0]
    assert head == "| pooling | frames | visual tokens | score (%) | difference |"
    some = markdown_tables(tables["names"], "s", chosen=["score", "pooling"]).split("\n\n")[1]
    assert some.startswith("| score (%) | pooling |\n")


def test_columns_are_chosen_by_name(videopool, tmp_path):
    clips = write_clips(tmp_path / "data")
    for place, name in enumerate(("none", "average")):
        write_point(
            tmp_path / "results" / "c", [record(n, n != place, -1.0, [1]) for n in range(6)], clips, pooling=name
        )
    done = videopool("job=report", "study=c", "job.columns=[prefill_gflops,pooling,score_hard]", "job.samples=0")
    assert "prefill GFLOPs per clip  pooling  hard tasks (%)" in done.stdout
    assert "| prefill GFLOPs per clip | pooling | hard tasks (%) |" in (tmp_path / "results/c/table.md").read_text()
    tex = (tmp_path / "results/c/table.tex").read_text()
    assert tex.index("Prefill GFLOPs") < tex.index("Pooling &") < tex.index(r"Hard tasks (\%)")
    failed = videopool("study=early", "job.columns=[pooling,scor]", check=1)
    assert "did you mean score" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "results" / "early").glob("*/")), "told before anything runs"


def test_columns_are_a_list_of_names(tables):
    def chosen(value):
        return chosen_columns(OmegaConf.create({"job": {"columns": value}}))

    assert chosen(None) is None
    assert chosen("pooling, score") == chosen(["pooling", "score", "pooling"]) == ["pooling", "score"]
    assert chosen(["iso_token_difference", "n_failed"]) == ["difference_at_equal_tokens", "unreadable"]
    for wrong in ([], {"a": 1}, 7, [1], [""], ["pooling", None], [["score"]]):
        with pytest.raises(ConfigError, match=r"^job\.columns"):
            chosen(wrong)
    with pytest.raises(ConfigError, match=r"'score_soft', only point, pool.*; did you mean score"):
        check_columns(["pooling", "score_soft"], study_columns(tables["one"]))
