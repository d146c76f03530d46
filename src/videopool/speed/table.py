"""The table of job=speed: one section per part, one row per figure, with its target where there is one."""

from collections.abc import Iterator
from typing import Any

from videopool.runtime.tables import Cell, Heading, Row, Shown, TextTable

Figure = tuple[str, ...]  # cells of the columns after the part; empty ones at the end are left out
NOT_MET = "no"
HEADINGS = (
    Heading("part", False), Heading("what", False, wraps=True), Heading("measured", False, wraps=True),
    Heading("against", False, 3, wraps=True), Heading("target", False, 2), Heading("met", False, 1),
)  # fmt: skip


def speed_table(content: dict[str, Any]) -> Shown:
    """One row per figure, one section per part."""
    machine, rows = content["machine"], []
    parts = [("gpu", _rates, content["rates"])] if "rates" in content else []
    parts += [(f"{letter} {SECTIONS[letter][0]}", SECTIONS[letter][1], own) for letter, own in content["parts"].items()]
    for part, section, entry in parts:
        figures: list[Figure] = [(f"skipped: {entry['skipped']}",)] if "skipped" in entry else list(section(entry))
        for place, figure in enumerate([*figures, ("wall time of the part", f"{entry['wall_seconds']:.1f} s")]):
            words = [part if place == 0 else "", *figure, *[""] * (5 - len(figure))]
            cells = tuple(Cell(word) for word in words)
            rows.append(Row(cells, style="red" if words[-1] == NOT_MET else "", rule=place == 0))
    where = machine.get("gpu") or f"{machine['cores']} cores, {machine['threads']} threads"
    load = f"load average before: {machine['load_average'][0]:.2f}"
    title = f"speed, {content['size']}"
    return Shown(TextTable(HEADINGS, tuple(rows)), title, (where, load, f"{content['wall_seconds']:.0f} s in all"))


def _rates(entry: dict[str, Any]) -> Iterator[Figure]:
    yield f"matrix product {entry['matmul_side']}", f"{entry['matmul_tflops']:.0f} TFLOP/s"
    prefill = f"prefill, {entry['prefill_clips']} x {entry['prefill_positions']}"
    for what, kind, unit in ((prefill, "prefill", "tokens"), ("tower", "tower", "frames")):
        rate = f"{entry[f'{kind}_{unit}_per_second']:.0f} {unit}/s, {entry[f'{kind}_tflops']:.0f} TFLOP/s"
        yield what, rate, f"{100 * entry[f'{kind}_share_of_matmul']:.0f} % of product"


def _point(entry: dict[str, Any]) -> Iterator[Figure]:
    for scoring in ("likelihood", "generate"):
        seconds = entry[scoring]["seconds_per_sample"]
        yield f"{entry['pooling']}, {entry['frames']} frames, {scoring}", f"{_ms(seconds)}/sample", "100 %"
        for kind, spent in entry[scoring]["by_kind"].items():
            yield f"  {kind}", _ms(spent), f"{100 * spent / seconds:.1f} %"


def _sweep(entry: dict[str, Any]) -> Iterator[Figure]:
    yield f"{entry['points']} points, nothing shared", f"{entry['off_seconds']:.2f} s"
    yield f"{entry['points']} points, everything shared", f"{entry['shared_seconds']:.2f} s"
    yield "ratio", f"{entry['ratio']:.2f}x", f"{entry['allowed_ratio']:.2f}x allowed"
    yield "share reached", f"{100 * entry['share_reached']:.0f} %"
    compared, difference, ties = (entry["agreement"][name] for name in ("compared", "max_difference", "ties"))
    within = f"log-prob. within {difference:.4f}"
    yield "equal predictions", f"{compared - ties} of {compared}", within, "all but ties", "yes"


