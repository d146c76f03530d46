"""The results of a training run: exported weights with facts about their training, and the metrics of the run."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from videopool.config.build import plain
from videopool.files import json_lines, whole_folder, write_text
from videopool.models.checkpoint import ABOUT, ADAPTER
from videopool.models.configuration import model_config
from videopool.models.families import family_of
from videopool.models.tower_changes import tower_changes
from videopool.notes import note
from videopool.points.setting import pooling_settings
from videopool.pooling import Adaptive
from videopool.results import fingerprint
from videopool.results.errors import writing
from videopool.results.manifest import now, peak_memory
from videopool.results.point import TRAINING_LOG, read_training_log
from videopool.training.batches import Schedule
from videopool.training.checkpoints import Checkpoints, TrainingState
from videopool.training.point import EXPORT, TrainingPoint, note_left_out

LEFT_OUT, BAD_BATCH = "left_out.jsonl", "bad_batch.json"
EXPORTS = "exports"  # of the weights after some steps
PEFT = "peft"  # folder within an export
NOT_THE_WEIGHTS = ("transformers_version", "_name_or_path")  # release that wrote the base, and its path
LLAVA = ("language_model", "multi_modal_projector")  # LLaVA's names of the language model and the projector


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
        if isinstance(pooling, Adaptive) and not point.shape.by_clip:
            size = (point.sampler.num, point.shape.height, point.shape.width)
            reference |= {"pooling_method": "avg", "pooling_shape": list(pooling.out_shape(*size))}
        config = {**model_config(point.model).to_dict(), **reference}
        lora = point.settings["lora"] or {}
        about = {
            "base": {
                "source": str(point.model["source"]),
                "probe": self.probe,
                "tower": tower_changes(point.model).identity,
            },
            "trained_pooling": pooling_settings(point.config, pooling),
            "trained_frames": plain(point.config.frames),
            "recipe": recipe,
            "training": self.facts(step),
            "lora_alpha": lora.get("alpha"),
        }
        with writing(folder, SafetensorError), whole_folder(folder) as part:
            family = family_of(point.shape.family, point.model.get("_target_"))
            export(part, weights, config, about, lora, (family.language_name, family.projector_name))

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
    note_left_out(useless)
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
        **peak_memory(),
        "finished": now(),
    }


def export(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: dict[str, Any],
    about: dict[str, Any],
    lora: Mapping[str, Any],
    names: tuple[str, str] = LLAVA,
) -> None:
    """Write trained weights, by transformers' names, to a PLLaVA folder and, with LoRA, a peft folder below it.

    The first has the names of PLLaVA's wrapped model (arXiv 2404.16994, tasks/train), whose loader takes one
    model.safetensors; peft's PeftModel.from_pretrained opens the second, with the projector in it, on the base model.
    Equal weights make equal files.

    Args:
        config: the base's transformers configuration, and further keys of PLLaVA's, e.g. pooling_shape.
        about: base, pooling, frames and facts of the training, for load_adapter().
        lora: rank, alpha, dropout and targets; empty without LoRA.
        names: the family's, of the language model and the projector.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text, projector = names
    language, other = re.compile(rf"^(?:model\.)?{text}\."), re.compile(rf"^(?:model\.)?(?={projector}\.)")
    inside = "language_model.base_model.model.model."
    wrapped = {other.sub("", language.sub(inside, name)): weight for name, weight in weights.items()}
    save_file(wrapped, folder / "model.safetensors")
    _write(folder / "config.json", {name: value for name, value in config.items() if name not in NOT_THE_WEIGHTS})
    _write(folder / ABOUT, about)
    if not lora:
        return
    from peft import LoraConfig

    inner = folder / PEFT
    inner.mkdir(exist_ok=True)
    LoraConfig(
        base_model_name_or_path=about["base"]["source"],
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=rf".*{text}\.layers\.\d+\.self_attn\.({'|'.join(lora['targets'])})",
        modules_to_save=[projector],
        inference_mode=True,
    ).save_pretrained(str(inner))
    named = {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": weight for name, weight in weights.items()}
    save_file(named, inner / "adapter_model.safetensors", metadata={"format": "pt"})
    _write(inner / ABOUT, about)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, default=str), encoding="utf-8")
