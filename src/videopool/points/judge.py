"""The judge of a point."""

from pathlib import Path

from omegaconf import DictConfig

from videopool.benchmarks import Benchmark
from videopool.config.build import plain
from videopool.config.errors import ConfigError
from videopool.judges import EndpointJudge, Judge, LocalJudge
from videopool.models.source import identity, locate
from videopool.models.weight_files import check_weights
from videopool.notes import note

JUDGES = ("none", "openai", "local")


def build_judge(config: DictConfig) -> Judge | None:
    """The judge of the group `judge`; None for none. Nothing is loaded or asked yet.

    Raises:
        ConfigError, ChatError, ModelError: the group says something impossible.
    """
    name = str(config.judge.name)
    if name not in JUDGES:
        raise ConfigError(f"judge.name={name!r}: choose one of {', '.join(JUDGES)}")
    if name == "none":
        return None
    settings = {key: value for key, value in plain(config.judge).items() if key not in ("name", "store")}
    if name == "openai":
        judge = EndpointJudge(**settings)
        if warning := judge.endpoint.warning:
            note(warning)
        return judge
    source, revision = str(settings.pop("source")), settings.pop("revision")
    folder = locate(source, revision, "judge.source")
    check_weights(folder, f"judge.source={source}")
    return LocalJudge(folder, identity(source, revision, "judge.source"), Path(source).name, **settings)


def check_gradable(config: DictConfig, benchmark: Benchmark) -> None:
    """Raises ConfigError if a benchmark has no open question with an answer that a judge could compare with."""
    if not any(sample.answer and not sample.options for sample in benchmark.samples):
        raise ConfigError(
            f"judge={config.judge.name}: {benchmark.id} has no open questions with reference answers; say judge=none"
        )
