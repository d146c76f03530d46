"""job=merge: a model with its checkpoint as one folder of Hugging Face, for its pooling."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import build, plain
from videopool.config.errors import ConfigError
from videopool.files import whole_folder
from videopool.inference.backbones import own_backbone
from videopool.models import attach, load_adapter
from videopool.models.lora import set_alpha, set_projector
from videopool.models.merging import merge, save_merged
from videopool.models.shape import own_shape
from videopool.models.stages import check_needs
from videopool.notes import note
from videopool.points.early import check_model
from videopool.points.point import read_adapter
from videopool.points.setting import pooling_of, pooling_settings, refuse_api
from videopool.results.errors import writing
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.video import Sampler


def run(config: DictConfig) -> Outcome:
    """Merge and save. Raises UserError for a folder that exists, and what cannot be merged."""
    refuse_api(config)
    check_model(config)
    if not config.job.to:
        raise ConfigError("job.to is not given: the folder to write")
    target = Path(str(config.job.to)).expanduser()
    if target.exists():
        raise ConfigError(f"job.to={target} exists; name another folder, or remove it")
    (pooling, stage), model = pooling_of(config), plain(config.model)
    sampler: Sampler = build(config, "frames")
    check_needs(pooling, own_shape(model), str(model["name"]), stage)
    adapter = read_adapter(plain(config.lora)) or {}
    backbone = own_backbone(model)
    if adapter:
        attach(backbone, load_adapter(adapter["checkpoint"]))
        if adapter["alpha"] is not None:
            set_alpha(backbone, adapter["alpha"])
        if adapter["projector"] is not None:
            set_projector(backbone, adapter["projector"])
    trained = adapter.get("trained_pooling")
    if trained and trained != pooling_settings(config, pooling):
        note(f"{adapter['checkpoint']} was trained under {trained.get('label')}; {pooling.label} is recorded")
    count = merge(backbone)
    record: dict[str, Any] = {
        "pooling": plain(config.pooling),
        "frames": plain(config.frames),
        "frame_size": model.get("frame_size"),
        "label": f"{pooling.label}, {sampler.num} frames",
        "trained_pooling": trained,
        "training": adapter.get("training"),
    }
    with writing(target), whole_folder(target) as folder:
        save_merged(backbone, str(model["source"]), model["revision"], record, folder)
    use = f"videopool model=local model.source={target} model.pooling=recorded"
    return Outcome(COMPLETE, "merge", f"wrote {target}: LoRA of {count} weights merged; {use}", str(target))
