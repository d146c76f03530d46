"""The documentation site: `make docs`, or `sphinx-build -W -n docs build/site`."""

import gc
import importlib
import os
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ["OMP_NUM_THREADS"] = "1"  # imports only; nothing is computed
gc.set_threshold(100_000, 50, 10_000)  # pages are large trees that stay: looking through them took a sixth of a build

citation = yaml.safe_load((HERE.parent / "CITATION.cff").read_text(encoding="utf-8"))
project = citation["title"]
author = citation["authors"][0]["name"]
project_copyright = author
release = str(citation["version"])

keys_page = "configuration"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "pages", "keys", "docstrings"]
exclude_patterns = ["_ext"]
html_theme = "furo"
html_title = f"VideoPool {release}"
smartquotes = False  # commands in text stay as they are
highlight_language = "none"  # of blocks without one: commands
myst_heading_anchors = 4  # GitHub's, so that links with an anchor work there and here

# Pages of the site whose text is elsewhere in the repository.
pages_from = {
    "readme": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "studies": "experiments/README.md",
    "notebooks": "analysis/README.md",
}

# What users import, one page of api/ each.
api = [
    "videopool", "videopool.pooling", "videopool.compression", "videopool.benchmarks", "videopool.models",
    "videopool.judges", "videopool.video", "videopool.features", "videopool.norms", "videopool.training_data",
    "videopool.results", "videopool.figures",
    "videopool.reports", "videopool.command", "videopool.errors",
]  # fmt: skip
for name in api:  # some names are imported on first use; autodoc lists those that are there
    module = importlib.import_module(name)
    for one in getattr(module, "__all__", ()):
        getattr(module, one)

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False  # there are none to look for
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Names without a page here: other projects' (a build needs no network), and bases that users do not import.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|numpy|pandas|pd|matplotlib|pytorch_lightning|collections|pathlib|abc|contextlib)\..*"),
    ("py:.*", r"(dict|list)\[.*"),
    ("py:.*", r"(omegaconf\.)?DictConfig"),
    (
        "py:.*",
        r"videopool\.(pooling\.boxes|pooling\.intervention|norms\.statistics|models\.peft_settings|models\.tower_outputs|models\.texts|results\.study|compression\.\w+|runtime|chat)\..*",
    ),
]
