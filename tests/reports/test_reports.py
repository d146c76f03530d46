"""A study's page and tables: what they say, that nothing from files becomes markup, and that they survive lost data."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import read_number
from made_study import NASTY, write_study
from videopool.config.errors import ConfigError
from videopool.reports import samples_html
from videopool.reports.columns import table_of, with_content
from videopool.reports.files import write_report
from videopool.reports.latex import escape_latex
from videopool.reports.page import study_head
from videopool.reports.samples import choose_pair, differing_samples, spread
from videopool.reports.tables import latex_tables, markdown_tables, other_tables
from videopool.results import add_differences, load_study, over_seeds
from videopool.results.study import scored_points

VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """Elements of a page, as (tag, attributes, text within), and whether every one is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag
        if tag in ("td", "th"):
            self.handle_data(" ")

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag, **wanted):
        return [e for e in self.elements if e[0] == tag and wanted.items() <= e[1].items()]

    def texts(self, tag, **wanted):
        return [" ".join(e[2].split()) for e in self.all(tag, **wanted)]

    def pictures(self):
        """Frame number said by the picture, and by the page, of every thumbnail."""
        found = []
        for _, about, _ in self.all("img"):
            if about["src"].startswith("data:image/jpeg;base64,"):
                content = base64.b64decode(about["src"].partition(",")[2])
                with Image.open(io.BytesIO(content)) as picture:
                    found.append((read_number(np.asarray(picture)), int(about["alt"].removeprefix("frame "))))
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return folder / "results" / "made", write_study(folder)


@pytest.fixture(scope="module")
def page(made):
    study, _ = made
    write_report(study, "none")
    return Page((study / "report.html").read_text())


def frame_of(study):
    return add_differences(load_study(study), "none", lambda task: True)


def test_points_are_all_there_with_their_reasons(made, page):
    _, names = made
    rows = {about["data-point"]: " ".join(text.split()) for tag, about, text in page.all("tr") if "data-point" in about}
    assert set(rows) == set(names.values())
    assert f"no clip: {' '.join(NASTY.split())}" in " ".join(page.texts("span", **{"class": "note"}))
    incomplete = {about["data-point"] for _, about, _ in page.all("tr", **{"class": "incomplete"})}
    assert incomplete == {names["failed"], names["partial"]}
    (a,) = [t for _, about, t in page.all("tr", **{"class": "complete"}) if about["data-point"] == names["a"]]
    assert a.split()[:6] == ["average", "time", "complete", "4", "144", "100.0"]
    assert page.texts("strong") == ["100.0"]
    assert f"{names['a']}/records.jsonl" in {about.get("href") for _, about, _ in page.all("a")}
    assert "2 complete" not in page.texts("p")[0]
    assert "3 complete" in page.texts("p")[0]


def test_tasks_have_scores_and_chance_and_no_interval_of_three_clips(page):
    headings = page.texts("th", scope="col")
    assert {"colour", "shape_of"} <= set(headings)
    assert "chance 50.0 50.0" in page.texts("tr", **{"class": "reference"})
    assert "samples 3 3" in page.texts("tr", **{"class": "reference"})
    rows = page.texts("tr")
    assert any(row.startswith("none, 4 frames 100.0 66.7") for row in rows)


def test_nothing_from_files_becomes_markup_and_nothing_is_fetched(page):
    assert len(page.all("script")) == 1
    assert "hacked" not in page.all("script")[0][2]
    for tag, about, _ in page.elements:
        assert not any(name.startswith("on") for name in about), (tag, about)
        source = about.get("src")
        assert source is None or source.startswith("data:image/")
    for _, about, _ in page.all("a"):
        assert about["href"].startswith(("#", "mini-", "figures/", "sweep.csv"))
    assert page.all("link") == []
    assert " ".join(NASTY.split()) in page.texts("h3")[0]
    (policy,) = [about["content"] for _, about, _ in page.all("meta") if "http-equiv" in about]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_samples_are_ordered_by_score_then_by_the_right_options_probability(made, page):
    study, names = made
    found = differing_samples(study / names["a"], study / names["b"], 10)
    assert [sample[0]["id"] for sample in found] == ["s3", "s2", "s1", "s0"]  # s4 and s5 do not differ
    assert [len(differing_samples(study / names["a"], study / names["b"], n)) for n in (0, 2)] == [0, 2]
    told = [hint for hint in page.texts("p", **{"class": "hint"}) if "clip" in hint and " · " in hint]
    assert told == [
        f"{t} · clip{n % 3}.mp4 · s{n}" for n, t in zip((3, 2, 1, 0), ("shape_of", "colour") * 2, strict=True)
    ]


