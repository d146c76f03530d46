"""Paths: where conf/ and experiments/ lie. Inside the package when installed, beside src/ in a checkout."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PUBLISHED = "published.yaml"  # in experiments/, but no study: figures from papers


def shipped(name: str) -> Path:
    """The folder "conf" or "experiments". Raises FileNotFoundError if the installation is incomplete."""
    for folder in (PACKAGE / name, PACKAGE.parents[1] / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{name}/ was not installed with videopool; install it again")
