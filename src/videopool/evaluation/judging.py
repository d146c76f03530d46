"""Have the open answers of a point graded, and keep every reply."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.chat import NoText, Reply, RequestFailed, ask_all
from videopool.judges import BadVerdict, Item, Judge, Verdict, gradings
from videopool.results import ReplyStore
from videopool.results.manifest import now
from videopool.results.records import JUDGE_FAILED, OK

LONGEST = 120  # characters of a judge's id in the name of a file
# What grading adds to a record; `unjudged_score` is the score that it had before.
ADDED = ("judge", "judge_grade", "axes", "verdict", "unjudged_score")

Record = dict[str, Any]


def store_path(config: DictConfig, judge: Judge) -> Path:
    """Where a judge's replies are kept."""
    if config.judge.store is not None:
        return Path(str(config.judge.store)).expanduser()
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", judge.id)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(judge.id.encode()).hexdigest()[:8]}"
    return Path(config.results_dir) / "judgements" / f"{name}.jsonl"


@dataclass
class Usage:
    """What a point's grading took, this time.

    Attributes:
        judge_requests: made, those that failed among them.
        judge_reused: verdicts that were there already.
        judge_prompt_tokens, judge_completion_tokens: of the replies that came.
    """

    judge_requests: int = 0
    judge_reused: int = 0
    judge_prompt_tokens: int = 0
    judge_completion_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


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
) -> tuple[list[Record], Usage]:
    """Records with what the judge says of them; those that it says nothing usable of become judge_failed.

    What the store has a verdict for is not asked again; if that is all, the judge needs neither key nor weights.

    Args:
        records: of a point; answered ones without a judge's marks (see ungraded), and failed ones.
        axes: of the benchmark.
        stopped: whether the user asked to stop; then the rest is left ungraded.
        progress: makes a progress bar of so many steps; gives what moves it on.

    Raises:
        ChatError: the judge cannot be used.
    """
    records = list(records)
    chosen = gradings([record for record in records if record["status"] == OK], axes)
    items = {item.key(judge.id): item for grading in chosen for item in grading.items.values()}
    usage = Usage()
    verdicts: dict[str, Verdict] = {}
    for key, item in items.items():
        if (verdict := _kept(store, key, item)) is not None:
            verdicts[key] = verdict
    usage.judge_reused = len(verdicts)
    open_keys = [key for key in items if key not in verdicts]
    failures: dict[str, str] = {}
    if open_keys:
        judge.check()
        try:
            with progress(len(open_keys)) as advance:
                for key, result in _asked(judge, store, {key: items[key] for key in open_keys}, usage, stopped):
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
        reason = grading.lacking or next((failures[key] for key in keys.values() if key in failures), "")
        bare = {**grading.record, "judge": judge.id, "unjudged_score": grading.record["score"]}
        if not reason and any(key not in verdicts for key in keys.values()):
            reason = "not asked yet"
        if reason:
            by_id[bare["id"]] = {**bare, "status": JUDGE_FAILED, "reason": reason, "score": None}
        else:
            by_id[bare["id"]] = {**bare, **grading.graded({axis: verdicts[key] for axis, key in keys.items()})}
    return [by_id.get(record["id"], record) for record in records], usage


def _kept(store: ReplyStore, key: str, item: Item) -> Verdict | None:
    """The newest verdict among the replies that are kept; those that are none do not count."""
    for text in store.texts(key):
        try:
            return item.verdict(text)
        except BadVerdict:
            continue
    return None


def _asked(
    judge: Judge, store: ReplyStore, items: Mapping[str, Item], usage: Usage, stopped: Callable[[], bool]
) -> Iterator[tuple[str, Verdict | RequestFailed]]:
    """Verdicts by key, as they come; every reply is kept, verdict or not. Adds to usage."""
    lock = threading.Lock()
    wrong: dict[str, str] = {}  # with the last reply: at temperature 0 the same request has the same reply

    def attempt(key: str) -> Verdict:
        with lock:
            usage.judge_requests += 1
        try:
            return answered(key, judge.reply(items[key].messages(wrong.get(key, ""))))
        except (BadVerdict, NoText) as error:
            wrong[key] = str(error)
            raise

    def answered(key: str, reply: Reply) -> Verdict:
        with lock:
            usage.judge_prompt_tokens += reply.prompt_tokens
            usage.judge_completion_tokens += reply.completion_tokens
        about = {
            "judge": judge.id,
            "model": reply.model,
            "axis": items[key].axis,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "time": now(),
        }
        store.add(key, reply.text, about)
        return items[key].verdict(reply.text)

    return ask_all("judge", items, attempt, judge.concurrency, judge.retries, judge.backoff, stopped)