def test_thumbnails_show_the_frames_that_were_seen(page):
    pictures = page.pictures()
    assert [said for _, said in pictures] == [1, 5, 1, 5, 7, 11] * 4
    assert all(shown == said for shown, said in pictures)


def test_samples_alone_are_those_of_the_page(made, page):
    study, names = made
    alone = Page(samples_html(study / names["a"], study / names["b"], 10))
    assert alone.texts("article") == page.texts("article")
    assert len(alone.pictures()) == len(page.pictures()) > 0
    assert alone.all("script") == []
    assert len(Page(samples_html(study / names["a"], study / names["b"], 1)).all("article")) == 1


def test_a_pair_is_chosen_or_asked_for(made):
    study, names = made
    frame = frame_of(study)
    assert choose_pair(frame, None) == (names["a"], names["b"])  # the best and its baseline
    assert choose_pair(frame[frame.point != names["b"]].assign(baseline=None), None) == (names["a"], names["c"])
    assert choose_pair(frame, [names["c"], names["b"]]) == (names["c"], names["b"])
    assert choose_pair(frame[frame.point == names["a"]], None) is None
    with pytest.raises(ConfigError, match=rf"job\.pair: {names['failed']}: no complete point begins so; .*-none"):
        choose_pair(frame, [names["a"], names["failed"]])


def test_a_report_survives_lost_and_changed_data(made, tmp_path):
    study, names = made
    shutil.copytree(study.parents[1], tmp_path / "moved")  # results and data together
    moved = tmp_path / "moved" / "results" / "made"
    write_report(moved, "none")
    assert len(Page((moved / "report.html").read_text()).pictures()) == 24
    (tmp_path / "moved" / "data" / "clip0.mp4").write_bytes(b"no clip")
    (tmp_path / "moved" / "data" / "clip1.mp4").unlink()
    (moved / names["c"] / "run.json").write_text("{")
    write_report(moved, "none")
    page = Page((moved / "report.html").read_text())
    assert len(page.pictures()) == 6  # s2 alone is on the third clip
    assert len(page.all("span", **{"class": "gone"})) == 18
    notes = " ".join(page.texts("p", **{"class": "note"}))
    assert "no such file" in notes
    (moved / names["a"] / "clips.json").unlink()
    write_report(moved, "none")
    assert "not recorded" in (moved / "report.html").read_text()


def test_frames_are_spread_over_a_long_clip():
    assert spread([3, 5], 8) == [3, 5]
    assert spread(list(range(64)), 8) == [0, 9, 18, 27, 36, 45, 54, 63]


