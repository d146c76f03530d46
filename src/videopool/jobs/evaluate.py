"""job=evaluate: one point, from configuration to metrics."""

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from videopool.benchmarks import Benchmark, Prompt
from videopool.features import ClipDataset, LoadPlan
from videopool.jobs.build import build, jsonable, number, plain, shared_backbone, shared_store
from videopool.jobs.errors import ConfigError, Stopped
from videopool.jobs.evaluator import PARSING, AnswerSettings, Evaluator, group_by_clip
from videopool.jobs.interrupts import StopRequest, ask_before_stopping, ignore_interrupts
from videopool.jobs.outcome import COMPLETE, Outcome
from videopool.jobs.wandb_run import wandb_run
from videopool.models import ModelShape, identity, load_adapter, load_config, model_shape, prefill_flops
from videopool.models.identity import on_hub
from videopool.models.module import STAGES, check_needs
from videopool.models.reading import check_context
from videopool.models.shape import shape_differences, shape_from
from videopool.pooling import ImageGrid, Pooling, map_signature
from videopool.results import PointFailed, PointFolder, RecordLog, fingerprint, metrics_of, read_records
from videopool.results.manifest import git_state, hardware, now, peak_memory_bytes, versions
from videopool.results.records import OK
from videopool.video import READERS, Sampler

LISTED_FAILURES = 10
# Named, because inside a joblib worker the default is loky's, which cannot start loader processes.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


