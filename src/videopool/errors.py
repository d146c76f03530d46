"""Errors: the base class of all rooms."""

import difflib
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any


class UserError(Exception):
    """An error that the user can mend: printed in one line, without a traceback."""


def one_line(error: BaseException) -> str:
    """The message of an error in one line of at most 300 characters; its class if it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking: Python's, an accelerator's, or that of torch's allocator for the CPU."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return not kinds.isdisjoint(("MemoryError", "OutOfMemoryError")) or "DefaultCPUAllocator" in str(error)


def did_you_mean(word: str, options: Iterable[str] | Mapping[str, str], cutoff: float = 0.65) -> str:
    """The question after an unknown word, with the options most like it, as a mapping writes them; empty if none is."""
    names = {one.lower(): options[one] if isinstance(options, Mapping) else one for one in options}
    close = difflib.get_close_matches(word.lower(), names, n=2, cutoff=cutoff)
    best = [names[name] for name in close if close[0] != word.lower() or name == close[0]]
    return f"; did you mean {' or '.join(best)}?" if best else ""


def in_code(target: str, error: BaseException) -> str:
    """Why a class or function that a configuration names cannot be used: file and line of the user's own code."""
    while error.__cause__ is not None:
        loading = re.match(r"Error loading '([\w.]+)'", str(error)) if isinstance(error, ImportError) else None
        if loading is None and not type(error).__module__.startswith("hydra."):
            break
        target, error = loading[1] if loading else target, error.__cause__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    module, _, name = target.rpartition(".")
    if isinstance(error, ModuleNotFoundError) and error.name and f"{target}.".startswith(f"{error.name}."):
        if module in sys.modules:
            return _missing(sys.modules[module], name)
        files = {path.stem for path in Path().glob("*.py")}
        return f"there is no module {error.name} in this folder or on the Python path{did_you_mean(error.name, files)}"
    if isinstance(error, AttributeError) and error.name == name and getattr(error.obj, "__name__", "") == module:
        return _missing(error.obj, name)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<") and not installed(frame.filename)]
    text = one_line(error)
    if own or isinstance(error, KeyError) or text == type(error).__name__:  # their text alone explains nothing
        text = f"{type(error).__name__}: {text}" if text != type(error).__name__ else text
    return f"{_short(own[-1].filename)}, line {own[-1].lineno}: {text}" if own else text


def _missing(module: Any, name: str) -> str:
    """That a module has no such class, and whose module it is if it is not in this package or the current folder."""
    names = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
    file = str(getattr(module, "__file__", None) or "")
    whose = f" ({file})" if installed(file) and not module.__name__.startswith("videopool") else ""
    return f"{module.__name__}{whose} has no {name}{did_you_mean(name, names, cutoff=0.5)}"


def _short(path: str) -> str:
    """A path as seen from the current folder."""
    return path.removeprefix(f"{Path.cwd()}/")


@cache
def installed(path: str) -> bool:
    """Whether a file belongs to Python, an installed package or this one."""
    folders = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    known = [Path(folder).resolve() for folder in (*folders, str(Path(__file__).parent))]
    return "site-packages" in path or any(Path(path).resolve().is_relative_to(folder) for folder in known)
