"""Run notebooks of this folder from their first to their last cell.

    python analysis/execute.py [NOTEBOOK ...] [NAME=VALUE ...] [--out FOLDER] [--figures FOLDER]

NAME is a parameter from the notebook's first code cell; VALUE is text where the default is text, else
JSON. Paths among the values are relative to this folder, where notebooks run. Without names, all notebooks run; a
failing one does not stop the others. Exit code 0 only if every cell of every notebook ran. The same study gives the
same files: they hold no times, and no log of the study.
"""

import argparse
import ast
import atexit
import json
import signal
import sys
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
PARAMETERS = "parameters"  # tag of the cell with a notebook's parameters; the cell inserted after it has the next tag,
INJECTED = "injected-parameters"  # as papermill calls them
INTERRUPTED = 130  # exit code
FIGURE = "figure"  # of a cell's metadata: the name of the figure that it shows
COLOURS = 64  # of a figure: with more, notebooks grow beyond what a page of a repository shows
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class NotebookError(Exception):
    """A notebook that cannot be run as asked, or failed: one line."""


def main(words: list[str]) -> int:
    """Run the notebooks that the words name; returns the exit code."""
    about, usage = (__doc__ or "").split("\n\n")[:2]
    parser = argparse.ArgumentParser("execute.py", usage.strip().removeprefix("python analysis/"), about)
    parser.add_argument("words", nargs="*", help="notebooks; parameters, as NAME=VALUE")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for notebooks with their outputs; default: this one, or, with parameters, yours",
    )
    parser.add_argument("--figures", type=Path, help="folder for figures, as PNG; default: none are saved")
    asked = parser.parse_intermixed_args(words)
    names = [word.removesuffix(".py") for word in asked.words if "=" not in word]
    values = dict(word.split("=", 1) for word in asked.words if "=" in word)
    out = asked.out or (Path.cwd() if values else HERE)  # the committed ones show the parameters' defaults
    failures = 0
    try:
        notebooks = {name: read(name) for name in names or all_names()}
        changes = {name: given(name, notebook, values) for name, notebook in notebooks.items()}
    except NotebookError as error:
        print(f"execute.py: {error}", file=sys.stderr)
        return 2
    for name, notebook in notebooks.items():
        try:
            execute(name, notebook, changes[name], out)
            figures = save_figures(name, notebook, asked.figures) if asked.figures else []
            print(f"done    {name}: {', '.join(map(str, [out / f'{name}.ipynb', *figures]))}", flush=True)
        except KeyboardInterrupt:
            print("execute.py: stopped; run it again to resume the studies", file=sys.stderr)
            return INTERRUPTED
        except NotebookError as error:
            failures += 1
            print(f"FAILED  {name}: {error}", file=sys.stderr, flush=True)
    return int(failures > 0)


