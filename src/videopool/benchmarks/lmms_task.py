"""Tasks of lmms-eval (its YAML files) as benchmarks: their documents, texts, clips, options and answers.

A task says how it makes these of a document: by the name of a field, a Jinja template, a value, or a Python function of
a file beside it (`!function utils.doc_to_text`). Functions run only if the user says so.
"""

import ast
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from videopool.benchmarks.benchmark import Benchmark, Sample, hash_files
from videopool.benchmarks.clip_folder import ClipFolder, short_names
from videopool.benchmarks.columns import Row
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.nested import files_of, read_nested
from videopool.errors import one_line

KEY = "benchmark.task"
BUILDERS = ("json", "csv", "parquet")  # of local files, in `dataset_path`
PARTS = ("doc_to_text", "doc_to_visual", "doc_to_target", "doc_to_choice")
DEEPEST = 8  # files that include one another
MODEL = "videopool"  # in a task's settings by model


class Function(str):
    """The name of a task's own function, as `utils.doc_to_text`."""


class _Loader(yaml.SafeLoader):
    """Plain YAML, and names of functions."""


_Loader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))

_TEMPLATES = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
_TEMPLATES.filters["regex_replace"] = lambda text, pattern, new, count=0: re.sub(pattern, new, text, count=count)


def load_lmms_task(
    task: str | Path,
    root: str | Path | None = None,
    documents: str | Path | None = None,
    doc_to_text: object = None,
    doc_to_visual: object = None,
    doc_to_target: object = None,
    doc_to_choice: object = None,
    functions: bool = False,
    id: str | None = None,
    limit: int | None = None,
    scoring: str | None = None,
    **settings: Any,
) -> Benchmark:
    """Read a task's file and its documents. conf/benchmark/lmms_task.yaml explains the arguments.

    A sample's id is its document's number, as in lmms-eval. Raises BenchmarkError for a file that is missing or no
    task, for documents that are not on disk, and for a part that needs a function or does not fit its documents.
    """
    path = Path(task)
    content = _task(path)
    own = {"doc_to_text": doc_to_text, "doc_to_visual": doc_to_visual, "doc_to_target": doc_to_target,
           "doc_to_choice": doc_to_choice}  # fmt: skip
    parts = {name: content.get(name) if own[name] is None else own[name] for name in PARTS}
    split = str(content.get("test_split") or content.get("validation_split") or "")
    if not split:
        raise BenchmarkError(f"{KEY}={path}: the task names no test_split and no validation_split")
    files = _files(path, content, split, documents)
    reader = _Reader(path, content, functions)
    rows = [row for file in files for row in read_nested(file, KEY)][:limit]
    clips = None if root is None else ClipFolder(root)
    chosen = content.get("output_type") == "multiple_choice" and doc_to_choice is None
    # What stands between the question and a continuation, but for the blank that the prompt brings.
    before = str(content.get("target_delimiter", " ")).lstrip(" ") if chosen else ""
    samples = [_sample(row, number, parts, reader, clips, before) for number, row in enumerate(rows)]
    if clips is None:
        names = short_names(sample.clip for sample in samples)
        samples = [Sample(**{**vars(one), "clip_id": names[one.clip]}) for one in samples]
    usual = "generate" if not any(sample.options for sample in samples) else "cloze" if chosen else "likelihood"
    settings = {"scoring": scoring or usual, **settings}
    name = str(content.get("task") or path.stem)
    digest = hash_files([path, *files, *reader.sources])
    return Benchmark(f"{id or f'lmms_eval_{name}'}/{split}", split, samples, digest, **settings)


