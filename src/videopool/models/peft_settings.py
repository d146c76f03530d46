"""The settings in peft's adapter_config.json: each that changes the computation is computed or refused."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from videopool.models.errors import ModelError, is_number
from videopool.notes import note

TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save")
USED = (
    "peft_type", "r", "lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern", "bias", "use_dora", "lora_bias",
    "init_lora_weights", *TARGETS,
)  # fmt: skip
# The origin of an adapter, its training, or settings of layers other than linear ones.
HARMLESS = (
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "fan_in_fan_out", "inference_mode",
    "loftq_config", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "task_type",
)  # fmt: skip
# Ignored as long as they are off.
REFUSED = (
    "alora_invocation_tokens", "arrow_config", "ensure_weight_tying", "kasa_config", "layer_replication",
    "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
# The others (pissa, olora, corda, loftq, lora_ga) change the base's weights, and keep the change in no file.
INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")
OFF: tuple[Any, ...] = (None, False, {}, [], "")
_PREFIX = "base_model.model."  # of names in peft's files; its patterns do not see it


@dataclass(frozen=True)
class PeftSettings:
    """The settings of an adapter_config.json that are computed; names of modules are the trained model's."""

    lora_alpha: float = 8.0  # scale of LoRA, where alpha_pattern names no other
    r: int = 8  # rank of the matrices, where rank_pattern names no other
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)  # by a regular expression for the end of a name
    rank_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False  # the scale is alpha / sqrt(rank), not alpha / rank (arXiv 2312.03732)
    use_dora: bool = False  # magnitudes are trained apart from directions (arXiv 2402.09353)
    lora_bias: bool = False  # the second matrix has a bias
    modules_to_save: Sequence[str] = ()  # ends of the names of modules that were trained whole
    targets: Mapping[str, Any] = field(default_factory=dict)  # settings by which peft decides which modules have LoRA

    def rank_of(self, key: str) -> int:
        """Rank of the module whose weights have a key in peft's file."""
        return int(_by_pattern(self.rank_pattern, key, self.r))

    def alpha_of(self, key: str) -> float:
        """Alpha of the module whose weights have a key in peft's file."""
        return _by_pattern(self.alpha_pattern, key, self.lora_alpha)

    def targeted(self, names: Iterable[str]) -> set[str]:
        """Those of the module names, or keys of peft's file, to which peft gives LoRA."""
        from peft import LoraConfig
        from peft.tuners.tuners_utils import check_target_module_exists

        config = LoraConfig(**{name: value for name, value in self.targets.items() if value is not None})
        matches = ((name, check_target_module_exists(config, name.removeprefix(_PREFIX))) for name in names)
        # For an excluded module, peft returns an object that is true as well.
        return {name for name, match in matches if match is True or isinstance(match, re.Match)}


def peft_settings(content: Mapping[str, Any], where: str) -> PeftSettings:
    """Check the content of an adapter_config.json; errors name `where`.

    Raises ModelError for an adapter other than LoRA, a setting that changes the computation and is not computed here,
    an unknown key that is on, or a value of the wrong kind.
    """
    where = f"{where}: adapter_config.json"
    kind = content.get("peft_type", "LORA")
    if kind != "LORA":
        raise ModelError(f"{where}: peft_type={kind}: only LORA can be put onto a model")
    others = {name: value for name, value in content.items() if name not in USED + HARMLESS}
    if on := [f"{name}={json.dumps(value)[:60]}" for name, value in others.items() if value not in OFF]:
        raise ModelError(f"{where} sets {', '.join(on)}: not computed here; merge the adapter into its base with peft")
    if unknown := [name for name, value in others.items() if name not in REFUSED and value is not None]:
        note(f"{where} has unknown keys, which are off: {', '.join(unknown)}")
    init = content.get("init_lora_weights", True)
    if init not in INITS:
        raise ModelError(
            f"{where}: init_lora_weights={init} has changed the weights of the base, which no file keeps; convert the "
            "adapter in peft with save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    computed = {name for name in PeftSettings.__dataclass_fields__ if content.get(name)} | {"lora_alpha", "r"}
    settings = PeftSettings(
        **{name: value for name, value in content.items() if name in computed},
        targets={name: content.get(name) for name in TARGETS},
    )
    saved = settings.modules_to_save
    valid = {
        **{name: isinstance(getattr(settings, name), bool) for name in ("use_rslora", "use_dora", "lora_bias")},
        **{name: _is_pattern(getattr(settings, name)) for name in ("alpha_pattern", "rank_pattern")},
        "bias": (content.get("bias") or "none") in ("none", "all", "lora_only"),
        "lora_alpha": is_number(settings.lora_alpha),
        "r": isinstance(settings.r, int) and is_number(settings.r) and settings.r >= 1,
        "modules_to_save": isinstance(saved, (list, tuple)) and all(isinstance(name, str) for name in saved),
    }
    if wrong := [f"{name}={json.dumps(content[name])[:60]}" for name, right in valid.items() if not right]:
        raise ModelError(f"{where}: {', '.join(wrong)}: peft writes no such value")
    if settings.lora_alpha == 0 and settings.alpha_pattern:
        raise ModelError(f"{where}: lora_alpha=0 beside an alpha_pattern: lora.alpha has nothing to scale by")
    return settings


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, dict) and all(re.compile(name) and is_number(value[name]) for name in value)
    except re.error:
        return False


def _by_pattern(pattern: Mapping[str, float], key: str, default: float) -> float:
    """Peft's rule: the first expression that a module's name ends with."""
    name = key.removeprefix(_PREFIX)
    values = (value for expression, value in pattern.items() if re.match(rf"(.*\.)?({expression})$", name))
    return next(values, default)
