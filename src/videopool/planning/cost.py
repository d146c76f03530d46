"""A plan: the cost of each point, the differences that its benchmark can show, plan.csv and the terminal's table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from videopool.config.build import check, number, whole
from videopool.files import write_text
from videopool.inference.read_plan import clips_at_once
from videopool.models import cost
from videopool.models.backbone import VISION_CHUNK
from videopool.models.configuration import DTYPES
from videopool.models.texts import FRAMES
from videopool.planning.size import Size, benchmark_size
from videopool.points.setting import CONTIGUOUS, Setting, StatedSetting, readable
from videopool.points.twins import map_of
from videopool.pooling import GridPooling
from videopool.reports.cells import spreadsheet
from videopool.results.comparison import called, same_budget
from videopool.results.errors import writing
from videopool.results.point import METRICS, read_json
from videopool.results.statistics import detectable_difference
from videopool.runtime.tables import Cell, Heading, Row, Shown, made_table, number_text, size_text, unit_of
from videopool.runtime.terminal import console

Fields = Mapping[str, Any]
MB, GB, TERA = 1e6, 1e9, 1e12
LEAST_HOURS = 0.001  # that are written
SAME_MAP = ("model", "frames", "positions", "layout", "pruning", "benchmark", "map")
KEEPS_NOTHING = "videopool.features.FeatureStore"
# Of pooling a clip, by finished points: the key of their metrics and its factor.
SEEN = {"seen_pool_ms": ("pool_seconds", 1e3), "seen_pool_mb": ("pool_bytes", 1 / MB)}
SEEN |= {"seen_saliency_seconds": ("saliency_seconds", 1.0)}
# Of a model behind an API, only some are known.
COLUMNS = (
    "point", "model", "dtype", "pooling", "stage", "frames", "positions", "layout", "pruning", "visual_tokens",
    "context", "prefill_tflops", "tower_tflops", "projector_tflops", "kv_cache_gb", "weights_gb",
    "features_mb_per_clip", "benchmark", "clips", "samples", "design", "features_gb", "clips_at_once", "peak_memory_gb",
    "seen_memory_gb", "hours", "tflops_per_second", "warnings", "map", "note", "separators", "layer_mean_tokens", *SEEN,
)  # fmt: skip
WORDS = ("model", "pooling", "stage", "positions", "layout", "pruning")  # columns of text
# Columns of the terminal's table: key of the row, heading, unit of the values and its size, rank.
SHOWN = (
    ("model", "model", "", 1.0, 0),
    ("pooling", "pooling", "", 1.0, 0),
    ("stage", "stage", "", 1.0, 0),
    ("frames", "frames", "", 1.0, 1),
    ("positions", "positions", "", 1.0, 3),
    ("layout", "layout", "", 1.0, 3),
    ("pruning", "pruning", "", 1.0, 3),
    ("visual_tokens", "visual tokens", "", 1.0, 1),
    ("separators", "separators", "", 1.0, 8),
    ("layer_mean_tokens", "layer-mean tokens", "", 1.0, 2),
    ("prefill_tflops", "prefill {} per clip", "FLOPs", TERA, 2),
    ("tower_tflops", "tower {} per clip", "FLOPs", TERA, 5),
    ("kv_cache_gb", "KV cache {}", "B", GB, 6),
    ("weights_gb", "weights {}", "B", GB, 6),
    ("features_mb_per_clip", "features {} per clip", "B", MB, 7),
    ("features_gb", "features {}", "B", GB, 4),
    ("peak_memory_gb", "peak {} (clips)", "B", GB, 3),
    ("seen_memory_gb", "seen {}", "B", GB, 3),
    ("seen_pool_ms", "seen pooling ms per clip", "", 1.0, 8),
    ("seen_pool_mb", "seen pooling {} per clip", "B", MB, 8),
    ("seen_saliency_seconds", "seen saliency s", "", 1.0, 8),
    ("hours", "hours", "", 1.0, 2),
)


def cost_of(config: DictConfig) -> dict[str, Any]:
    """A point's row (COLUMNS): settings, operations per clip (1e12), memory and disk (1e9 bytes), warnings.

    Operations and KV cache are for one clip; peak memory is for as many clips as job=evaluate reads at once. The cache
    and the peak include the text, the operations do not.
    """
    point = Setting(config) if "base_url" in config.model else StatedSetting(config)
    asked, own, line = benchmark_size(config), None, ""
    if isinstance(point, StatedSetting):
        model, name, costs = point.model_name, point.name, _costs(config, point, asked)
        if isinstance(point.pooling, GridPooling):  # maps of others are slow
            own, line = map_of(point.pooling, point.stage, point)
        elif point.pooling.varies:
            line = f"clips differ in their tokens: {point.visual_tokens} are the most"
    else:
        model, costs = str(config.model.name or point.model["model"]), {"warnings": []}
        name = readable(model, point.pooling.label, f"f{point.frames}")
    return {
        **dict.fromkeys(COLUMNS),
        **costs,
        "point": name,
        "model": model,
        "pooling": point.pooling.label,
        "stage": point.stage,
        "frames": point.frames,
        "positions": point.positions,
        "layout": point.layout,
        "pruning": point.pruning and point.pruning.label,
        "benchmark": HydraConfig.get().runtime.choices["benchmark"] if HydraConfig.initialized() else None,
        "clips": asked.clips,
        "samples": sum(asked.samples) or None,
        "design": design(config, asked.samples),
        **_seen(config, name),
        "warnings": [*costs["warnings"], *asked.warnings],
        "map": own,  # which equal poolings share
        "note": line,
        "assumed": point.assumed if isinstance(point, StatedSetting) else "",
    }


def _seen(config: DictConfig, name: str) -> dict[str, float | None]:
    """The most that finished points of this name took: memory of tensors or, without a GPU, of the process; pooling."""
    done = (Path(str(config.results_dir)) / str(config.study)).glob(f"{escape(name)}-*/{METRICS}")
    known = [metrics for metrics in map(read_json, done) if metrics is not None]
    peaks = [metrics.get("device_peak_bytes") or metrics.get("peak_memory_bytes", 0) for metrics in known]
    most = {key: max((own.get(name) or 0 for own in known), default=0) for key, (name, _) in SEEN.items()}
    return {"seen_memory_gb": max(peaks, default=0) / GB or None} | {k: n * SEEN[k][1] or None for k, n in most.items()}


def with_twins(rows: Sequence[Fields]) -> list[dict[str, Any]]:
    """Rows with a note where an earlier one has the same map and the same other settings."""
    noted, first = [], dict[str, str]()
    for row in rows:
        twin = first.setdefault(str([row[name] for name in SAME_MAP]), row["point"])
        same = f"the same map as {twin}" if row["map"] and twin != row["point"] else ""
        noted.append({**row, "note": "; ".join(filter(None, [row["note"] or same, row["assumed"]]))})
    return noted


def _costs(config: DictConfig, point: StatedSetting, asked: Size) -> dict[str, Any]:
    """Costs of a point whose model runs here."""
    shape, size, tokens = point.shape, point.bytes_per_value, point.visual_tokens
    text = number(config, "job.text_tokens", 0, whole=True)
    optional = ["job.max_cache_bytes", "features.frames_at_once"]
    check(config, {whole(1): ["job.max_visual_tokens", "job.max_clips"], whole(1, null=True): optional})
    at_once, answer = clips_at_once(config.job, tokens, asked.clips), _answer_tokens(config)
    shared = tokens * _read_once(point)
    answer += round(point.layer_mean_tokens(tokens)) if point.pruning else 0  # the clip as each question keeps it
    bytes_each = at_once * cost.question_bytes(shape, text + answer, size)
    questions = _questions_at_once(config, asked, text + answer, bytes_each)
    peak = cost.peak_bytes(
        shape, point.images, tokens, size, at_once, questions, text, answer, str(point.model.get("attention", "sdpa")),
        config.features.get("frames_at_once") or VISION_CHUNK, point.registers,
    )  # fmt: skip
    dtype = config.features.get("dtype")  # of the feature store, if not the model's
    stored = DTYPES[dtype].itemsize if dtype in DTYPES else size
    kept = config.features.get("_target_") != KEEPS_NOTHING
    per_clip = point.stored_bytes(stored) if kept else 0
    return {
        "dtype": point.model["dtype"],
        "visual_tokens": tokens,
        "separators": point.beside,
        "layer_mean_tokens": point.layer_mean_tokens(tokens),
        "context": shape.context,
        "prefill_tflops": point.prefill_flops(tokens) / TERA,
        "tower_tflops": cost.tower_flops(shape, point.images, point.registers) / TERA,
        "projector_tflops": cost.projector_flops(shape, point.projected) / TERA,
        "kv_cache_gb": cost.kv_cache_bytes(shape, round(shared) + questions * (text + answer), size) / GB,
        "weights_gb": cost.weight_bytes(shape, size) / GB,
        "features_mb_per_clip": per_clip / MB,
        "features_gb": None if asked.clips is None else asked.clips * per_clip / GB,
        "clips_at_once": at_once,
        "peak_memory_gb": peak / GB,
        "tflops_per_second": OmegaConf.select(config, "job.tflops_per_second"),
        "hours": _hours(config, point, asked, text),
        "warnings": _context_warnings(point, text),
    }


def _read_once(point: StatedSetting) -> float:
    """The share of layers that read a clip once for all its questions."""
    return point.pruning.layer / point.shape.layers if point.pruning else 1.0


def _answer_tokens(config: DictConfig) -> int:
    """The most tokens of a generated answer; 0 where none is generated."""
    generates = (config.benchmark.get("scoring") or "generate") == "generate"
    return int(config.benchmark.get("max_new_tokens") or 0) if generates else 0


def _questions_at_once(config: DictConfig, asked: Size, longest: int, bytes_each: int) -> int:
    """The most questions of a clip that are read at once, of so many positions each, and bytes for all clips."""
    row, room = cost.GENERATED if _answer_tokens(config) else cost.LIKELY, config.job.get("max_cache_bytes")
    most = asked.most if config.benchmark.get("scoring") != "cloze" else row  # which reads each option
    return max(1, min(most, row // max(1, longest), most if room is None else room // bytes_each))


def _hours(config: DictConfig, point: StatedSetting, asked: Size, text: int) -> float | None:
    """Hours of one device at job.tflops_per_second: an estimate; None if the number of clips or questions is unknown.

    Each clip runs through the tower, the projector and the language model once, each question through the language
    model after it, and under pruning once more its part of the clip; a generated answer is as long as allowed. Reading
    clips is not counted.
    """
    if OmegaConf.select(config, "job.tflops_per_second") is None or asked.clips is None or not asked.questions:
        return None
    speed = number(config, "job.tflops_per_second", 1e-6) * TERA
    shape, tokens, answer = point.shape, point.visual_tokens, _answer_tokens(config)
    prefix = _read_once(point) * cost.prefill_flops(shape, tokens)
    seen = cost.tower_flops(shape, point.images, point.registers) + cost.projector_flops(shape, point.projected)
    clip = prefix + seen
    question = cost.prefix_flops(shape, tokens, point.pruning, text + answer) - prefix
    return float(asked.clips * clip + asked.questions * question) / speed / 3600


def _context_warnings(point: StatedSetting, text_tokens: int) -> list[str]:
    """Warnings of a clip that exceeds the language model's context or its trained positions."""
    shape, length = point.shape, point.length + text_tokens
    counted = "visual tokens" if point.positions == CONTIGUOUS else "positions of the whole grid"
    parts = f"{point.length} {counted} and {text_tokens} of text"
    if length > shape.context:
        return [f"{parts} do not fit the context of {shape.context}: such a point fails"]
    if length > shape.rope_range:
        factor = f"{shape.rope_type} scaling by {shape.rope_factor:g}"
        return [f"{parts} reach beyond the {shape.rope_range} positions that were trained, into RoPE's {factor}"]
    return []


