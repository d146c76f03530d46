"""What an adapter_config.json of peft says, of which all that changes the computation is computed or refused."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from videopool.models.errors import ModelError
from videopool.notes import note

USED = (
    "peft_type", "r", "lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "modules_to_save", "bias", "use_dora", "lora_bias", "init_lora_weights",
)  # fmt: skip
# They say where an adapter comes from, how it was trained, or what only other kinds of layers read.
HARMLESS = (
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "fan_in_fan_out", "inference_mode",
    "loftq_config", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "task_type",
)  # fmt: skip
# Left out as long as they are off.
REFUSED = (
    "alora_invocation_tokens", "arrow_config", "ensure_weight_tying", "kasa_config", "layer_replication",
    "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
# The others (pissa, olora, corda, loftq, lora_ga) change the base's weights, and keep the change in no file.
INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")
OFF: tuple[Any, ...] = (None, False, {}, [], "")
_PREFIX = "base_model.model."  # of names in peft's files, which its patterns do not see


@dataclass(frozen=True)
class PeftSettings:
    """The part of an adapter_config.json that is computed; names are those of the model as it was trained.

    Attributes:
        alpha: scale of LoRA, where alpha_pattern names no other.
        rank: of the matrices, where rank_pattern names no other.
        alpha_pattern, rank_pattern: by regular expression of a module's name or of the end of it.
        rslora: the scale is divided by the root of the rank, not by the rank (arXiv 2312.03732).
        dora: magnitudes are trained apart from directions (arXiv 2402.09353).
        lora_bias: the second matrix has a bias.
        bias: "none", "all" or "lora_only": which biases of the base were trained.
        saved: ends of the names of modules that were trained whole.
        targets: what peft's own rule takes to say whether a module has LoRA.
    """

    alpha: float
    rank: int
    alpha_pattern: Mapping[str, float]
    rank_pattern: Mapping[str, float]
    rslora: bool
    dora: bool
    lora_bias: bool
    bias: str
    saved: tuple[str, ...]
    targets: Mapping[str, Any]

    def rank_of(self, key: str) -> int:
        """Rank that is told of the module whose weights have a key in peft's file."""
        return int(_by_pattern(self.rank_pattern, key, self.rank))

    def alpha_of(self, key: str) -> float:
        """Alpha of the module whose weights have a key in peft's file."""
        return _by_pattern(self.alpha_pattern, key, self.alpha)

    def targeted(self, names: Iterable[str]) -> set[str]:
        """Those of some modules' names, or keys of peft's file, to which peft gives LoRA."""
        from peft import LoraConfig
        from peft.tuners.tuners_utils import check_target_module_exists

        config = LoraConfig(**{name: value for name, value in self.targets.items() if value is not None})
        # A module that is left out on purpose is an object that says True of itself.
        found = ((name, check_target_module_exists(config, name.removeprefix(_PREFIX))) for name in names)
        return {name for name, match in found if match is True or isinstance(match, re.Match)}


def peft_settings(content: Mapping[str, Any], where: str) -> PeftSettings:
    """Read an adapter_config.json.

    Args:
        content: of the file.
        where: the configuration key that errors name.

    Raises:
        ModelError: another kind of adapter than LoRA, a setting that changes the computation and is not computed
            here, an unknown key, or a value of the wrong kind.
    """
    where = f"{where}: adapter_config.json"
    kind = content.get("peft_type", "LORA")
    if kind != "LORA":
        raise ModelError(f"{where}: peft_type={kind}: only LORA can be put onto a model")
    odd = {name: value for name, value in content.items() if name not in USED + HARMLESS}
    on = [f"{name}={json.dumps(value)[:60]}" for name, value in odd.items() if value not in OFF]
    if on:
        raise ModelError(f"{where} sets {', '.join(on)}: not computed here; merge the adapter into its base with peft")
    unknown = [name for name, value in odd.items() if name not in REFUSED and value is not None]
    if unknown:
        note(f"{where} has unknown keys, which are off: {', '.join(unknown)}")
    init = content.get("init_lora_weights", True)
    if init not in INITS:
        raise ModelError(
            f"{where}: init_lora_weights={init} has changed the weights of the base, which no file keeps; convert the "
            "adapter in peft with save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    flags = {name: content.get(name) or False for name in ("use_rslora", "use_dora", "lora_bias")}
    wrong = [name for name, value in flags.items() if not isinstance(value, bool)]
    bias = content.get("bias") or "none"
    alpha, rank = content.get("lora_alpha", 8), content.get("r", 8)  # peft's own defaults
    patterns = {name: content.get(name) or {} for name in ("alpha_pattern", "rank_pattern")}
    saved = content.get("modules_to_save") or []
    wrong += ["bias"] * (bias not in ("none", "all", "lora_only")) + ["lora_alpha"] * (not _number(alpha))
    wrong += ["r"] * (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1)
    wrong += [name for name, one in patterns.items() if not _pattern(one)]
    wrong += ["modules_to_save"] * (not isinstance(saved, list) or not all(isinstance(name, str) for name in saved))
    if wrong:
        told = ", ".join(f"{name}={json.dumps(content[name])[:60]}" for name in wrong)
        raise ModelError(f"{where}: {told}: nothing that peft writes there")
    if float(alpha) == 0 and patterns["alpha_pattern"]:
        raise ModelError(f"{where}: lora_alpha=0 beside an alpha_pattern: lora.alpha has nothing to scale by")
    names = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save")
    return PeftSettings(
        alpha=float(alpha),
        rank=rank,
        alpha_pattern=patterns["alpha_pattern"],
        rank_pattern=patterns["rank_pattern"],
        rslora=flags["use_rslora"],
        dora=flags["use_dora"],
        lora_bias=flags["lora_bias"],
        bias=bias,
        saved=tuple(saved),
        targets={name: content.get(name) for name in names},
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _pattern(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_number(one) for one in value.values()):
        return False
    try:
        return all(re.compile(name) for name in value)
    except re.error:
        return False


def _by_pattern(pattern: Mapping[str, float], key: str, default: float) -> float:
    """Peft's rule: the first expression that a module's name ends with."""
    name = key.removeprefix(_PREFIX)
    found = (value for expression, value in pattern.items() if re.match(rf"(.*\.)?({expression})$", name))
    return next(found, default)
