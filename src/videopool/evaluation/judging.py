"""Have the open answers of a point graded, and keep every reply."""

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.chat import NoText, RequestFailed, ask_all
from videopool.judges import BadVerdict, Item, Judge, Verdict, gradings
from videopool.results import ReplyStore
from videopool.results.manifest import now
from videopool.results.records import JUDGE_FAILED, OK

LONGEST = 120  # characters of a judge's id in the name of a file
# Keys that grading adds to a record; `unjudged_score` keeps the earlier score.
ADDED = ("judge", "judge_grade", "axes", "verdict", "unjudged_score")

Record = dict[str, Any]


def store_path(config: DictConfig, judge: Judge) -> Path:
    """The file of a judge's replies."""
    if config.judge.store is not None:
        return Path(str(config.judge.store)).expanduser()
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", judge.id)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(judge.id.encode()).hexdigest()[:8]}"
    return Path(config.results_dir) / "judgements" / f"{name}.jsonl"


def ungraded(record: Record) -> Record:
    """An answered record as it was before any judge."""
    if "unjudged_score" not in record:
        return record
    bare = {key: value for key, value in record.items() if key not in ADDED and key != "reason"}
    return {**bare, "status": OK, "score": record["unjudged_score"]}


def grade(
    judge: Judge,
    store: ReplyStore,
    records: Iterable[Record],
    axes: Mapping[str, str],
    stopped: Callable[[], bool],
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
) -> tuple[list[Record], dict[str, int]]:
    """Records with the judge's verdicts, and requests and tokens of this run; without a verdict: judge_failed.

    Stored verdicts are reused; if all are stored, the judge needs neither key nor weights.

    Args:
        records: of a point; answered ones without a judge's keys (see ungraded), and failed ones.
        axes: of the benchmark.
        stopped: whether the user asked to stop; the rest is then left ungraded.
        progress: makes a progress bar of so many steps; gives the function that advances it.

    Raises ChatError if the judge cannot be used.
    """
    records = list(records)
    chosen = gradings([record for record in records if record["status"] == OK], axes)
    items = {item.key(judge.id): item for grading in chosen for item in grading.items.values()}
    stored = {key: _stored_verdict(store, key, item) for key, item in items.items()}
    verdicts = {key: verdict for key, verdict in stored.items() if verdict is not None}
    names = ("requests", "reused", "prompt_tokens", "completion_tokens")
    usage = Counter({f"judge_{name}": 0 for name in names})
    usage["judge_reused"] = len(verdicts)
    missing = {key: item for key, item in items.items() if key not in verdicts}
    failures: dict[str, str] = {}
    if missing:
        judge.check()
        try:
            with progress(len(missing)) as advance:
                for key, result in _ask(judge, store, missing, usage, stopped):
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
            reasons = [failures[key] for key in open_keys if key in failures]
            reason = grading.lacking or next(iter(reasons), "not asked yet")
            record |= {"status": JUDGE_FAILED, "reason": reason, "score": None}
        else:
            record |= grading.graded({axis: verdicts[key] for axis, key in keys.items()})
        by_id[record["id"]] = record
    return [by_id.get(record["id"], record) for record in records], dict(usage)


def _stored_verdict(store: ReplyStore, key: str, item: Item) -> Verdict | None:
    """The newest verdict among the stored replies; None if none of them is a verdict."""
    for text in store.texts(key):
        try:
            return item.verdict(text)
        except BadVerdict:
            continue
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
