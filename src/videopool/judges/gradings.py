"""From a point's records to requests to a judge, and from verdicts to records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from videopool.judges.protocol import ANSWER, HIGHEST, Item, Verdict

Record = dict[str, Any]


@dataclass
class Grading:
    """One record and the requests about it."""

    record: Record
    items: dict[str, Item] = field(default_factory=dict)  # by axis; empty if something is lacking
    lacking: str = ""  # why it cannot be graded; "" if it can

    def graded(self, verdicts: Mapping[str, Verdict]) -> Record:
        """The record's new values by its verdicts, by axis.

        score is 0 .. 1: for a short answer 1 if it is right, else the mean grade / 5. judge_grade is 0 .. 5, the mean
        over axes.
        """
        grades = {axis: verdict.grade for axis, verdict in verdicts.items()}
        mean = sum(grades.values()) / len(grades)
        if ANSWER in verdicts:
            verdict = verdicts[ANSWER]
            return {"score": float(bool(verdict.right)), "judge_grade": mean, "verdict": verdict.as_dict()}
        replies = {axis: verdict.as_dict() for axis, verdict in verdicts.items()}
        return {"score": mean / HIGHEST, "judge_grade": mean, "axes": grades, "verdict": replies}


def gradings(records: Iterable[Record], axes: Mapping[str, str]) -> list[Grading]:
    """The gradable ones among answered records: open questions with a reference answer.

    Args:
        records: with id, task, question, options, answer, prediction and, optionally, pair.
        axes: by axis, the task whose answers it grades; empty for right or wrong.
    """
    opened = [record for record in records if not record["options"] and record["answer"]]
    pairs: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(opened, key=lambda record: str(record["id"])):
        pairs[record.get("pair", "")].append(record)
    result = []
    for record in opened:
        own = [axis for axis, task in axes.items() if task == record["task"]] if axes else [ANSWER]
        paired = axes and record.get("pair")
        together = pairs[record["pair"]] if paired else [record]
        if own and paired and len(together) != 2:
            result.append(Grading(record, lacking="the other answer of its pair is not there"))
        elif own:
            questions, predictions = (tuple(str(r[name]) for r in together) for name in ("question", "prediction"))
            items = {axis: Item(axis, questions, together[0]["answer"], predictions) for axis in own}
            result.append(Grading(record, items))
    return result
