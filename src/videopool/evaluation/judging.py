"""Have the open answers of a point graded, and keep every reply."""

import hashlib
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videopool.chat import NoText, RequestFailed, ask_all
from videopool.config.errors import Stopped
from videopool.judges import BadVerdict, Item, Judge, Verdict
from videopool.judges.protocol import ANSWER, HIGHEST
from videopool.points.point import Point
from videopool.results import PointFolder, ReplyStore, write_records
from videopool.results.manifest import now
from videopool.results.point import RECORDS
from videopool.results.records import JUDGE_FAILED, OK
from videopool.runtime.interrupts import ask_before_stopping
from videopool.runtime.progress import progress

LONGEST = 120  # characters of a judge's id in the name of a file
# Keys that grading adds to a record; `unjudged_score` keeps the earlier score.
ADDED = ("judge", "judge_grade", "axes", "verdict", "unjudged_score")

Record = dict[str, Any]


@dataclass
class Grading:
    """One record and the requests about it."""

    record: Record
    items: dict[str, Item] = field(default_factory=dict)  # by axis; empty if something is lacking
    lacking: str = ""  # why it cannot be graded; "" if it can

    def graded(self, verdicts: Mapping[str, Verdict]) -> Record:
        """The record's new values by its verdicts, by axis: score in 0..1, judge_grade in 0..5 (the mean over axes)."""
        grades = {axis: verdict.grade for axis, verdict in verdicts.items()}
        mean = sum(grades.values()) / len(grades)
        if ANSWER in verdicts:
            verdict = verdicts[ANSWER]
            return {"score": float(bool(verdict.right)), "judge_grade": mean, "verdict": verdict.as_dict()}
        replies = {axis: verdict.as_dict() for axis, verdict in verdicts.items()}
        return {"score": mean / HIGHEST, "judge_grade": mean, "axes": grades, "verdict": replies}


def gradings(records: Iterable[Record], axes: Mapping[str, str]) -> list[Grading]:
    """The open questions with a reference answer among answered records; `axes`: task by axis, or right and wrong."""
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


def ungraded(record: Record) -> Record:
    """An answered record as it was before any judge."""
    if "unjudged_score" not in record:
        return record
    bare = {key: value for key, value in record.items() if key not in ADDED and key != "reason"}
    return {**bare, "status": OK, "score": record["unjudged_score"]}


def grade(point: Point, folder: PointFolder, judge: Judge, records: list[Record]) -> tuple[list[Record], Record]:
    """Records with the judge's verdicts, which replace those on disk; and metrics of the grading.

    Records without a verdict become judge_failed. If all verdicts are stored, the judge needs neither key nor weights.
    Raises ChatError if the judge cannot be used, Stopped if the user asked to stop before all were graded.
    """
    store = ReplyStore(_store_path(point, judge))
    chosen = gradings([record for record in records if record["status"] == OK], point.benchmark.axes)
    items = {item.key(judge.id): item for grading in chosen for item in grading.items.values()}
    stored = {key: _stored_verdict(store, key, item) for key, item in items.items()}
    verdicts = {key: verdict for key, verdict in stored.items() if verdict is not None}
    usage = Counter(judge_requests=0, judge_reused=len(verdicts), judge_prompt_tokens=0, judge_completion_tokens=0)
    missing = {key: item for key, item in items.items() if key not in verdicts}
    failures: dict[str, str] = {}
    with ask_before_stopping() as stop:
        if missing:
            judge.check()
            try:
                with progress("judging", len(missing)) as advance:
                    for key, result in _ask(judge, store, missing, usage, lambda: stop.asked):
                        if isinstance(result, RequestFailed):
                            failures[key] = str(result)
                        else:
                            verdicts[key] = result
                        advance(1)
            finally:
                judge.close()
    by_id: dict[str, Record] = {}
    for grading in chosen:
        keys = {axis: item.key(judge.id) for axis, item in grading.items.items()}
        open_keys = [key for key in keys.values() if key not in verdicts]
        record = {**grading.record, "judge": judge.id, "unjudged_score": grading.record["score"]}
        if grading.lacking or open_keys:
            reasons = [grading.lacking, *(failures.get(key, "") for key in open_keys), "not asked yet"]
            record |= {"status": JUDGE_FAILED, "reason": next(filter(None, reasons)), "score": None}
        else:
            record |= grading.graded({axis: verdicts[key] for axis, key in keys.items()})
        by_id[record["id"]] = record
    graded = [by_id.get(record["id"], record) for record in records]
    write_records(folder.path / RECORDS, graded)
    if stop.asked and any(record["status"] == JUDGE_FAILED for record in graded):
        raise Stopped(f"all samples of {folder.path.name} are answered, and not all are graded")
    return graded, {"judge": judge.id, "judge_replies": str(store.path), **usage}


def _store_path(point: Point, judge: Judge) -> Path:
    """The file of a judge's replies."""
    if point.config.judge.store is not None:
        return Path(str(point.config.judge.store)).expanduser()
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", judge.id)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(judge.id.encode()).hexdigest()[:8]}"
    return Path(point.config.results_dir) / "judgements" / f"{name}.jsonl"


def _stored_verdict(store: ReplyStore, key: str, item: Item) -> Verdict | None:
    """The newest verdict among the stored replies; None if none of them is a verdict."""
    for text in store.texts(key):
        with suppress(BadVerdict):
            return item.verdict(text)
    return None


def _ask(
    judge: Judge, store: ReplyStore, items: Mapping[str, Item], usage: Counter[str], stopped: Callable[[], bool]
) -> Iterator[tuple[str, Verdict | RequestFailed]]:
    """Verdicts by key, as they come. Stores every reply, verdict or not, and adds to `usage`."""
    lock = threading.Lock()
    faults: dict[str, str] = {}  # of the last reply: at temperature 0 the same request has the same reply

    def attempt(key: str) -> Verdict:
        with lock:
            usage["judge_requests"] += 1
        try:
            reply = judge.reply(items[key].messages(faults.get(key, "")))
            tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
            with lock:
                usage.update({f"judge_{name}": count for name, count in tokens.items()})
            facts = {"judge": judge.id, "model": reply.model, "axis": items[key].axis, **tokens, "time": now()}
            store.add(key, reply.text, facts)
            return items[key].verdict(reply.text)
        except (BadVerdict, NoText) as error:
            faults[key] = str(error)
            raise

    return ask_all("judge", items, attempt, judge.concurrency, judge.retries, judge.backoff, stopped)