def design(config: DictConfig, samples: Sequence[int]) -> dict[str, Any] | None:
    """Settings of a point's power, fit for JSON; None if samples per clip are unknown, or nothing flips."""
    flipped, correlation = number(config, "job.flipped", 0, 1), number(config, "job.correlation", 0, 1)
    stated = config.job.comparisons
    comparisons = None if stated is None else number(config, "job.comparisons", 1, whole=True)
    if not samples or not flipped:
        return None
    sizes = [[size, count] for size, count in sorted(Counter(samples).items())]
    settings = {"sizes": sizes, "flipped": flipped, "correlation": correlation, "comparisons": comparisons}
    return {**settings, "baseline": str(config.baseline)}


def with_power(rows: Sequence[Fields]) -> list[dict[str, Any]]:
    """Rows with `comparisons` (by default those of a report) and `detectable_difference`, from their `design`."""
    powered = []
    for row in rows:
        comparisons, difference = None, None
        if (own := row["design"]) is not None:
            family = [other for other in rows if other["benchmark"] == row["benchmark"]]
            comparisons = own["comparisons"] or max(1, _comparisons(family, own["baseline"]))
            sizes = tuple(size for size, count in own["sizes"] for _ in range(count))
            difference = _detectable(sizes, own["correlation"], own["flipped"], comparisons)
        powered.append({**row, "comparisons": comparisons, "detectable_difference": difference})
    return powered