def all_names() -> list[str]:
    """Names of this folder's notebooks."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.resolve() != Path(__file__).resolve())


def read(name: str) -> Any:
    """A notebook without outputs. Raises NotebookError if there is none, or the extra is not installed."""
    if name not in all_names():
        raise NotebookError(f"no notebook is named {name}; there are: {', '.join(all_names())}")
    try:
        import jupytext
        import nbclient  # noqa: F401
    except ImportError as error:
        raise NotebookError(f"{error.name} is not installed: pip install 'videopool[notebooks]'") from error
    return jupytext.read(HERE / f"{name}.py", fmt="py:percent")


def given(name: str, notebook: Any, values: dict[str, str]) -> dict[str, Any]:
    """Values of a notebook's parameters, of the types of their defaults.

    Raises:
        NotebookError: the notebook has no such parameter, or a value has the wrong type.
    """
    defaults = parameters(notebook)
    found = {}
    for key, text in values.items():
        if key not in defaults:
            raise NotebookError(f"{name} has no parameter {key}; it has: {', '.join(defaults)}")
        kind = type(defaults[key])
        try:
            found[key] = text if kind is str else json.loads(text)
        except ValueError:
            found[key] = None
        if type(found[key]) is not kind:
            raise NotebookError(f"{name}: {key}={text}: give {kind.__name__}, as in {key}={json.dumps(defaults[key])}")
    return found


def parameters(notebook: Any) -> dict[str, Any]:
    """Parameters and their defaults: what the tagged cell assigns."""
    (cell,) = [cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", [])]
    return {
        line.targets[0].id: ast.literal_eval(line.value)
        for line in ast.parse(cell.source).body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def execute(name: str, notebook: Any, values: dict[str, Any], out: Path) -> None:
    """Run a notebook in this folder and write it with its outputs, also if a cell fails.

    Raises:
        NotebookError: a cell raised an error, or the notebook cannot be written.
        KeyboardInterrupt: it was stopped.
    """
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    if values:
        place = next(n for n, cell in enumerate(notebook.cells) if PARAMETERS in cell.metadata.get("tags", []))
        source = "\n".join(f"{key} = {value!r}" for key, value in values.items())
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": [INJECTED]})
        notebook.cells.insert(place + 1, cell)
    with TemporaryDirectory(prefix="kernel-") as folder:
        # The kernel listens on files that only this user may open, not on ports.
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/socket"}})
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(HERE)}},
            coalesce_streams=True,
            record_timing=False,
            config=sockets,
        )
        _run(client, name, out)


def _run(client: Any, name: str, out: Path) -> None:
    """Run the notebook of a client and write it. Raises NotebookError as execute, and KeyboardInterrupt."""
    import nbformat
    from nbclient.exceptions import CellExecutionError

    try:
        client.execute(stderr=DEVNULL)  # of the kernel; output of cells comes by messages
    except CellExecutionError as error:
        message = " ".join(error.evalue.split())
        raise NotebookError(f"{message} ({error.ename}; {out / f'{name}.ipynb'} shows where)") from error
    except (RuntimeError, AssertionError, AttributeError) as error:
        # On SIGINT and SIGTERM nbclient ends the kernel, and then finds it dead or stumbles over its absence.
        if hasattr(client, "_async_cleanup_kernel_future"):
            raise KeyboardInterrupt from error
        if not isinstance(error, RuntimeError):
            raise
        raise NotebookError(f"its kernel died or did not start: {error}") from error
    else:
        tidy(client.nb)
    finally:
        atexit.unregister(client._cleanup_kernel)  # it stumbles there too, if the kernel did not start
        try:
            out.mkdir(parents=True, exist_ok=True)
            nbformat.write(client.nb, out / f"{name}.ipynb")
        except OSError as error:
            raise NotebookError(f"{out} cannot be written: {error.strerror or error}") from error


def tidy(notebook: Any) -> None:
    """Leave what is the same whenever a notebook runs, and small: figures have few colours, hidden outputs go."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type != "code":
            continue
        if cell.metadata.get("jupyter", {}).get("outputs_hidden"):
            cell.outputs = []
        for output in cell.outputs:
            output.get("metadata", {}).clear()
            if png := output.get("data", {}).get("image/png"):
                output.data["image/png"] = b64encode(few_colours(b64decode(png))).decode()


def few_colours(png: bytes) -> bytes:
    """A PNG with a palette, without metadata: a figure needs a third of the bytes."""
    from PIL import Image

    written = BytesIO()
    image = Image.open(BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return written.getvalue()


def save_figures(name: str, notebook: Any, folder: Path) -> list[Path]:
    """Write the figures of the cells that name one.

    Raises:
        NotebookError: such a cell shows no figure, or the folder cannot be written.
    """
    files = []
    for cell in notebook.cells:
        if FIGURE not in cell.metadata:
            continue
        shown = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        if len(shown) != 1:
            raise NotebookError(f"the cell of figure {cell.metadata[FIGURE]} shows {len(shown)} figures")
        files.append(folder / f"{name}_{cell.metadata[FIGURE]}.png")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files[-1].write_bytes(b64decode(shown[0]))
        except OSError as error:
            raise NotebookError(f"{folder} cannot be written: {error.strerror or error}") from error
    return files


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # of `kill`; of a terminal that is closed
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores the latter
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))  # which ends the kernel too
    sys.exit(main(sys.argv[1:]))
