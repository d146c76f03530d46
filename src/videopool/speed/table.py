"""The table of job=speed."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from videopool.runtime.terminal import plain

# Targets. Upper bounds: cold and warm sweep over their floor; an everyday pooling over a copy. Lower bounds: ratio with
# 25 questions, and its share of the allowed ratio.
COLD_WANTED, WARM_WANTED, SLOWER_WANTED = 1.3, 1.15, 3.0
MANY_QUESTIONS, RATIO_WANTED, SHARE_WANTED = 25, 5.0, 0.7
TRAINING_WANTED, LOOP_WANTED, RESUME_WANTED = 3.0, 0.05, 10.0  # times faster, share of a step, seconds
HELD_TO_COPY = ("adaptive", "strided")

Row = tuple[str | Text, ...]  # cells of COLUMNS without the part; empty ones at the end are left out
COLUMNS = ("part", "what", "measured", "against", "target", "met")


def speed_table(content: dict[str, Any]) -> Table:
    """One row per figure, one section per part."""
    machine = content["machine"]
    table = Table(title=f"speed, {content['size']}")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("part", "what") else "right")
    if "rates" in content:
        _add(table, "gpu", _rates(content["rates"]), content["rates"])
    for letter, entry in content["parts"].items():
        name, section = SECTIONS[letter]
        rows: Iterator[Row] = iter([("skipped", "", entry["skipped"])]) if "skipped" in entry else section(entry)
        _add(table, f"{letter} {name}", rows, entry)
    where = machine.get("gpu") or f"{machine['cores']} cores, {machine['threads']} threads"
    load = f"load average before: {machine['load_average'][0]:.2f}"
    table.caption = f"{where}; {load}; {content['wall_seconds']:.0f} s in all"
    return table


def _add(table: Table, part: str, rows: Iterator[Row], entry: dict[str, Any]) -> None:
    for row in rows:
        table.add_row(part, *row)
        part = ""
    table.add_row(part, "wall time of the part", f"{entry['wall_seconds']:.1f} s", end_section=True)


def _rates(entry: dict[str, Any]) -> Iterator[Row]:
    yield f"matrix product {entry['matmul_side']}", f"{entry['matmul_tflops']:.0f} TFLOP/s"
    prefill = f"prefill, {entry['prefill_clips']} x {entry['prefill_positions']}"
    for what, kind, unit in ((prefill, "prefill", "tokens"), ("tower", "tower", "frames")):
        rate = f"{entry[f'{kind}_{unit}_per_second']:.0f} {unit}/s, {entry[f'{kind}_tflops']:.0f} TFLOP/s"
        yield what, rate, f"{_percent(entry[f'{kind}_share_of_matmul'])} of product"


def _point(entry: dict[str, Any]) -> Iterator[Row]:
    for scoring in ("likelihood", "generate"):
        seconds = entry[scoring]["seconds_per_sample"]
        what = f"{entry['pooling']}, {entry['frames']} frames, {scoring}"
        yield what, f"{_ms(seconds)}/sample", "100 %"
        for kind, spent in entry[scoring]["by_kind"].items():
            yield f"  {kind}", _ms(spent), f"{100 * spent / seconds:.1f} %"


def _sweep(entry: dict[str, Any]) -> Iterator[Row]:
    yield f"{entry['points']} points, nothing shared", f"{entry['off_seconds']:.2f} s"
    yield f"{entry['points']} points, everything shared", f"{entry['shared_seconds']:.2f} s"
    yield "ratio", f"{entry['ratio']:.2f}x", f"{entry['allowed_ratio']:.2f}x allowed"
    yield "share reached", _percent(entry["share_reached"])
    compared, ties = entry["agreement"]["compared"], entry["agreement"]["ties"]
    difference = f"log-prob. within {entry['agreement']['max_difference']:.4f}"
    yield "equal predictions", f"{compared - ties} of {compared}", difference, "all but ties", "yes"


def _floor(entry: dict[str, Any]) -> Iterator[Row]:
    reading, model = entry["floor_reading_seconds"], entry["floor_model_seconds"]
    yield "floor: frames once, language model", f"{reading:.2f} + {model:.2f} s"
    for way, wanted, floor in (("cold", COLD_WANTED, reading + model), ("warm", WARM_WANTED, model)):
        ratio, against = entry[f"{way}_over_floor"], f"{entry[f'{way}_seconds']:.2f} s / {floor:.2f} s"
        yield f"{way} store over floor", f"{ratio:.2f}", against, *_target(f"<= {wanted}", ratio <= wanted)
    per_point = f"{_ms(entry['floor_model_seconds_per_point'])} of model"
    yield "beside the model, per point", _ms(entry["other_seconds_per_point"]), per_point


def _prefix(entry: dict[str, Any]) -> Iterator[Row]:
    for row in entry["rows"]:
        what = f"{row['questions']} questions at {row['visual_tokens']} visual tokens"
        ratio, share = row["ratio"], row["share_reached"]
        target: Row = ()
        if row["questions"] >= MANY_QUESTIONS:
            met = ratio >= RATIO_WANTED and share >= SHARE_WANTED
            target = _target(f">= {RATIO_WANTED:g}x, >= {_percent(SHARE_WANTED)}", met)
        yield what, f"{ratio:.2f}x", f"{row['allowed_ratio']:.2f}x allowed, {_percent(share)} reached", *target


def _processes(entry: dict[str, Any]) -> Iterator[Row]:
    for row in entry["rows"]:
        what = f"{row['processes']} process{'es' if row['processes'] > 1 else ''}, {row['points']} points"
        against = f"{row['speed_up_at_work']:.2f}x; with start {row['points_per_minute']:.1f}/min"
        yield what, f"{row['points_per_minute_at_work']:.1f} points/min", against


def _operators(entry: dict[str, Any]) -> Iterator[Row]:
    for row in entry["rows"]:
        if "error" in row:
            yield row["name"], "-", row["error"][:60]
            continue
        rate = f"{row['gb_per_second']:.1f} GB/s, {row['tokens_per_second'] / 1e6:.2f} M tokens/s"
        slower = row["slower_than_copy"]
        target: Row = ()
        if row["name"].startswith(HELD_TO_COPY):
            target = _target(f"<= {SLOWER_WANTED:g}x", slower <= SLOWER_WANTED)
        yield row["name"], rate, f"copy is {slower:.2f}x as fast; {_ms(row['seconds'])}", *target


def _training(entry: dict[str, Any]) -> Iterator[Row]:
    sweep, loop = entry["sweep"], entry["loop"]
    for row in sweep["rows"]:
        what = f"{row['pooling']}, {row['visual_tokens']} visual tokens"
        yield what, f"{row['kept']:.2f} s", f"{row['alone']:.2f} s with nothing kept"
    what = f"trainings of {sweep['steps']} steps, {sweep['epochs']:g} epochs, over those from the store"
    against = f"{sweep['alone_seconds']:.1f} s / {sweep['kept_seconds']:.1f} s; equal losses"
    target = _target(f">= {TRAINING_WANTED:g}x", sweep["ratio"] >= TRAINING_WANTED)
    yield what, f"{sweep['ratio']:.2f}x", against, *target
    overhead, low, high = (100 * loop[name] for name in ("overhead", "overhead_low", "overhead_high"))
    against = f"[{low:+.1f}, {high:+.1f}]; {_ms(loop['job_seconds'])} / {_ms(loop['bare_seconds'])} per step"
    target = _target(f"< {_percent(LOOP_WANTED)}", loop["overhead"] < LOOP_WANTED)
    yield "loop over a bare one", f"{overhead:+.1f} %", against, *target
    for row in entry["resume"]:
        against = f"{row['taken']} steps taken, {row['kept']} kept, {row['again']} taken again"
        lossless = row["again"] == 0 or row["way"] == "kill -9"  # which goes back to the last checkpoint
        target = _target(f"< {RESUME_WANTED:g} s", row["seconds"] < RESUME_WANTED and lossless)
        yield f"resuming after {row['way']}", f"{row['seconds']:.1f} s", against, *target


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _target(text: str, met: bool) -> Row:
    return text, "yes" if met else plain("no", "red")


# By the letters in speed.json; letters and words both stand in job.parts.
SECTIONS = {
    "a": ("point", _point), "b": ("sweep", _sweep), "c": ("floor", _floor), "d": ("prefix", _prefix),
    "e": ("processes", _processes), "f": ("operators", _operators), "g": ("training", _training),
}  # fmt: skip