_detectable = lru_cache(detectable_difference)  # points of one benchmark share it


def _comparisons(rows: Sequence[Fields], baseline: str) -> int:
    """The number of pairs that add_differences makes of points of one benchmark; without the baseline, at most."""
    like = called(rows, baseline)
    if not like:
        return len(rows) - 1
    pairs = 0
    for row in rows:
        tokens = row["visual_tokens"]
        own = [other for other in like if other["model"] == row["model"]]
        if tokens is not None:
            own.sort(key=lambda other: (other["frames"] != row["frames"], abs(other["visual_tokens"] - tokens)))
        partners = [other for other in own if other["frames"] == row["frames"]][:1]
        partners += [o for o in own if tokens is not None and same_budget(o["visual_tokens"], tokens)][:1]
        pairs += len({id(other) for other in partners} - {id(row)})
    return pairs


def write_plan(rows: Sequence[dict[str, Any]], study: Path) -> str:
    """Write plan.csv of a multirun. Returns its name. Raises ResultsError if the folder cannot be written."""
    table = pd.DataFrame([{**row, "warnings": "; ".join(row["warnings"])} for row in with_power(with_twins(rows))])
    with writing(study):
        study.mkdir(parents=True, exist_ok=True)
        return write_text(study / "plan.csv", spreadsheet(table.drop(columns=["design", "map", "assumed"])))


