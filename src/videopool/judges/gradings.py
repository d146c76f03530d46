"""From the records of a point to what a judge is asked, and from verdicts to records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from videopool.judges.protocol import ANSWER, HIGHEST, Item, Verdict

Record = dict[str, Any]


@dataclass
class Grading:
    """One record, and what it is graded on.

    Attributes:
        record: an answer.
        items: by axis; empty if something is lacking.
        lacking: what keeps it from being graded, "" if nothing.
    """

    record: Record
    items: dict[str, Item] = field(default_factory=dict)
    lacking: str = ""

    def graded(self, verdicts: Mapping[str, Verdict]) -> Record:
        """What verdicts, by axis, say of the record.

        score is 0 .. 1: for a short answer whether it is right, else the mean grade / 5. judge_grade is 0 .. 5,
        the mean over axes where there are several.
        """
        grades = {axis: verdict.grade for axis, verdict in verdicts.items()}
        mean = sum(grades.values()) / len(grades)
        if ANSWER in verdicts:
            verdict = verdicts[ANSWER]
            return {"score": float(bool(verdict.right)), "judge_grade": mean, "verdict": verdict.as_dict()}
        told = {axis: verdict.as_dict() for axis, verdict in verdicts.items()}
        return {"score": mean / HIGHEST, "judge_grade": mean, "axes": grades, "verdict": told}


def gradings(records: Iterable[Record], axes: Mapping[str, str]) -> list[Grading]:
    """What there is to grade among answered records: open questions with a reference answer.

    Args:
        records: with id, task, question, options, answer, prediction, and optionally pair.
        axes: by the axis, the task whose answers it grades; empty for right or wrong.
    """
    opened = [r for r in records if not r["options"] and r["answer"]]
    pairs: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(opened, key=lambda record: str(record["id"])):
        if record.get("pair"):
            pairs[record["pair"]].append(record)
    found = []
    for record in opened:
        own = [axis for axis, task in axes.items() if task == record["task"]] if axes else [ANSWER]
        together = pairs[record["pair"]] if record.get("pair") and axes else [record]
        if not own:
            continue
        if record.get("pair") and axes and len(together) != 2:
            found.append(Grading(record, lacking="the other answer of its pair is not there"))
            continue
        questions, predictions = (tuple(str(r[name]) for r in together) for name in ("question", "prediction"))
        found.append(Grading(record, {axis: Item(axis, questions, together[0]["answer"], predictions) for axis in own}))
    return found
