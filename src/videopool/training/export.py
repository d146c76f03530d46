"""What a training run exports."""

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from videopool.config.build import plain
from videopool.files import whole_folder
from videopool.models.export import Trained, export
from videopool.points.setting import pooling_settings
from videopool.pooling import Adaptive
from videopool.results.errors import writing
from videopool.results.point import TRAINING_LOG
from videopool.training.loop import BAD_BATCH
from videopool.training.point import EXPORT, TrainingPoint

LEFT_OUT = "left_out.jsonl"


EXPORTS = "exports"  # of the weights behind some steps


def start_over(folder: Path) -> None:
    """Forget an earlier run."""
    for name in ("checkpoints", EXPORT, EXPORTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (TRAINING_LOG, LEFT_OUT, BAD_BATCH):
        (folder / name).unlink(missing_ok=True)


def step_folder(folder: Path, step: int) -> Path:
    """Where a run puts the weights behind one of its steps."""
    return folder / EXPORTS / f"step-{step:06d}"


def export_run(
    point: TrainingPoint,
    folder: Path,
    weights: dict[str, Tensor],
    told: list[float],
    recipe: str,
    facts: dict[str, Any],
) -> None:
    """Export the trained weights."""
    lora = point.settings["lora"]
    pooling = point.pooling
    reference: dict[str, Any] = {"num_frames": point.sampler.num}
    if isinstance(pooling, Adaptive):
        size = (point.sampler.num, point.shape.height, point.shape.width)
        reference |= {"pooling_method": "avg", "pooling_shape": list(pooling.out_shape(*size))}
    trained = Trained(
        source=str(point.model["source"]),
        probe=told,
        config=_config_of(point),
        pooling=pooling_settings(point.config, pooling),
        frames=plain(point.config.frames),
        recipe=recipe,
        facts=facts,
        lora=lora or {},
        reference=reference,
    )
    with writing(folder, SafetensorError), whole_folder(folder) as part:
        export(part, weights, trained)


def _config_of(point: TrainingPoint) -> dict[str, Any]:
    from videopool.models.configuration import model_config

    return dict(model_config(point.model).to_dict())