def show_plan(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of a run's points, then their warnings."""
    screen = console()
    screen.print(plan_table(rows))
    lines = [f"warning: {row['point']}: {text}" for row in rows for text in row["warnings"]]
    lines += [f"note: {row['point']}: {row['note']}" for row in with_twins(rows) if row["note"]]
    for line in lines:
        screen.print(line, highlight=False, soft_wrap=True)


def plan_table(rows: Sequence[dict[str, Any]]) -> Shown:
    """Points and their costs for the terminal; the caption has what all points share."""
    rows = with_power(rows)
    fixed = {key for key in ("model", "stage", "weights_gb") if len({row[key] for row in rows}) == 1}
    fixed |= {key for key, *_ in SHOWN if all(row[key] in (None, CONTIGUOUS, FRAMES) for row in rows)}
    fixed |= {"separators"} if not any(row["separators"] for row in rows) else set()
    fixed |= {"layer_mean_tokens"} if all(row["layer_mean_tokens"] == row["visual_tokens"] for row in rows) else set()
    headings, columns = [], []
    for key, heading, unit, size, rank in (column for column in SHOWN if column[0] not in fixed):
        largest = max((size * row[key] for row in rows if unit and row[key]), default=0)
        factor, unit = unit_of(largest, unit) if unit else (1.0, "")
        headings.append(Heading(heading.format(unit), key not in WORDS, rank))
        columns.append([_cell(row, key, size / factor) for row in rows])
    styles = ["yellow" if row["warnings"] else "" for row in rows]
    lines = [Row(cells, style=style) for cells, style in zip(zip(*columns, strict=True), styles, strict=True)]
    return Shown(made_table(headings, lines), "plan", tuple(_shared(rows, fixed)))


def _shared(rows: Sequence[dict[str, Any]], fixed: set[str]) -> list[str]:
    """What all points of a plan share."""
    first, parts = rows[0], []
    if "model" in fixed and first["context"] is None:
        parts.append(f"{first['model']}: behind an API")
    elif "model" in fixed:
        weights = f", weights {size_text(GB * first['weights_gb'])} in {first['dtype']}"
        parts.append(f"{first['model']}: context {first['context']}{weights if 'weights_gb' in fixed else ''}")
    if "stage" in fixed:
        parts.append(f"pooling at the {first['stage']}")
    counts = {(row["benchmark"], row["clips"], row["samples"]) for row in rows}
    if len(counts) == 1:
        clips = "number of clips unknown: job.clips=..." if first["clips"] is None else f"{first['clips']} clips"
        samples = f", {first['samples']} samples in the score" if first["samples"] else ""
        parts.append(f"benchmark {first['benchmark'] or 'unnamed'}: {clips}{samples}")
    hours = [row["hours"] for row in rows]
    if None not in hours:
        total = f"; {number_text(max(sum(hours), LEAST_HOURS))} in all" if len(hours) > 1 else ""
        speed = f"{first['tflops_per_second']:g} TFLOP/s"
        parts.append(f"hours: an estimate for one GPU at {speed}, without reading clips{total}")
    seen = "; seen: by the study's finished points" if "seen_memory_gb" not in fixed else ""
    parts.append(f"peak: an estimate, with (clips) read at once{seen}")
    powers = {_power(row) for row in rows if row["design"] is not None}
    return [*parts, *powers] if len(powers) == 1 else parts


def _power(row: dict[str, Any]) -> str:
    """The power of a paired comparison."""
    among = f" among {row['comparisons']} comparisons" if row["comparisons"] > 1 else ""
    basis = f"with {row['samples']} samples{among} (80 % power, assuming job.flipped={row['design']['flipped']:g})"
    if row["detectable_difference"] is None:
        return f"no difference is detectable {basis}"
    return f"smallest detectable difference: {100 * row['detectable_difference']:.1f} points {basis}"


def _cell(row: dict[str, Any], key: str, factor: float) -> Cell:
    value = row[key]
    if value is None:
        return Cell("-")
    text = number_text(value * factor) if isinstance(value, float) else str(value)
    if key == "visual_tokens" and row["warnings"]:
        return Cell(f"! {text}")
    if key == "hours" and value < LEAST_HOURS:
        return Cell(f"<{LEAST_HOURS}")
    return Cell(f"{text} ({row['clips_at_once']})" if key == "peak_memory_gb" else text)