class Point:
    """One configuration, made into objects; weights are not loaded.

    Raises:
        any of USER_ERRORS: the configuration or the files it names are wrong.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.stage = str(config.pooling.get("stage", "projector"))
        if self.stage not in STAGES:
            raise ConfigError(f"pooling.stage={self.stage!r}: choose one of {', '.join(STAGES)}")
        if config.job.reader not in READERS:
            raise ConfigError(f"job.reader={config.job.reader!r}: choose one of {', '.join(READERS)}")
        for key in ("job.workers", "job.max_visual_tokens", "job.max_clips"):
            number(config, key, 0 if key == "job.workers" else 1, whole=True)
        number(config, "job.max_failed_fraction", 0, 1)
        if config.compat.scoring not in PARSING:
            raise ConfigError(f"compat.scoring={config.compat.scoring!r}: choose one of {', '.join(PARSING)}")
        if config.trainer.get("devices", 1) != 1:
            raise ConfigError(f"trainer.devices={config.trainer.devices}: a point is evaluated on one device")
        self.pooling: Pooling = build(config, "pooling", without=("stage",))
        if not isinstance(self.pooling, Pooling):
            raise ConfigError(f"pooling: {type(self.pooling).__name__} is not a videopool.pooling.Pooling")
        self.sampler: Sampler = build(config, "frames")
        self.prompt: Prompt = build(config, "prompt")
        self.model = plain(config.model)
        source, revision = self.model["source"], self.model["revision"]
        self.shape: ModelShape = model_shape(load_config(source, revision, self.model["rope_factor"]))
        self.model_identity = identity(source, revision)
        check_needs(self.pooling, self.shape, self.model["name"])
        if self.model["shape"] is not None:
            told = shape_from(self.model["shape"]).stretched(self.model["rope_factor"])
            if on_hub(source) and (differences := shape_differences(told, self.shape)):
                print(
                    f"videopool: model.shape, used by job=plan, is not that of {source}: {differences}", file=sys.stderr
                )
        self.adapter = _adapter(plain(config.lora))
        self.visual_tokens = (
            self.pooling.num_tokens(self.sampler.num, self.shape.height, self.shape.width) + self.shape.separators
        )
        check_context(self.model["name"], self.shape.context, self.visual_tokens)
        self.benchmark: Benchmark = build(config, "benchmark")

    @property
    def model_name(self) -> str:
        """The model as tables call it, with what was put onto it or changed about it."""
        name = str(self.model["name"])
        if self.adapter is not None:
            alpha = self.adapter["alpha"]
            name += f" {Path(self.adapter['checkpoint']).name}" if alpha is None else f" alpha {alpha:g}"
        if self.model["rope_factor"] is not None:
            name += f" rope {self.model['rope_factor']:g}"
        return name

    @property
    def name(self) -> str:
        """Readable, for folders and tables."""
        parts = [self.model_name, self.pooling.label, f"f{self.sampler.num}"]
        if self.stage != "projector":
            parts.append(self.stage)
        if self.benchmark.scoring != "likelihood":
            parts.append(self.benchmark.scoring)
        return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-")

    def identity(self) -> dict[str, object]:
        """All that determines the numbers."""
        benchmark = self.benchmark
        return {
            "model": self.model_identity,
            "adapter": self.adapter and {k: self.adapter[k] for k in ("identity", "alpha")},
            "dtype": self.model["dtype"],
            "rope_factor": self.model["rope_factor"],
            "precision": self.config.trainer.get("precision"),
            "stage": self.stage,
            "pooling": {k: v for k, v in plain(self.config.pooling).items() if k != "stage"},
            "frames": plain(self.config.frames),
            "reader": self.config.job.reader,
            "benchmark": benchmark.id,
            "annotations": benchmark.annotation_hash,
            "samples": benchmark.samples_hash,
            "headline": list(benchmark.groups.get(benchmark.headline or "", ())),
            "scoring": benchmark.scoring,
            "max_new_tokens": benchmark.max_new_tokens,
            "parsing": self.config.compat.scoring,
            "prompt": asdict(self.prompt),
            "seed": self.config.seed,
        }

    def describe(self) -> dict[str, object]:
        """What tables say about the point."""
        size = (self.sampler.num, self.shape.height, self.shape.width)
        return {
            "model": self.model_name,
            "lora_alpha": self.adapter and self.adapter["alpha"],
            "pooling": self.pooling.label,
            "stage": self.stage,
            "frames": self.sampler.num,
            "visual_tokens": self.visual_tokens,
            "benchmark": self.benchmark.id,
            "split": self.benchmark.split,
            "prefill_gflops": prefill_flops(self.shape, self.visual_tokens) / 1e9,
            "map_signature": map_signature(self.pooling, *size),
            "windows": self.pooling.windows(*size),
        }


def _adapter(lora: dict[str, Any]) -> dict[str, Any] | None:
    """Checkpoint, identity and alpha of the group `lora`; None for the model as released."""
    if lora["checkpoint"] is None:
        if lora["alpha"] is not None:
            raise ConfigError(f"lora.alpha={lora['alpha']}: there is no lora.checkpoint to scale")
        return None
    checkpoint = load_adapter(str(lora["checkpoint"]))
    alpha = checkpoint.alpha if lora["alpha"] is None else lora["alpha"]
    if not checkpoint.ranks:
        if lora["alpha"] is not None:
            raise ConfigError(
                f"lora.alpha={lora['alpha']}: {checkpoint.source} has no LoRA to scale; say lora.alpha=null"
            )
        return {"checkpoint": checkpoint.source, "identity": checkpoint.identity, "alpha": None}
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha >= 0:
        raise ConfigError(f"lora.alpha={alpha!r}: give a number of at least 0 (the checkpoint does not say one)")
    return {"checkpoint": checkpoint.source, "identity": checkpoint.identity, "alpha": float(alpha)}


def evaluate(config: DictConfig) -> Outcome:
    """Run one point, or go on with it, or find it finished."""
    torch.manual_seed(int(config.seed))
    point = Point(config)
    what = point.identity()
    study = Path(config.results_dir) / config.study
    with PointFolder(study, point.name, fingerprint(what)) as folder:
        if config.force:
            folder.clear()
        if folder.complete:
            return Outcome(COMPLETE, folder.path.name, "finished before", str(folder.path), fresh=False)
        manifest = {
            "point": point.describe(),
            "identity": what,
            "config": jsonable(config),
            "versions": versions(),
            "git": git_state(),
            "hardware": hardware(),
            "started": now(),
        }
        folder.write_manifest(manifest)
        try:
            with wandb_run(config, folder.path, "evaluate") as run:
                metrics = _run(point, folder, manifest)
                run.finish_point(metrics, read_records(folder.path / "records.jsonl"), point.describe())
                folder.write_metrics(metrics)
        except Exception as error:
            folder.write_failure(str(error) or type(error).__name__, {"time": now()})
            raise
        score = metrics["score"]
        text = f"{100 * float(str(score)):.1f} %" if score is not None else "not scored"
        return Outcome(COMPLETE, folder.path.name, f"{text}, n={metrics['n']}", str(folder.path))


def _run(point: Point, folder: PointFolder, manifest: dict[str, object]) -> dict[str, object]:
    """Records of what is missing, then metrics of all."""
    config, model = point.config, point.model
    started = time.perf_counter()
    log = RecordLog(folder.path / "records.jsonl")
    try:
        missing = [sample for sample in point.benchmark.samples if sample.id not in log.done]
        adapter = point.adapter or {"checkpoint": None, "identity": "", "alpha": None}
        backbone = shared_backbone(
            model, point.model_identity, adapter["checkpoint"], adapter["identity"], adapter["alpha"]
        )
        benchmark = point.benchmark
        settings = AnswerSettings(point.prompt, benchmark.scoring, benchmark.max_new_tokens, config.compat.scoring)
        store = shared_store(config)
        pooling = point.pooling
        tile = pooling.tile if isinstance(pooling, ImageGrid) else None
        plan = LoadPlan(point.sampler, config.job.reader, backbone.image_processor, tile, pooling.label)
        evaluator = Evaluator(backbone, pooling, point.stage, settings, store, plan)
        dataset = ClipDataset(group_by_clip(missing), plan, store, evaluator.frame_key)
        if missing:
            with ask_before_stopping() as stop:
                _predict(point, evaluator, dataset, log, stop, folder.path.name)
    finally:
        log.close()
    elapsed = time.perf_counter() - started
    records = read_records(folder.path / "records.jsonl")
    _judge_failures(records, float(config.job.max_failed_fraction))
    metrics = metrics_of(records, point.benchmark.groups, point.benchmark.in_headline)
    seconds = dict(evaluator.seconds)
    # Loaders decode and preprocess beside the model, so their seconds are not part of the elapsed time.
    ahead = sum(seconds.get(kind, 0.0) for kind in ("decode", "preprocess"))
    seconds["other"] = max(0.0, elapsed - sum(seconds.values()) + ahead)
    metrics |= {
        "seconds_per_sample": elapsed / max(1, len(missing)),
        "seconds": {kind: round(spent, 3) for kind, spent in seconds.items()},
        "elapsed_seconds": elapsed,
        "peak_memory_bytes": peak_memory_bytes(),
        "finished": now(),
    }
    return metrics


def _judge_failures(records: Sequence[dict[str, object]], allowed: float) -> None:
    """Raises PointFailed if too many samples could not be evaluated, or none was."""
    failed = [record for record in records if record["status"] != OK]
    if len(failed) == len(records) or len(failed) > allowed * len(records):
        clips = {str(record["clip"]): str(record.get("reason", record["status"])) for record in failed}
        listed = "".join(f"\n    {name}: {reason}" for name, reason in list(clips.items())[:LISTED_FAILURES])
        more = f"\n    and {len(clips) - LISTED_FAILURES} more" if len(clips) > LISTED_FAILURES else ""
        raise PointFailed(
            f"{len(failed)} of {len(records)} samples could not be evaluated "
            f"(allowed: job.max_failed_fraction={allowed:g}):{listed}{more}"
        )


def _predict(
    point: Point, evaluator: Evaluator, dataset: ClipDataset, log: RecordLog, stop: StopRequest, title: str
) -> None:
    """Lightning's predict loop over batches of clips; records are written after each batch."""
    job = point.config.job
    size = max(1, min(int(job.max_clips), int(job.max_visual_tokens) // max(1, point.visual_tokens)))
    workers = int(job.workers) if dataset.must_read else 0
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=size,
        collate_fn=list,
        num_workers=workers,
        worker_init_fn=ignore_interrupts if workers else None,
        multiprocessing_context=START_METHOD if workers else None,
    )
    total = sum(len(clip.samples) for clip in dataset.jobs)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), transient=True, disable=not sys.stdout.isatty()
    ) as bar:
        line = bar.add_task(title, total=total)
        writer = _Writer(log, stop, lambda count: bar.advance(line, count))
        trainer = build(
            point.config,
            "trainer",
            callbacks=[writer],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        _predict_quietly(trainer, evaluator, loader)
    if stop.asked:
        raise Stopped(f"{len(log.done)} of {len(point.benchmark.samples)} samples of {title} are done")


def _predict_quietly(trainer: pl.Trainer, evaluator: Evaluator, loader: DataLoader[Any]) -> None:
    try:
        trainer.predict(evaluator, dataloaders=loader, return_predictions=False)
    except _StopPredicting:
        pass


class _StopPredicting(Exception):
    """Leaves Lightning's loop between two batches."""


class _Writer(Callback):
    """Writes the records of each batch as soon as it is done."""

    def __init__(self, log: RecordLog, stop: StopRequest, advance: Any) -> None:
        self.records, self.stop, self.advance = log, stop, advance

    def on_predict_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.records.append(outputs)
        self.advance(len(outputs))
        if self.stop.asked:
            raise _StopPredicting
