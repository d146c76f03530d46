"""The samples that lmms-eval logged (--log_samples) as a point: paired with others, clustered by clip."""

import glob
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from videopool.config.errors import ConfigError
from videopool.files import read_json_lines
from videopool.results import PointFolder, fingerprint, metrics_of
from videopool.results.manifest import now
from videopool.results.point import CLIPS, MANIFEST, METRICS, RECORDS, clip_files, part_of, read_json
from videopool.results.records import OK, write_records
from videopool.results.study import point_records

NAME = re.compile(r".*_samples_(?P<task>.+)\.jsonl")
# Of each line, what is no metric.
PLAIN = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "token_counts", "doc_hash", "input",
         "input_media")  # fmt: skip
# What the metric of a task may hold instead of a number: a score, or an answer beside the right one.
SCORES = ("score", "acc", "accuracy", "correct")
PAIRS = (("pred_answer", "answer"), ("pred_answer", "gt_answer"), ("pred", "ground_truth"))


@dataclass(frozen=True)
class Logged:
    """A file of samples. Raises ConfigError for another file."""

    file: Path

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.file.name):
            raise ConfigError(f"job.samples: {self.file.name} is no file of lmms-eval: <date>_samples_<task>.jsonl")
        if not self.rows:
            raise ConfigError(f"job.samples: {self.file} holds no samples")

    @property
    def task(self) -> str:
        """The task's name."""
        match = NAME.fullmatch(self.file.name)
        return match["task"] if match else ""

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping per document."""
        return [row for row in read_json_lines(self.file) if "doc_id" in row]

    @cached_property
    def results(self) -> dict[str, Any]:
        """What the same run wrote beside it: configurations, model arguments; {} if it is not there."""
        start = self.file.name.partition("_samples_")[0]
        return read_json(self.file.with_name(f"{start}_results.json")) or {}

    @property
    def split(self) -> str:
        """The split of the documents."""
        config = part_of(part_of(self.results, "configs"), self.task)
        return str(config.get("test_split") or config.get("validation_split") or "test")


def logged(samples: object) -> list[Logged]:
    """The files of `job.samples`: a name or pattern, or a list of them. Raises ConfigError if there are none."""
    patterns = samples if isinstance(samples, list) else [samples]
    files = [Path(file) for pattern in patterns for file in sorted(glob.glob(str(pattern)))]
    if not samples or not files:
        raise ConfigError(f"job.samples={samples}: no such file; lmms-eval writes <date>_samples_<task>.jsonl")
    return [Logged(file) for file in files]


def metric_of(files: Sequence[Logged], asked: str | None) -> str:
    """The metric that makes the score: the one asked for, or the only one. Raises ConfigError for none or several."""
    found = dict.fromkeys(name for file in files for row in file.rows for name in row if name not in PLAIN)
    usable = [name for name in found if any(score_in(row.get(name)) is not None for one in files for row in one.rows)]
    if asked is not None and asked in usable:
        return asked
    if asked is None and len(usable) == 1:
        return usable[0]
    what = "has no metric with a score" if not usable else f"choose one of {', '.join(usable)}"
    raise ConfigError(f"job.metric={asked}: {files[0].file.name}: {what}")


def score_in(value: object) -> float | None:
    """A metric's value of one sample as a score of 0..1; None if it is none."""
    if isinstance(value, Mapping):
        for name in SCORES:
            if name in value:
                return score_in(value[name])
        for given, right in PAIRS:
            if given in value and right in value:
                return float(str(value[given]).strip() == str(value[right]).strip())
        return None
    if isinstance(value, (bool, int, float)) and 0 <= value <= 1:
        return float(value)
    return None


def scored(folder: Path, file: Logged, metric: str) -> list[dict[str, Any]]:
    """The records of a point that answered for lmms-eval, with its scores. A failed sample stays failed.

    Raises ConfigError unless the file holds every record's document, with the question that the record has.
    """
    rows = {str(row["doc_id"]): row for row in file.rows}
    records: list[dict[str, Any]] = []
    for record in point_records(folder):
        row = rows.get(str(record["id"]).split(".")[0])
        if row is None:
            raise ConfigError(f"job.samples: {file.file.name} has no document {record['id']} of {folder.name}")
        if record["question"].split() != _words(row):
            raise ConfigError(f"job.samples: document {record['id']} of {file.file.name} is not that of {folder.name}")
        score = score_in(row.get(metric)) if record["status"] == OK else None
        records.append({**record, "answer": str(row.get("target", "")), "score": score})
    return records


