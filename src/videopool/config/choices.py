"""Which option of a group was chosen."""

from hydra.core.hydra_config import HydraConfig


def chosen(group: str) -> str | None:
    """The option that was chosen of a group; None if the configuration was not composed by the program."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None
