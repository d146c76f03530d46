"""Signatures: arguments of classes, read from source.

Nothing is imported for a mistyped word.
"""

import ast
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

BARE = ("Protocol", "Generic", "ABC", "object", "Module")  # base classes without arguments


@cache
def parameters(target: str) -> frozenset[str] | None:
    """Names that a class or function takes, as its source says; None: any, or not known."""
    found = _definition(target)
    if found is None:
        return None
    node, module = found
    if isinstance(node, ast.FunctionDef):
        return _arguments(node, module, [])
    bases = [f"{module}.{ast.unparse(base).partition('[')[0]}" for base in node.bases]
    bases = [
        base for base in bases if base.rpartition(".")[2] not in ("Protocol", "Generic", "ABC", "object", "Module")
    ]
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return _arguments(inner, module, bases)
    fields = (item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name))
    data = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    names = {ast.unparse(item.target) for item in fields if data and "ClassVar" not in ast.unparse(item.annotation)}
    return _union([frozenset(names), *map(parameters, bases)])


def _arguments(function: ast.FunctionDef, module: str, bases: list[str]) -> frozenset[str] | None:
    """Names of a function's arguments, and of those functions that it passes its `**` on to."""
    given = function.args
    names = frozenset(one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)) - {"self"}
    if given.kwarg is None:
        return names
    passed = []
    for call in ast.walk(function):
        spread = [word.value for word in call.keywords if word.arg is None] if isinstance(call, ast.Call) else []
        if any(
            isinstance(inner, ast.Name) and inner.id == given.kwarg.arg for one in spread for inner in ast.walk(one)
        ):
            callee = ast.unparse(call.func)  # type: ignore[attr-defined]
            passed += bases if callee == "super().__init__" else [f"{module}.{callee}"]
    return _union([names, *map(parameters, passed)]) if passed else None


def _union(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    found = list(sets)
    return None if None in found else frozenset().union(*filter(None, found))


def _definition(target: str) -> tuple[ast.ClassDef | ast.FunctionDef, str] | None:
    """The class or function of a dotted name, and its module."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        if (path := _source(parts[:cut])) is None:
            continue
        module = ".".join(parts[:cut])
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            return None  # told when it is imported
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and [node.name] == parts[cut:]:
                return node, module
            for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
                if (alias.asname or alias.name) == parts[cut]:
                    above = _above(node, module, path) if isinstance(node, ast.ImportFrom) else []
                    return _definition(".".join([*above, alias.name, *parts[cut + 1 :]]))
        return None
    return None


def _above(node: ast.ImportFrom, module: str, path: Path) -> list[str]:
    """The module that a `from` names, as parts; dots count from the file's own package."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    above = package[: len(package) - node.level + 1] if node.level else []
    return [*above, *([node.module] if node.module else [])]


def _source(parts: list[str]) -> Path | None:
    """The file of a module, found without importing its package."""
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    if not spec.submodule_search_locations:
        return Path(spec.origin) if len(parts) == 1 else None
    path = Path(spec.origin).parent.joinpath(*parts[1:])
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)