def _floor(entry: dict[str, Any]) -> Iterator[Figure]:
    reading, model = entry["floor_reading_seconds"], entry["floor_model_seconds"]
    yield "floor: frames once, language model", f"{reading:.2f} + {model:.2f} s"
    for way, wanted, floor in (("cold", 1.3, reading + model), ("warm", 1.15, model)):
        ratio, against = entry[f"{way}_over_floor"], f"{entry[f'{way}_seconds']:.2f} s / {floor:.2f} s"
        yield f"{way} store over floor", f"{ratio:.2f}", against, f"<= {wanted}", _met(ratio <= wanted)
    per_point = f"{_ms(entry['floor_model_seconds_per_point'])} of model"
    yield "beside the model, per point", _ms(entry["other_seconds_per_point"]), per_point


def _prefix(entry: dict[str, Any]) -> Iterator[Figure]:
    for row in entry["rows"]:
        what = f"{row['questions']} questions at {row['visual_tokens']} visual tokens"
        ratio, share = row["ratio"], row["share_reached"]
        target = (">= 5x, >= 70 %", _met(ratio >= 5 and share >= 0.7)) if row["questions"] >= 25 else ()
        yield what, f"{ratio:.2f}x", f"{row['allowed_ratio']:.2f}x allowed, {100 * share:.0f} % reached", *target


def _processes(entry: dict[str, Any]) -> Iterator[Figure]:
    for row in entry["rows"]:
        what = f"{row['processes']} process{'es' if row['processes'] > 1 else ''}, {row['points']} points"
        against = f"{row['speed_up_at_work']:.2f}x; with start {row['points_per_minute']:.1f}/min"
        yield what, f"{row['points_per_minute_at_work']:.1f} points/min", against


def _operators(entry: dict[str, Any]) -> Iterator[Figure]:
    for row in entry["rows"]:
        if "error" in row:
            yield row["name"], row["error"][:60]
            continue
        rate = f"{row['gb_per_second']:.1f} GB/s, {row['tokens_per_second'] / 1e6:.2f} M tokens/s"
        slower = row["slower_than_copy"]
        target = ("<= 3x", _met(slower <= 3)) if row["name"].startswith(("adaptive", "strided")) else ()
        yield row["name"], rate, f"copy is {slower:.2f}x as fast; {_ms(row['seconds'])}", *target


def _training(entry: dict[str, Any]) -> Iterator[Figure]:
    sweep, loop = entry["sweep"], entry["loop"]
    for row in sweep["rows"]:
        what = f"{row['pooling']}, {row['visual_tokens']} visual tokens"
        yield what, f"{row['kept']:.2f} s", f"{row['alone']:.2f} s with nothing kept"
    what = f"trainings of {sweep['steps']} steps, {sweep['epochs']:g} epochs, over those from the store"
    against = f"{sweep['alone_seconds']:.1f} s / {sweep['kept_seconds']:.1f} s; equal losses"
    yield what, f"{sweep['ratio']:.2f}x", against, ">= 3x", _met(sweep["ratio"] >= 3)
    overhead, low, high = (100 * loop[name] for name in ("overhead", "overhead_low", "overhead_high"))
    against = f"[{low:+.1f}, {high:+.1f}]; {_ms(loop['job_seconds'])} / {_ms(loop['bare_seconds'])} per step"
    yield "loop over a bare one", f"{overhead:+.1f} %", against, "< 5 %", _met(overhead < 5)
    for row in entry["resume"]:
        against = f"{row['taken']} steps taken, {row['kept']} kept, {row['again']} taken again"
        lossless = row["again"] == 0 or row["way"] == "kill -9"  # which goes back to the last checkpoint
        met = _met(row["seconds"] < 10 and lossless)
        yield f"resuming after {row['way']}", f"{row['seconds']:.1f} s", against, "< 10 s", met


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def _met(met: bool) -> str:
    return "yes" if met else NOT_MET


# By the letters in speed.json; letters and words both stand in job.parts.
SECTIONS = {
    "a": ("point", _point), "b": ("sweep", _sweep), "c": ("floor", _floor), "d": ("prefix", _prefix),
    "e": ("processes", _processes), "f": ("operators", _operators), "g": ("training", _training),
}  # fmt: skip
