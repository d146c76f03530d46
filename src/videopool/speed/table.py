"""The table of job=speed."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

# What is wanted: cold and warm sweeps over their floor at most; of 25 questions' ratio, and of what is allowed, at
# least; how many times slower than a copy the everyday poolings may be.
COLD_WANTED, WARM_WANTED = 1.3, 1.15
MANY_QUESTIONS, RATIO_WANTED, SHARE_WANTED = 25, 5.0, 0.7
SLOWER_WANTED = 3.0
TRAINING_WANTED, LOOP_WANTED, RESUME_WANTED = 3.0, 0.05, 10.0  # times faster, share of a step, seconds
HELD_TO_COPY = ("adaptive", "strided")

Row = tuple[str, ...]  # what, measured, allowed or compared with, wanted, met; trailing empty cells are left out


def speed_table(content: dict[str, Any]) -> Table:
    """One line a figure, a section a part."""
    machine = content["machine"]
    load = machine["load_average"][0]
    table = Table(title=f"speed, {content['size']}")
    for name in ("part", "what", "measured", "beside", "wanted", "met"):
        table.add_column(name, justify="left" if name in ("part", "what") else "right")
    if "rates" in content:
        _add(table, "gpu", list(_rates(content["rates"])), content["rates"])
    for letter, found in content["parts"].items():
        name, section = SECTIONS[letter]
        rows: list[Row] = [("skipped", "", found["skipped"])] if "skipped" in found else list(section(found))
        _add(table, f"{letter} {name}", rows, found)
    where = machine.get("gpu") or f"{machine['cores']} cores, {machine['threads']} threads"
    table.caption = f"{where}; load average before: {load:.2f}; {content['wall_seconds']:.0f} s in all"
    return table


def _add(table: Table, part: str, rows: list[Row], found: dict[str, Any]) -> None:
    rows.append(("wall time of the part", f"{found['wall_seconds']:.1f} s"))
    for place, row in enumerate(rows):
        table.add_row(part if place == 0 else "", *row, end_section=place == len(rows) - 1)


def _rates(found: dict[str, Any]) -> Iterator[Row]:
    yield f"matrix product {found['matmul_side']}", f"{found['matmul_tflops']:.0f} TFLOP/s"
    prefill = f"{found['prefill_tokens_per_second']:.0f} tokens/s, {found['prefill_tflops']:.0f} TFLOP/s"
    what, share = f"prefill, {found['prefill_clips']} x {found['prefill_positions']}", found["prefill_share_of_matmul"]
    yield what, prefill, f"{100 * share:.0f} % of product"
    tower = f"{found['tower_frames_per_second']:.0f} frames/s, {found['tower_tflops']:.0f} TFLOP/s"
    yield "tower", tower, f"{100 * found['tower_share_of_matmul']:.0f} % of product"


def _point(found: dict[str, Any]) -> Iterator[Row]:
    point = f"{found['pooling']}, {found['frames']} frames"
    for scoring in ("likelihood", "generate"):
        one = found[scoring]
        whole = one["seconds_per_sample"]
        yield f"{point}, {scoring}", f"{_ms(whole)}/sample", "100 %"
        for kind, spent in one["by_kind"].items():
            yield f"  {kind}", _ms(spent), f"{100 * spent / whole:.1f} %"


def _sweep(found: dict[str, Any]) -> Iterator[Row]:
    yield f"{found['points']} points, nothing shared", f"{found['off_seconds']:.2f} s"
    yield f"{found['points']} points, everything shared", f"{found['shared_seconds']:.2f} s"
    allowed = f"{found['allowed_ratio']:.2f}x allowed"
    yield "ratio", f"{found['ratio']:.2f}x", allowed
    yield "share reached", f"{100 * found['share_reached']:.0f} %"
    agreement = found["agreement"]
    same = f"{agreement['compared'] - agreement['ties']} of {agreement['compared']}"
    yield "equal predictions", same, f"log-prob. within {agreement['max_difference']:.4f}", "all but ties", "yes"


def _floor(found: dict[str, Any]) -> Iterator[Row]:
    reading, model = found["floor_reading_seconds"], found["floor_model_seconds"]
    yield "floor: frames once, language model", f"{reading:.2f} + {model:.2f} s"
    for way, wanted, floor in (("cold", COLD_WANTED, reading + model), ("warm", WARM_WANTED, model)):
        ratio = found[f"{way}_over_floor"]
        beside = f"{found[f'{way}_seconds']:.2f} s / {floor:.2f} s"
        yield f"{way} store over floor", f"{ratio:.2f}", beside, f"<= {wanted}", _met(ratio <= wanted)
    per_point = f"{_ms(found['floor_model_seconds_per_point'])} of model"
    yield "beside the model, per point", _ms(found["other_seconds_per_point"]), per_point


def _prefix(found: dict[str, Any]) -> Iterator[Row]:
    for row in found["rows"]:
        what = f"{row['questions']} questions at {row['visual_tokens']} visual tokens"
        many = row["questions"] >= MANY_QUESTIONS
        wanted = f">= {RATIO_WANTED:g}x, >= {100 * SHARE_WANTED:.0f} %" if many else ""
        met = _met(row["ratio"] >= RATIO_WANTED and row["share_reached"] >= SHARE_WANTED) if many else ""
        beside = f"{row['allowed_ratio']:.2f}x allowed, {100 * row['share_reached']:.0f} % reached"
        yield what, f"{row['ratio']:.2f}x", beside, wanted, met


def _processes(found: dict[str, Any]) -> Iterator[Row]:
    for row in found["rows"]:
        rate = f"{row['points_per_minute_at_work']:.1f} points/min"
        what = f"{row['processes']} process{'es' if row['processes'] > 1 else ''}, {row['points']} points"
        beside = f"{row['speed_up_at_work']:.2f}x; with start {row['points_per_minute']:.1f}/min"
        yield what, rate, beside


def _operators(found: dict[str, Any]) -> Iterator[Row]:
    for row in found["rows"]:
        if "error" in row:
            yield row["name"], "-", row["error"][:60]
            continue
        held = row["name"].startswith(HELD_TO_COPY)
        slower = row["slower_than_copy"]
        rate = f"{row['gb_per_second']:.1f} GB/s, {row['tokens_per_second'] / 1e6:.2f} M tokens/s"
        beside = f"copy is {slower:.2f}x as fast; {_ms(row['seconds'])}"
        met = _met(slower <= SLOWER_WANTED) if held else ""
        yield row["name"], rate, beside, f"<= {SLOWER_WANTED:g}x" if held else "", met


def _training(found: dict[str, Any]) -> Iterator[Row]:
    sweep, loop = found["sweep"], found["loop"]
    for row in sweep["rows"]:
        beside = f"{row['alone']:.2f} s with nothing kept"
        yield f"{row['pooling']}, {row['visual_tokens']} visual tokens", f"{row['kept']:.2f} s", beside
    what = f"trainings of {sweep['steps']} steps, {sweep['epochs']:g} epochs, over those from the store"
    beside = f"{sweep['alone_seconds']:.1f} s / {sweep['kept_seconds']:.1f} s; equal losses"
    met = _met(sweep["ratio"] >= TRAINING_WANTED)
    yield what, f"{sweep['ratio']:.2f}x", beside, f">= {TRAINING_WANTED:g}x", met
    interval = f"[{100 * loop['overhead_low']:+.1f}, {100 * loop['overhead_high']:+.1f}]"
    beside = f"{interval}; {_ms(loop['job_seconds'])} / {_ms(loop['bare_seconds'])} a step"
    met = _met(loop["overhead"] < LOOP_WANTED)
    yield "loop over a bare one", f"{100 * loop['overhead']:+.1f} %", beside, f"< {100 * LOOP_WANTED:g} %", met
    for row in found["resume"]:
        beside = f"{row['taken']} steps taken, {row['kept']} kept, {row['again']} taken again"
        again = row["again"] == 0 or row["way"] == "kill -9"  # which goes back to the last checkpoint
        met = _met(row["seconds"] < RESUME_WANTED and again)
        yield f"going on behind a {row['way']}", f"{row['seconds']:.1f} s", beside, f"< {RESUME_WANTED:g} s", met


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def _met(yes: bool) -> str:
    return "yes" if yes else "[red]no[/red]"


# By the letters that stand in speed.json; both are words of job.parts.
SECTIONS = {
    "a": ("point", _point), "b": ("sweep", _sweep), "c": ("floor", _floor), "d": ("prefix", _prefix),
    "e": ("processes", _processes), "f": ("operators", _operators), "g": ("training", _training),
}  # fmt: skip
