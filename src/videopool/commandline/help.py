"""Help: written from the configuration files, their first comments and the comments beside keys."""

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from videopool.commandline.groups import Groups, content_of, head, keys_of, summary
from videopool.errors import did_you_mean
from videopool.paths import shipped

USAGE = "videopool: how should an image LLM see a video? Pooling ablations on video language models."
COMMANDS = (
    ("videopool pooling=average frames.num=8", "one point"),
    ("videopool -m pooling=none,average frames.num=4,8", "a sweep: every combination"),
    ("videopool -m experiment=quickstart", "a shipped study"),
    ("videopool job=plan -m experiment=quickstart", "its costs; runs nothing"),
    ("videopool job=report study=quickstart", "its tables, figures and report.html"),
)
HELP = (
    ("videopool --help", "jobs, groups and keys"),
    ("videopool job=norms --help", "a job: its keys and examples"),
    ("videopool help pooling", "the choices of a group"),
    ("videopool help pooling=adaptive", "the keys of a choice"),
    ("videopool help frames.num", "a key: value, meaning, file"),
)
KEYS = ("frames.num", "pooling.stage", "study", "results_dir", "baseline", "benchmark.limit", "job.workers",
    "trainer.devices")  # fmt: skip


class UnknownTopic(ValueError):
    """There is no help on this, in one line."""


def _width() -> int:
    return max(40, min(shutil.get_terminal_size().columns, 100))


def _table(rows: Sequence[tuple[str, str]], indent: int = 2, most: int = 34) -> list[str]:
    """Two columns; the second is wrapped, and begins a new line after a long first."""
    column = min(most, max((len(first) for first, _ in rows), default=0)) + indent + 2
    lines = []
    for first, second in rows:
        start = f"{' ' * indent}{first}"
        if second and len(start) + 2 > column:
            lines.append(start)
            start = ""
        wrapped = textwrap.wrap(second, _width() - column, break_long_words=False, break_on_hyphens=False) or [""]
        lines.append(f"{start:<{column}}{wrapped[0]}".rstrip())
        lines += [" " * column + line for line in wrapped[1:]]
    return lines