def _words(row: Mapping[str, Any]) -> list[str]:
    return str(row.get("input", "")).replace("<image>", "").replace("<video>", "").split()


def made(files: Sequence[Logged], metric: str, clip: str | None) -> list[dict[str, Any]]:
    """Records of the samples of any model. clip: the field that names a document's clip, None for the logged media.

    Raises ConfigError for a document without a clip: its answer could not be clustered.
    """
    records: list[dict[str, Any]] = []
    for file in files:
        for row in file.rows:
            named = _field(row, clip) if clip else next(iter(row.get("input_media") or ()), None)
            if not isinstance(named, (str, int)) or named == "":
                raise ConfigError(
                    f"job.clip={clip}: {file.file.name} does not say the clip of document {row['doc_id']}; name its "
                    f"field, as in job.clip={metric}.videoID"
                )
            number = str(row["doc_id"]) if len(files) == 1 else f"{file.task}/{row['doc_id']}"
            answer = row.get("filtered_resps")
            records.append(
                {"id": number, "clip": str(named), "task": file.task, "question": str(row.get("input", "")),
                 "options": [], "answer": str(row.get("target", "")), "status": OK,
                 "prediction": answer if isinstance(answer, str) else str(answer), "score": score_in(row.get(metric)),
                 "frame_indices": []}
            )  # fmt: skip
    return records


def _field(row: Mapping[str, Any], name: str) -> Any:
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def write_imported(
    study: Path, name: str, manifest: Mapping[str, Any], records: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any], clips: Mapping[str, Path],
) -> Path:  # fmt: skip
    """Write a complete point of imported records. Returns its folder; the same import again writes the same one."""
    own = fingerprint(manifest["identity"])
    with PointFolder(study, name, own) as folder:
        folder.clear()
        folder.write_manifest({**manifest, "fingerprint": own, "started": now()})
        folder.write_clips(clips)
        write_records(folder.path / RECORDS, records)
        roles = part_of(manifest, "tasks")
        counted = metrics_of(
            records,
            part_of(roles, "groups"),
            set(roles.get("headline", ())).__contains__,
            {},
            part_of(roles, "weights"),
        )
        folder.write_metrics({**metrics, **counted, "finished": now()})
    return folder.path


def imported_point(folder: Path, file: Logged, metric: str, study: Path) -> Path:
    """Write a point that answered for lmms-eval, with lmms-eval's scores, into a study."""
    manifest = read_json(folder / MANIFEST)
    metrics = read_json(folder / METRICS)
    if manifest is None or metrics is None or "point" not in manifest:
        raise ConfigError(f"job.point={folder}: no complete point; lmms-eval's last lines name it")
    digest = hashlib.sha256(file.file.read_bytes()).hexdigest()
    identity = {**part_of(manifest, "identity"), "lmms_eval": {"metric": metric, "samples": digest}}
    name = folder.name.rpartition("-")[0]
    records = scored(folder, file, metric)
    clips = clip_files(folder) if (folder / CLIPS).is_file() else {}
    return write_imported(study, name, {**manifest, "identity": identity}, records, metrics, clips)


def imported_model(
    files: Sequence[Logged], metric: str, study: Path, model: str, frames: int | None, clip: str | None, seed: int
) -> Path:
    """Write the samples of a model that ran in lmms-eval, without VideoPool, as a point into a study."""
    first = files[0]
    records = made(files, metric, clip)
    digests = [hashlib.sha256(file.file.read_bytes()).hexdigest() for file in files]
    tasks = sorted({file.task for file in files})
    benchmark = f"lmms_eval_{'+'.join(tasks)}/{first.split}"
    identity = {"model": model, "frames": {"num": frames}, "seed": seed, "benchmark": benchmark,
                "lmms_eval": {"metric": metric, "samples": digests}}  # fmt: skip
    point = {"model": model, "pooling": "none", "stage": "projector", "frames": frames, "visual_tokens": None,
             "benchmark": benchmark, "split": first.split, "judge": None}  # fmt: skip
    manifest = {
        "point": point,
        "identity": identity,
        "samples": len(records),
        "tasks": {"headline": tasks, "groups": {}, "axes": {}, "weights": {}},
        "config": {"benchmark": {"id": benchmark}, "lmms_eval": first.results.get("config", {})},
    }
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{model}-f{frames}" if frames else model).strip("-")
    return write_imported(study, name, manifest, records, {}, {})
