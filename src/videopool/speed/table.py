"""The table of job=speed: one section per part, one row per figure, with its target where there is one."""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from videopool.runtime.tables import Cell, Heading, Row, Shown, TextTable

Figure = tuple[str, ...]  # cells of the columns after the part; empty ones at the end are left out
NOT_MET = "no"
HEADINGS = (
    Heading("part", False), Heading("what", False, wraps=True), Heading("measured", False, wraps=True),
    Heading("against", False, 3, wraps=True), Heading("target", False, 2), Heading("met", False, 1),
)  # fmt: skip


def missed(content: dict[str, Any]) -> list[str]:
    """Figures that miss their target."""
    return [
        f"{part}: {words[0].strip()}"
        for part, figures in _figures(content)
        for words in figures
        if NOT_MET in words[4:]
    ]


def _figures(content: dict[str, Any]) -> Iterator[tuple[str, list[Figure]]]:
    for letter, entry in content["parts"].items():
        name, section = SECTIONS[letter]
        figures = [*section(entry)] if "failed" not in entry else [(f"failed: {entry['failed']}", "", "", "", NOT_MET)]
        yield f"{letter} {name}", [*figures, ("wall time of the part", f"{entry['wall_seconds']:.1f} s")]


def speed_table(content: dict[str, Any]) -> Shown:
    """One row per figure, one section per part."""
    machine, rows = content["machine"], []
    for part, figures in _figures(content):
        for place, figure in enumerate(figures):
            words = [part if place == 0 else "", *figure, *[""] * (5 - len(figure))]
            cells = tuple(Cell(word) for word in words)
            rows.append(Row(cells, style="red" if words[-1] == NOT_MET else "", rule=place == 0))
    where = machine.get("gpu") or f"{machine['cores']} cores, {machine['threads']} threads"
    load = f"load average before: {machine['load_average'][0]:.2f}"
    title = f"speed, {content['size']}"
    return Shown(TextTable(HEADINGS, tuple(rows)), title, (where, load, f"{content['wall_seconds']:.0f} s in all"))


def _rates(entry: dict[str, Any]) -> Iterator[Figure]:
    yield f"product of square matrices, {entry['side']}", _rate(entry["square_tflops"])
    yield "copy", f"{entry['copy_gb_per_second']:.0f} GB/s"
    for row in entry["rows"]:
        against = f"{100 * row['share']:.0f} % of torch.matmul's {_rate(row['product_tflops'])}"
        target = () if row["what"] == "decoding" else (">= 70 %", _met(row["share"] >= 0.7))
        what = f"{row['what'].split()[0]}, {row['label']}"
        yield what, f"{_ms(row['seconds'])}, {_rate(row['tflops'])}", against, *target


def _loaded(entry: dict[str, Any]) -> Iterator[Figure]:
    memory = entry["load_memory"]
    yield "loading", f"{entry['load_seconds']:.1f} s", f"{_gb(memory['peak_memory_bytes'])} of this process"
    for row in entry["rows"]:
        what, ratio = f"{row['pooling']}, {row['frames']} frames, {row['scoring']}", row["seen_over_planned"]
        kinds = sorted(row["by_kind"].items(), key=itemgetter(1), reverse=True)[:3]
        yield what, f"{row['seconds']:.1f} s", ", ".join(f"{kind} {spent:.1f}" for kind, spent in kinds)
        against = f"planned {_gb(row['planned_bytes'])}, {100 * ratio:.0f} %"
        yield "  peak memory", _gb(row["seen_bytes"]), against, "within 15 %", _met(abs(ratio - 1) <= 0.15)
    lora = entry["lora"]
    changed = _met(lora["difference"] > 0 == lora["difference_at_0"])
    against = f"logits change by {lora['difference']:.2f}, at alpha 0 by {lora['difference_at_0']:g}"
    yield f"LoRA's alpha set to {lora['alpha']:g}", f"{lora['seconds']:.1f} s", against, "a change, none at 0", changed


def _meta(entry: dict[str, Any]) -> Iterator[Figure]:
    for row in entry["rows"]:
        against = f"planned {_gb(row['planned_weight_bytes'])}"
        same = _met(row["weight_bytes"] == row["planned_weight_bytes"])
        yield f"{row['model']}, {row['tensors']} tensors", _gb(row["weight_bytes"]), against, "equal", same
        ratio = row["peak_bytes"] / row["planned_bytes"]
        against = f"planned {_gb(row['planned_bytes'])}, {100 * ratio:.0f} %"
        what = f"  reading {row['frames']} frames as {row['visual_tokens']} visual tokens"
        yield what, _gb(row["peak_bytes"]), against, "within 15 %", _met(abs(ratio - 1) <= 0.15)
        against = f"{row['trained_tensors']} tensors of {row['trained'] / 1e6:.0f} M weights get gradients"
        yield "  a training step", _gb(row["training_bytes"]), against


def _precision(entry: dict[str, Any]) -> Iterator[Figure]:
    for row in entry["rows"]:
        if "wrong" in row:
            yield row["dtype"], f"{row['seconds']:.1f} s", row["wrong"], "answers of float32", NOT_MET
        else:
            within = f"{row['ties']} ties, log-prob. within {row['max_difference']:.4f}"
            yield row["dtype"], f"{row['seconds']:.1f} s", within, "answers of float32", "yes"


def _steps(entry: dict[str, Any]) -> Iterator[Figure]:
    what = f"{entry['steps']} steps with LoRA, {entry['visual_tokens']} visual tokens"
    yield what, f"{entry['step_seconds']:.2f} s/step", f"{entry['tokens_per_second']:.0f} tokens/s"
    yield "MFU", f"{100 * entry['mfu']:.0f} %", _rate(entry["tflops"]), ">= 30 %", _met(entry["mfu"] >= 0.3)
    fsdp = entry["fsdp"]
    if "skipped" in fsdp:
        yield f"FSDP of one device: skipped: {fsdp['skipped']}", ""
    else:
        difference = fsdp["largest_difference"]
        yield (
            "FSDP of one device",
            f"losses within {difference:.1e}",
            "those without",
            "<= 1e-2",
            _met(difference <= 1e-2),
        )


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


def _rate(tflops: float) -> str:
    return f"{tflops:.0f} TFLOP/s" if tflops >= 10 else f"{1000 * tflops:.3g} GFLOP/s"


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _met(met: bool) -> str:
    return "yes" if met else NOT_MET


# By the letters in speed.json; letters and words both stand in job.parts.
SECTIONS = {
    "a": ("point", _point), "b": ("sweep", _sweep), "c": ("floor", _floor), "d": ("prefix", _prefix),
    "e": ("processes", _processes), "f": ("operators", _operators), "g": ("training", _training),
    "h": ("rates", _rates), "i": ("loaded", _loaded), "j": ("meta", _meta), "k": ("precision", _precision),
    "l": ("steps", _steps),
}  # fmt: skip