def cells_of(line):
    """Cells of a Markdown row; an escaped bar does not part two."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def test_markdown_table(made):
    study, names = made
    text = (markdown_tables(frame_of(study), "made")).split("\n\n")
    assert text[0].startswith(
        "made: 4 frames; model mini, benchmark made/test, split test, stage projector; n = 6 scored samples;"
    )
    lines = [cells_of(line) for line in text[1].splitlines()]
    assert {len(cells) for cells in lines} == {len(lines[0])}
    assert len(lines) == 2 + 5
    (best,) = [cells for cells in lines if any("**" in cell for cell in cells)]
    assert best[0] == "average time"
    assert "**100.0**" in best
    known = markdown_tables(frame_of(study).assign(ci_low=0.5, ci_high=1.0), "made")
    assert r"**100.0**<sub>\[50.0, 100.0\]</sub>" in known
    assert "clustered by clip, none of fewer than 10 clips" in known.splitlines()[0]
    assert "ms/sample" not in lines[0]
    assert not re.search(r"(?<!\\)<(?!/?sub>)", "".join(text))
    assert names["failed"].replace("_", r"\_") in text[3]


def groups_balance(text):
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text.replace(r"\\", "")):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    return depth == 0


def test_latex_table(made):
    study, _ = made
    text = latex_tables(frame_of(study).assign(ci_low=0.5, ci_high=1.0), "made_study")
    assert groups_balance(text)
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert opened == re.findall(r"\\end\{(\w+)\}", text)[::-1] == ["table", "tabular"]
    columns = 4  # pooling, tokens, score, difference: all points have as many frames
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if not line.endswith("rule")]
    assert len(lines) == 1 + 5
    for line in lines:
        assert line.endswith((r" \\", r" \tabularnewline"))
        assert len(re.findall(r"(?<!\\)&", line)) + 1 == columns
        assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
        assert not re.search(r"(?<!\\)[#%]", line)
        outside = re.sub(r"(?<!\\)\$.*?(?<!\\)\$", "", line)  # formulas may hold _ and ^
        assert not re.search(r"(?<!\\)[_^~<>|\"]", outside)
    assert text.count(r"\mathbf{100.0}_{[50.0, 100.0]}$") == 1
    assert r"50.0 \%" in text
    assert r"\label{tab:made-study}" in text
    assert escape_latex("a_b & 5 %\\") == r"a\_b \& 5 \%\textbackslash{}"


def test_columns_that_only_some_studies_have(made):
    study, names = made
    frame = frame_of(study)

    def said(frame, name):
        table = table_of(frame, with_content(frame))
        (row,) = [row for row in table.rows if row.point == names[name]]
        return dict(zip([h.text for h in table.headings], [cell.text for cell in row.cells], strict=True))

    plain = said(frame, "a")
    assert plain["difference"].startswith("+16.7")
    assert plain["differs in"] == "tokens"
    assert not {"p", "p (Holm)"} & set(plain)  # there is no interval either
    tested = frame.assign(p=0.0123456, p_holm=frame.difference.notna().map({True: 3e-9, False: None}))
    assert said(tested, "a")["p (Holm)"] == "<0.0001"
    assert said(tested.drop(columns="p_holm"), "a")["p"] == "0.0123"
    assert not {"judge", "identical to", "difference at equal tokens"} & set(plain)
    is_a = frame.point == names["a"]
    more = frame.assign(judge=is_a.map({True: "j-1", False: "j-2"}))
    more.loc[is_a, ["same_map_as", "iso_token_difference", "iso_token_p_holm"]] = names["b"], 0.25, 0.5
    told = said(more, "a")
    assert (told["judge"], told["identical to"]) == ("j-1", "none, 4 frames, judge j-2")
    assert (told["difference at equal tokens"], told["p (Holm) at equal tokens"]) == ("+25.0", "0.5000")
    assert said(more, "b")["p (Holm) at equal tokens"] == "-"
    assert "judge j-1" in markdown_tables(frame.assign(judge="j-1"), "made").splitlines()[0]


def test_published_figures_stand_apart(made):
    study, _ = made
    line = {
        "benchmark": "MVBench",
        "model": "PLLaVA 7B",
        "value": 46.6,
        "unit": "%",
        "source": NASTY,
        "protocol": "a|b",
    }
    others = other_tables(pd.DataFrame([line]), over_seeds(frame_of(study), "none"))
    text = markdown_tables(frame_of(study), "made", others)
    assert text.count("Published figures, other protocols") == 1
    assert cells_of(text.splitlines()[-1])[:3] == ["MVBench", "PLLaVA 7B", "46.6"]
    assert len(cells_of(text.splitlines()[-1])) == 6
    assert groups_balance(latex_tables(frame_of(study), "made", others))


def test_a_question_comes_from_the_file_that_the_points_name(made, tmp_path):
    assert study_head(tmp_path, scored_points(made[0]).values()) == {}  # these points name none
    shutil.copytree(made[0], tmp_path / "asked")
    for path in (tmp_path / "asked").glob("*/run.json"):
        path.write_text(path.read_text().replace("{", '{"experiment": "ask",', 1))
    (tmp_path / "ask.yaml").write_text(f"# Question: {NASTY}\n# Cost: none\n# Headline: a minus b\n")
    assert study_head(tmp_path, scored_points(tmp_path / "asked").values()) == {
        "question": NASTY,
        "headline": "a minus b",
    }
    (tmp_path / "ask.yaml").unlink()
    assert study_head(tmp_path, scored_points(tmp_path / "asked").values()) == {}
