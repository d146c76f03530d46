"""job=norms: one point's norms of visual tokens, from configuration to numbers and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from videopool.benchmarks.errors import listed
from videopool.config.build import jsonable
from videopool.evaluation.contents import ClipStates
from videopool.measuring.run import FACTS, measure, result_line
from videopool.measuring.settings import NormPoint, check, choose_clips, clip_name, identify, read_settings
from videopool.measuring.table import tell_norms
from videopool.norms import load_norms
from videopool.norms.saved import PARTIAL, forget, measured_contents
from videopool.notes import note
from videopool.points.lifecycle import attempt, finished_before, folder_of
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.progress import doing


def run(config: DictConfig) -> Outcome:
    """Measure one point, or resume it, or find it finished."""
    torch.manual_seed(int(config.seed))
    job = check(config)
    point = NormPoint(config)
    clips = choose_clips(point, job["clips"])
    identity = identify(job, point, clips)
    folder = folder_of(config, f"norms-{point.name}", identity)
    states = ClipStates(folder, {clip_name(clip): clip.clip for clip in clips})
    if folder.finished and not config.force and not states.changed(measured_contents(folder.path)):
        return finished_before(folder)
    settings = read_settings(job, point)
    point.check()
    described = {name: value for name, value in point.describe().items() if name in FACTS}
    described["checkpoint"] = point.adapter and point.adapter["checkpoint"]
    if point.shape.by_clip:  # the number that is announced would be of a size that no clip need have
        described["visual_tokens"] = None
    with folder:
        if changed := [] if config.force else states.changed(measured_contents(folder.path)):
            names = f"{len(changed)} ({listed(changed)})"
            line = f"{folder.path.name}: clips with other contents than when they were measured: {names}"
            note(f"{line}; all are measured again")
        if changed or config.force:
            folder.clear()
            forget(folder.path)
        if folder.finished:  # by another process meanwhile
            return finished_before(folder)
        # Not under "point": tables of scores leave it out.
        with attempt(folder, config, {"measured": described, "identity": identity}):
            states.keep()
            from videopool.measuring.figures import FOLDER, point_figures, save_figures
            from videopool.tracking.point import log_norms
            from videopool.tracking.run import wandb_run

            content = {**jsonable(config), "point": {"name": folder.path.name, **described}}
            with wandb_run(config, folder.path.parent, "norms", folder.path.name, content) as run:
                metrics, numbers = measure(point, settings, clips, folder, described)
                doing("drawing figures")
                save_figures(lambda: point_figures(load_norms(folder.path)), folder.path / FOLDER)
                if run is not None:
                    log_norms(run, folder.path)
                folder.write_metrics(metrics)
                (folder.path / PARTIAL).unlink(missing_ok=True)
    return Outcome(COMPLETE, folder.path.name, result_line(numbers), str(folder.path))


def tell(config: DictConfig, outcome: Outcome) -> None:
    """Print a point's norms."""
    tell_norms(Path(outcome.folder))


def sum_up(config: DictConfig, outcomes: Sequence[dict[str, Any]]) -> None:
    """Write and print the norms of a study's points."""
    if any(outcome["folder"] for outcome in outcomes):
        from videopool.measuring.study import sum_up_norms

        sum_up_norms(Path(config.results_dir) / config.study)
