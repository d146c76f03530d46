"""All records of a study as one table: from lines and from parquet, whole or by column."""

import json

import pandas as pd
import pytest

from made_study import write_study
from videopool.results import ResultsError, load_records, load_study, point_records
from videopool.results.all_records import write_parquet


@pytest.fixture
def study(tmp_path):
    names = write_study(tmp_path)
    return tmp_path / "results" / "made", {names[one] for one in "abc"}


def test_records_are_those_of_the_points(study):
    folder, names = study
    table = load_records(folder)
    assert set(table.point) == names
    for name, rows in table.groupby("point", observed=True):
        for record, row in zip(point_records(folder / name), rows.to_dict("records"), strict=True):
            assert {key: row[key] for key in ("id", "clip", "task", "prediction", "score", "visual_tokens")} == {
                key: record[key] for key in ("id", "clip", "task", "prediction", "score", "visual_tokens")
            }
            assert json.loads(row["options"]) == record["options"]
            assert json.loads(row["frame_indices"]) == record["frame_indices"]


def test_chosen_columns_and_points(study):
    folder, names = study
    one = min(names)
    table = load_records(folder, ["clip", "score"], [one])
    assert list(table) == ["point", "clip", "score"]
    assert table.score.mean() == pytest.approx(load_study(folder).set_index("point").score[one])
    with pytest.raises(ResultsError, match="no record has the column 'scores'"):
        load_records(folder, ["scores"])
    with pytest.raises(ResultsError, match="no point with records"):
        load_records(folder / "nothing")
    with pytest.raises(ResultsError, match="no column 'scores'"):
        load_study(folder, ["scores"])
    assert list(load_study(folder, ["point", "score"])) == ["point", "score"]


def test_parquet_is_the_same_table(study, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    folder, names = study
    # A column of two kinds, one of whole numbers and fractions, one that a single record has.
    (file,) = folder.glob(f"{min(names)}/records.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0] |= {"visual_tokens": 10.5, "odd": 1}
    lines[1] |= {"odd": "text", "alone": [1, {"a": 2}]}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    target = tmp_path / "export"
    target.mkdir()
    write_parquet(folder, sorted(names), target / "records.parquet")
    own, kept = load_records(folder), load_records(target)
    assert len(own) == len(kept) == sum(len(point_records(folder / name)) for name in names)
    kept = kept.set_index(["point", "id"])
    for row in own.to_dict("records"):
        other = kept.loc[(row["point"], row["id"])]
        for name in ("clip", "task", "score", "visual_tokens", "options", "prediction"):
            assert row[name] == other[name], name
    assert json.loads(kept.loc[(min(names), lines[1]["id"])].alone) == [1, {"a": 2}]
    assert [kept.loc[(min(names), line["id"])].odd for line in lines[:2]] == ["1", '"text"']
    assert pd.isna(kept.loc[(min(names), lines[2]["id"])].odd)
    assert list(load_records(target, ["score"])) == ["point", "score"]
    with pytest.raises(ResultsError):
        load_records(target, ["scores"])