def _text(words: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(words, _width() - indent, initial_indent=" " * indent, subsequent_indent=" " * indent)


def welcome() -> str:
    """What `videopool` alone shows."""
    return "\n".join([*_text(USAGE), "", *_table(COMMANDS, most=50), "", *_table(HELP, most=50)])


def overview(groups: Groups) -> str:
    """What `videopool --help` shows: at most 40 lines of 80 columns."""
    jobs = [(name, summary(path)) for name, path in groups.choices("job")]
    column = max(len(name) for name, _ in jobs) + 4
    lines = ["Usage: videopool [-m] [GROUP=CHOICE ...] [KEY=VALUE ...]", *_table(COMMANDS[:3], most=50)]
    lines += ["Flags: -m sweep; -q, -v say less, more; --config-dir DIR; --cfg job; --version"]
    lines += ["", "Jobs (job=NAME; evaluate if none is named)"]
    lines += [f"  {name:<{column - 2}}{textwrap.shorten(text, 80 - column, placeholder=' ...')}" for name, text in jobs]
    lines += ["", "Groups (videopool help GROUP lists their choices)"]
    lines += _row([name for name in groups.names() if name != "job"])
    usual = [*keys_of(shipped("conf") / "config.yaml", "")]
    for group, choice in groups.defaults.items():
        usual += groups.keys(path) if (path := groups.file(group, str(choice))) else []
    values = {key.name: key.value for key in usual}
    lines += ["", "Keys (videopool help KEY explains one)", *_row([f"{key}={values[key]}" for key in KEYS])]
    lines += ["", "Further help", *_table(HELP[1:], most=50)]
    return "\n".join(lines)


def _row(words: Sequence[str]) -> list[str]:
    return textwrap.wrap("  ".join(words), 78, initial_indent="  ", subsequent_indent="  ")


def topic(words: Sequence[str], groups: Groups) -> str:
    """The page about a job, group, choice or key. Raises UnknownTopic, with what was probably meant."""
    job = next((word for word in words if word.startswith("job=")), None)
    word = (job or words[0]).lstrip("+")
    group, equals, choice = word.partition("=")
    if not equals and "/" in word and word.partition("/")[0] in groups.names():
        group, _, choice = word.partition("/")
    if group in groups.names() and choice:
        path = groups.file(group, choice)
        if path is None:
            meant = did_you_mean(choice, (name for name, _ in groups.choices(group)))
            raise UnknownTopic(
                f"help {word}: there is no {group} {choice}{meant or f'; videopool help {group} lists them'}"
            )
        return _page_of_choice(group, choice, path, groups)
    if group in groups.names() or group == "hydra/launcher":
        return _page_of_group(group, groups)
    if found := _page_of_key(group, groups) or _page_of_key(word, groups):
        return found
    owners = [name for name in groups.names() if groups.file(name, word)]
    if owners:
        return topic([f"{'job' if 'job' in owners else owners[0]}={word}"], groups)
    files = [shipped("conf") / "config.yaml"]
    files += [
        path for group in groups.names() if group not in ("experiment", "view") for _, path in groups.choices(group)
    ]
    options = [*groups.names(), *(key.name for path in files for key in groups.keys(path)),
               *(name for name, _ in groups.choices("job"))]  # fmt: skip
    meant = did_you_mean(word, options) or "; videopool --help shows what there is"
    raise UnknownTopic(f"help {word}: there is no job, group, choice or key of this name{meant}")


def _page_of_group(group: str, groups: Groups) -> str:
    default = groups.defaults.get(group)
    rows = [(f"{name}{' (default)' if name == default else ''}", summary(path)) for name, path in groups.choices(group)]
    last = f"videopool help {group}={groups.choices(group)[0][0]} shows the keys of a choice"
    if group == "hydra/launcher":
        rows += [("basic (default)", "Points one after another"), ("joblib", "Points side by side on this machine")]
        last = f"videopool {group}=joblib --cfg hydra -p hydra.launcher shows the keys of a choice"
    return "\n".join([f"{group}=NAME, one of", *_table(rows), "", last])


def _page_of_choice(group: str, choice: str, path: Path, groups: Groups) -> str:
    text, labels = head(path)
    lines = [f"{group}={choice}{' (default)' if choice == groups.defaults.get(group) else ''}", *_text(text, 2)]
    for label, entries in labels.items():
        if label != "Example":
            lines += [line for entry in entries for line in _text(f"{label}: {entry}", 2)]
    keys = [key for key in groups.keys(path) if not key.name.endswith("._target_") and key.name != "job.name"]
    if keys:
        shown = [key for key in keys if key.value not in ("", "{}") or key.comment]
        rows = [(f"{key.name}={_short(key.value)}" if key.value else f"{key.name}:", key.comment) for key in shown]
        lines += ["", "Keys", *_table(rows)]
    changed = [entry for entry in content_of(path).get("defaults") or [] if isinstance(entry, dict)]
    overrides = [f"{key.removeprefix('override ').lstrip('/').partition('@')[0]}={value}"
                 for entry in changed for key, value in entry.items() if key.startswith("override ")]  # fmt: skip
    if overrides:
        lines += ["", *_text(f"Chooses {', '.join(overrides)}")]
    if params := content_of(path).get("hydra", {}).get("sweeper", {}).get("params"):
        rows = [(f"{key}:", " ".join(str(value).split())) for key, value in params.items()]
        lines += ["", "Swept with -m", *_table(rows)]
    if "Example" in labels:
        lines += ["", "Examples", *(f"  {entry}" for entry in labels["Example"])]
    return "\n".join([*lines, "", f"From {path}"])


def _page_of_key(name: str, groups: Groups) -> str:
    """All there is about one key; empty if no file has it."""
    group = name.partition(".")[0]
    group = group if group in groups.names() else "job"
    default = groups.defaults.get(group)
    found = [("", key) for key in keys_of(shipped("conf") / "config.yaml", "")]
    found += [(choice, key) for choice, path in groups.choices(group) for key in groups.keys(path)]
    found = sorted((one for one in found if one[1].name == name), key=lambda one: one[0] not in ("", default))
    if not found:
        return ""
    choice, first = found[0]
    usual = choice in ("", default)
    lines = [f"{name}={_short(first.value)}" if usual else f"{name}: not a key of {group}={default}, the default"]
    lines += _text(next((key.comment for _, key in found if key.comment), ""), 2)
    values: dict[str, list[str]] = {}
    for one, key in found:
        values.setdefault(f"{name}={_short(key.value)}" if key.value else f"{name}:", []).append(one)
    if choice:
        rows = [
            (value, ", ".join(of[:5]) + (f" and {len(of) - 5} more" if len(of) > 5 else ""))
            for value, of in values.items()
        ]
        lines += ["", "Values by choice", *_table(rows, most=50)]
    return "\n".join([*lines, "", f"From {first.file}"])


def _short(value: str) -> str:
    return textwrap.shorten(value, 60, placeholder=" ...")


def asked(words: list[str], flags: Sequence[str], groups: Groups) -> str | None:
    """The page that a command asks for; None if it asks for none. Raises UnknownTopic."""
    if words[:1] == ["help"]:
        topics = words[1:]
    elif {"-h", "--help"} & set(flags):  # beside settings, it is about the groups among them
        topics = [word for word in words if "=" not in word or word.partition("=")[0] in groups.names()]
    else:
        return None
    return topic(topics, groups) if topics else overview(groups)