def _task(path: Path, depth: int = 0) -> dict[str, Any]:
    """A task's settings, with those of the files that it includes."""
    if not path.is_file():
        raise BenchmarkError(f"{KEY}={path}: there is no such file")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BenchmarkError(f"{KEY}={path}: no YAML of a task: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise BenchmarkError(f"{KEY}={path}: no YAML of a task: keys and values are expected")
    included = content.pop("include", [])
    merged: dict[str, Any] = {}
    for name in reversed([included] if isinstance(included, str) else included):
        if depth == DEEPEST:
            raise BenchmarkError(f"{KEY}={path}: more than {DEEPEST} files include one another")
        merged |= _task(path.parent / name, depth + 1)
    merged |= content
    if depth == 0 and isinstance(merged.get("task"), list):
        raise BenchmarkError(f"{KEY}={path}: a group of tasks; name one of {', '.join(map(str, merged['task'][:8]))}")
    return merged


def _files(path: Path, content: Mapping[str, Any], split: str, documents: str | Path | None) -> list[Path]:
    """The files of a task's split."""
    if documents is not None:
        files = files_of(Path(documents), None, "benchmark.documents")
        return [file for file in files if file.stem.split("-")[0] == split] or files
    source, data = content.get("dataset_path"), (content.get("dataset_kwargs") or {}).get("data_files")
    if source not in BUILDERS or not data:
        hub = f"its documents are {source} on the hub" if isinstance(source, str) else "it names no documents"
        raise BenchmarkError(f"{KEY}={path}: {hub}; say benchmark.documents=<their file or folder on this disk>")
    data = data.get(split) if isinstance(data, Mapping) else data
    if not data:
        raise BenchmarkError(f"{KEY}={path}: data_files has nothing for the split {split!r}")
    return [path.parent / name for name in ([data] if isinstance(data, str) else data)]


class _Reader:
    """What the parts of a task make of a document. `sources`: the files of its functions."""

    def __init__(self, path: Path, content: Mapping[str, Any], functions: bool) -> None:
        self.path, self.functions = path, functions
        self.sources: list[Path] = []
        self._found: dict[str, Callable[..., Any]] = {}
        self._templates: dict[str, Any] = {}
        self.before = content.get("description") or ""
        by_model = content.get("lmms_eval_specific_kwargs")
        self.kwargs = by_model
        if isinstance(by_model, Mapping):
            usual = by_model.get("default") or by_model.get("dataset") or {}
            self.kwargs = by_model.get(MODEL) or {**by_model, **usual}

    def value(self, part: object, name: str, row: Row) -> Any:
        """A part of a task, of one document."""
        if isinstance(part, Function):
            return self._called(part, name, row)
        if isinstance(part, str):
            return row.cells[part] if part in row.cells else self.rendered(part, name, row)
        return part

    def rendered(self, template: str, name: str, row: Row) -> str:
        """A template's text."""
        try:
            if template not in self._templates:
                self._templates[template] = _TEMPLATES.from_string(template)
            return str(self._templates[template].render(**row.cells))
        except (TemplateError, TypeError, ValueError, re.error) as error:
            raise row.error(f"{name}={template!r} cannot be filled in: {one_line(error)}") from error

    def _called(self, function: Function, name: str, row: Row) -> Any:
        if not self.functions:
            raise BenchmarkError(
                f"{KEY}={self.path}: {name} is the function {function}, which is not run: say "
                f"benchmark.functions=true if you trust it, or benchmark.{name}=<a field or template>"
            )
        call = self._found.get(function) or self._function(function)
        takes_more = self.kwargs is not None and len(inspect.signature(call).parameters) > 1
        try:
            return call(dict(row.cells), self.kwargs) if takes_more else call(dict(row.cells))
        except Exception as error:  # whatever the user's function raises
            raise row.error(f"{name}: {function}: {type(error).__name__}: {one_line(error)}") from error

    def _function(self, function: Function) -> Callable[..., Any]:
        module_name, _, name = function.rpartition(".")
        source = self.path.parent / f"{module_name}.py"
        spec = importlib.util.spec_from_file_location(f"lmms_task_{self._digest(source)}", source)
        if spec is None or spec.loader is None or not source.is_file():
            raise BenchmarkError(f"{KEY}={self.path}: there is no {source} for the function {function}")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            call = getattr(module, name)
        except Exception as error:
            raise BenchmarkError(f"{KEY}={self.path}: {source}: {type(error).__name__}: {one_line(error)}") from error
        self.sources.append(source)
        self._found[function] = call
        return call

    @staticmethod
    def _digest(source: Path) -> str:
        return hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:12]


def _sample(
    row: Row, number: int, parts: Mapping[str, Any], reader: _Reader, clips: ClipFolder | None, before_option: str
) -> Sample:
    for name in ("doc_to_text", "doc_to_visual"):
        if parts[name] in (None, ""):
            raise BenchmarkError(
                f"{KEY}={reader.path}: the task has no {name}; say benchmark.{name}=<a field or template>"
            )
    before = reader.rendered(reader.before, "description", row) if reader.before else ""
    text = row.as_text(reader.value(parts["doc_to_text"], "doc_to_text", row), "doc_to_text")
    options = _options(row, parts["doc_to_choice"], reader)
    target = reader.value(parts["doc_to_target"], "doc_to_target", row)
    visual = reader.value(parts["doc_to_visual"], "doc_to_visual", row)
    visual = visual[0] if isinstance(visual, list) and len(visual) == 1 else visual
    if not isinstance(visual, str) or not visual:
        raise row.error(f"doc_to_visual must give the path of one clip, got {type(visual).__name__}")
    path = Path(visual).absolute() if clips is None else clips.find(visual, row.where)
    answer = _answer(row, target, options)
    if options and before_option:
        options, answer = tuple(before_option + option for option in options), before_option + answer
    return Sample(str(number), path, visual, before + text, options, answer)


def _options(row: Row, part: object, reader: _Reader) -> tuple[str, ...]:
    if part is None:
        return ()
    value = reader.value(part, "doc_to_choice", row)
    if isinstance(value, str):  # of a template: a list as Python or JSON writes it
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError) as error:
            raise row.error(f"doc_to_choice gives no list: {value[:60]!r}") from error
    value = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < 2:
        raise row.error("doc_to_choice must give a list of at least two options")
    return tuple(row.as_text(one, "doc_to_choice") for one in value)


def _answer(row: Row, target: object, options: Sequence[str]) -> str:
    """The right answer's text: of options, `target` may be the place, the letter of a place, or the text."""
    if isinstance(target, list):
        if len(target) != 1:
            raise row.error(f"doc_to_target gives {len(target)} answers; one is expected")
        target = target[0]
    text = row.as_text(target, "doc_to_target")
    if not options or not text or text in options:
        return text
    place = int(text) if text.isdigit() else ord(text) - ord("A") if re.fullmatch("[A-Z]", text) else -1
    if not 0 <= place < len(options):
        raise row.error(f"doc_to_target={text[:40]!r} is none of the {len(options)} options, nor one's place")
    return options[place]
