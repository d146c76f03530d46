"""The results of a training run: exported weights with facts about their training, and the metrics of the run."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from videopool.config.build import plain
from videopool.files import json_lines, whole_folder, write_text
from videopool.models.configuration import model_config
from videopool.models.export import Trained, export
from videopool.notes import note
from videopool.points.setting import pooling_settings
from videopool.pooling import Adaptive
from videopool.results import fingerprint
from videopool.results.errors import writing
from videopool.results.manifest import now, peak_memory_bytes
from videopool.results.point import TRAINING_LOG, read_training_log
from videopool.training.batches import Schedule
from videopool.training.checkpoints import Checkpoints, TrainingState
from videopool.training.point import EXPORT, LISTED, TrainingPoint

LEFT_OUT, BAD_BATCH = "left_out.jsonl", "bad_batch.json"
EXPORTS = "exports"  # of the weights after some steps


def start_over(folder: Path) -> None:
    """Forget an earlier run."""
    for name in ("checkpoints", EXPORT, EXPORTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (TRAINING_LOG, LEFT_OUT, BAD_BATCH):
        (folder / name).unlink(missing_ok=True)


@dataclass
class Exporter:
    """Exports the trained weights of a run."""

    point: TrainingPoint
    folder: Path  # of the run
    schedule: Schedule
    probe: list[float]  # of the base's weights, see probe()
    _counted: tuple[int, float] = 0, 0.0  # a step, and the operations up to it

    def on_the_way(self, step: int, weights: dict[str, Tensor]) -> None:
        """Export the weights after a step to a folder of their own."""
        self._export(self.folder / EXPORTS / f"step-{step:06d}", weights, step, self.point.recipe(step))

    def result(self, step: int, weights: dict[str, Tensor]) -> None:
        """Export the run's result, the weights after a step."""
        self._export(self.folder / EXPORT, weights, step, self.point.recipe())

    def _export(self, folder: Path, weights: dict[str, Tensor], step: int, recipe: str) -> None:
        point, pooling = self.point, self.point.pooling
        reference: dict[str, Any] = {"num_frames": point.sampler.num}
        if isinstance(pooling, Adaptive):
            size = (point.sampler.num, point.shape.height, point.shape.width)
            reference |= {"pooling_method": "avg", "pooling_shape": list(pooling.out_shape(*size))}
        trained = Trained(
            source=str(point.model["source"]),
            probe=self.probe,
            config=model_config(point.model).to_dict(),
            pooling=pooling_settings(point.config, pooling),
            frames=plain(point.config.frames),
            recipe=recipe,
            facts=self.facts(step),
            lora=point.settings["lora"] or {},
            reference=reference,
        )
        with writing(folder, SafetensorError), whole_folder(folder) as part:
            export(part, weights, trained)

    def facts(self, step: int) -> dict[str, Any]:
        """Facts that tell trained points apart in tables; `examples` counts each time that one is shown."""
        batch, sources = self.schedule.batch, self.schedule.mixture.sources
        before, flops = self._counted if self._counted[0] <= step else (0, 0.0)
        for one in self.schedule.examples(before * batch, (step - before) * batch):
            flops += self.point.flops_of(one.example.kind, len(one.encoded.input_ids))
        self._counted = step, flops
        return {
            "clips": sum(source.media("video") for source in sources),
            "images": sum(source.media("image") for source in sources),
            "examples": step * batch,
            "steps": step,
            "tflops": round(flops / 1e12, 6),
            "data": fingerprint({source.name: source.digest for source in sources})[:12],
        }


def training_metrics(exporter: Exporter, progress: TrainingState, first: int, elapsed: float) -> dict[str, Any]:
    """The content of metrics.json, of an attempt from step `first` on. Writes left-out entries to their file."""
    point, folder, schedule = exporter.point, exporter.folder, exporter.schedule
    rows, encoder = read_training_log(folder), schedule.encoder
    held_out = [row for row in rows if "validation_loss" in row]
    useless = sorted(encoder.refused.values())
    refused = [line for source in point.sources for line in source.refused] + useless
    left_out = [{"kind": "refused", "why": line} for line in refused]
    left_out += [{"kind": "unreadable", "why": line} for line in sorted(progress.failures.values())]
    write_text(folder / LEFT_OUT, json_lines(left_out))
    for line in useless[:LISTED]:
        note(f"left out: {line}")
    if encoder.cut:
        note(f"{len(encoder.cut)} conversations were cut at their end")
    best = Checkpoints(folder / "checkpoints").best()
    return {
        "steps": progress.step,
        "loss": progress.ema,
        "first_loss": next(row["loss"] for row in rows if "loss" in row),
        "validation_loss": held_out[-1]["validation_loss"] if held_out else None,
        "best_validation_loss": best and best[1],
        "best_step": best and best[0],
        "examples": progress.step * schedule.batch,
        "labelled_tokens": progress.tokens,
        "n_refused": len(refused),
        "n_unreadable": len(progress.failures),
        "n_cut": len(encoder.cut),
        "seconds": {kind: round(spent, 3) for kind, spent in progress.seconds.items()},
        **progress.frames,
        "elapsed_seconds": elapsed,
        "seconds_per_step": elapsed / max(1, schedule.steps - first),
        "peak_memory_bytes": peak_memory_bytes(),
        "finished": now(),
    }
