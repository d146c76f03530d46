"""The judge of a point."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import build
from videopool.config.errors import ConfigError
from videopool.config.own_code import own_code
from videopool.judges import Judge, LocalJudge
from videopool.models.source import check_weights, identity, locate
from videopool.notes import note
from videopool.results.fingerprint import fingerprint


def build_judge(config: DictConfig) -> Judge | None:
    """Build the judge of `judge._target_`, or None; nothing is loaded or asked yet. Raises UserError for bad settings.

    The source hash of a user's own class is part of the judge's id: a changed class gives new verdicts.
    """
    if config.judge.get("_target_") is None:
        return None
    judge = build(config, "judge", without=("store",))
    if not isinstance(judge, Judge):
        raise ConfigError(f"judge: {type(judge).__name__} is not a videopool.judges.Judge")
    if code := own_code(config, ["judge"]):
        judge.id += f":{config.judge._target_}:{fingerprint(code)[:8]}"
    note(getattr(judge, "warning", ""))
    return judge


def local_judge(source: str, revision: str | None, **settings: Any) -> LocalJudge:
    """A Hugging Face language model from a folder or by its id. Raises ChatError or ModelError for wrong settings."""
    folder = locate(source, revision, "judge.source")
    check_weights(folder, f"judge.source={source}")
    return LocalJudge(folder, identity(source, revision, "judge.source"), Path(source).name, **settings)
