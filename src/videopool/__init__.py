"""Pooling ablations on image-to-video language models."""

from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = ["evaluate", "sweep"]

if TYPE_CHECKING:
    from videopool.command import evaluate, sweep


def __getattr__(name: str) -> object:
    """evaluate() and sweep(), once they are used: --help needs none of their imports."""
    if name in __all__:
        from videopool import command

        return getattr(command, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *__all__]
