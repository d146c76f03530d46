"""Parts of job=speed about a model as it is loaded: seconds and memory of points, LoRA's alpha, precision."""

from itertools import product
from typing import Any

import torch
from hydra import compose
from omegaconf import OmegaConf
from torch import Tensor

from videopool.features import FeatureStore
from videopool.models import Backbone, attach, load_adapter, set_alpha
from videopool.planning.cost import cost_of
from videopool.results.manifest import peak_memory, watch_memory
from videopool.speed.bench import Bench, Line
from videopool.speed.points import SLACK, compare, run_point
from videopool.speed.random_models import save_random_adapter
from videopool.speed.timing import timed

WAYS = ("likelihood", "generate")


def loaded(bench: Bench, line: Line) -> dict[str, Any]:
    """Part i: seconds of loading the model, and seconds and peak memory of points, beside what job=plan expects.

    Then LoRA of random matrices is put on, and its alpha changed without loading anything again.
    """
    settings, planning = bench.config.job.loaded, compose("config", overrides=["job=plan"]).job
    step = line("a loaded model", len(settings.points) * len(WAYS) + 2)
    bench.forget()
    watch_memory()
    spent, model = timed(bench.load)
    step()
    store, rows = bench.store("loaded"), list[dict[str, Any]]()
    entry: dict[str, Any] = {"load_seconds": spent, "load_memory": peak_memory(), "rows": rows}
    for number, (one, scoring) in enumerate(product(settings.points, WAYS)):
        config = bench.point(f"i-{number}", one.pooling, one.frames, scoring=scoring, max_clips=bench.size["clips"])
        planned = config.copy()
        planned.job = {**planning, **config.job}
        plan, run = cost_of(planned), run_point(bench, config, store)
        rows.append({
            **{name: plan[name] for name in ("pooling", "frames", "visual_tokens")}, "scoring": scoring,
            "samples": len(run.records), "seconds": run.seconds, "by_kind": run.kinds, "seen_bytes": run.peak,
            "planned_bytes": 1e9 * plan["peak_memory_gb"], "seen_over_planned": run.peak / 1e9 / plan["peak_memory_gb"],
        })  # fmt: skip
        step()
    base, folder = _probe(model), bench.folder / "adapter"
    save_random_adapter(model.shape, folder, int(settings.rank))
    attach(model, load_adapter(str(folder)), alpha=0)
    off = _probe(model)
    set_alpha(model, float(settings.alpha))
    config = bench.point("i-lora", one.pooling, one.frames, max_clips=bench.size["clips"])
    run = run_point(bench, config, store)
    step()
    entry["lora"] = {
        "alpha": float(settings.alpha), "seconds": run.seconds,
        "difference_at_0": float((off - base).abs().max()), "difference": float((_probe(model) - base).abs().max()),
    }  # fmt: skip
    bench.forget()  # the model with LoRA
    return entry


@torch.inference_mode()
def _probe(model: Backbone) -> Tensor:
    """Logits after a few words."""
    return model.logits(model.read(model.embed(torch.arange(8, device=model.device)[None]))[0, -1]).cpu()


def precision(bench: Bench, line: Line) -> dict[str, Any]:
    """Part k: a point's answers in each dtype against those in the first, float32; the same weights, loaded anew."""
    job, rows = bench.config.job, list[dict[str, Any]]()
    step, first = line("precision", len(job.dtypes)), None
    for dtype in job.dtypes:
        config = bench.point(f"k-{dtype}", job.one.pooling, job.one.frames)
        OmegaConf.update(config, "model.dtype", dtype)
        bench.forget()
        bench.load(dtype)
        run = run_point(bench, config, FeatureStore())
        first = first or run
        row: dict[str, Any] = {"dtype": dtype, "seconds": run.seconds, "samples": len(run.records)}
        try:
            rows.append(row | compare(first.records, run.records, SLACK[dtype]))
        except AssertionError as error:
            rows.append(row | {"wrong": str(error)})
        step()
    bench.forget()
    return {"rows": rows}
