"""job=merge: a model with its checkpoint as one folder of Hugging Face, for its pooling."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import plain
from videopool.config.errors import ConfigError
from videopool.files import whole_folder
from videopool.inference.backbones import own_backbone
from videopool.models import attach, load_adapter
from videopool.models.lora import set_alpha, set_projector
from videopool.models.merging import merge, save_merged
from videopool.notes import note
from videopool.points.early import check_model
from videopool.points.point import read_adapter
from videopool.points.setting import Setting, pooling_settings, refuse_api
from videopool.results.errors import writing
from videopool.runtime.outcome import COMPLETE, Outcome


def run(config: DictConfig) -> Outcome:
    """Merge and save. Raises UserError for a folder that exists, and what cannot be merged."""
    refuse_api(config)
    check_model(config)
    if not config.job.to:
        raise ConfigError("job.to is not given: the folder to write")
    target = Path(str(config.job.to)).expanduser()
    if target.exists():
        raise ConfigError(f"job.to={target} exists; name another folder, or remove it")
    setting = Setting(config)
    setting.check_sizes()
    adapter = read_adapter(plain(config.lora)) or {}
    backbone = own_backbone(setting.model)
    if adapter:
        attach(backbone, load_adapter(adapter["checkpoint"]))
        if adapter["alpha"] is not None:
            set_alpha(backbone, adapter["alpha"])
        if adapter["projector"] is not None:
            set_projector(backbone, adapter["projector"])
    own, trained = pooling_settings(setting.config, setting.pooling), adapter.get("trained_pooling")
    if trained and trained != own:
        note(f"{adapter['checkpoint']} was trained under {trained.get('label')}; {setting.pooling.label} is recorded")
    layers = merge(backbone)
    record: dict[str, Any] = {
        "pooling": plain(setting.config.pooling),
        "frames": plain(setting.config.frames),
        "label": setting.pooling.label,
        "trained_pooling": trained,
        "training": adapter.get("training"),
    }
    with writing(target), whole_folder(target) as folder:
        save_merged(backbone, str(setting.model["source"]), setting.model["revision"], record, folder)
    use = f"videopool model=local model.source={target} model.pooling=recorded"
    return Outcome(COMPLETE, "merge", f"wrote {target}: LoRA of {layers} layers merged; {use}", str(target))
