"""What a model makes of one clip, put into pictures: its frames, norms of their patches, what poolings keep."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from videopool.config.errors import ConfigError
from videopool.features import load_clip, read_again, request_clip
from videopool.figures.film import FilmRow
from videopool.film.point import ClipPoint
from videopool.inference.backbones import point_backbone
from videopool.inference.feature_key import feature_source, trainer_device
from videopool.inference.load_plan import image_processor_of, load_plan
from videopool.inference.reader import ClipReader
from videopool.measuring.stages import ENCODER
from videopool.models import Backbone
from videopool.models.stages import TEXT, THUMBNAIL, check_needs
from videopool.norms import token_norms
from videopool.pooling import GridPooling, NoPooling, Pooling
from videopool.pooling.tracing import PatchTrace
from videopool.video import from_pixels

NOISE = 0.2  # of the time between frames, which a mean time that is that of its frame may be off by
ROUNDING = 5e-3  # seconds


@dataclass(frozen=True)
class Shown:
    """A pooling to be shown, and where it acts."""

    pooling: Pooling
    stage: str


@dataclass(frozen=True)
class View:
    """A clip as the tower saw it under one pooling.

    Attributes:
        reader: backbone and pooling.
        features: [1, T, C + H*W, Dv], on the backbone's device; of a thumbnail too, behind the frames.
        pictures: [T, S, S, 3] in 0..1, cut to what patches cover; without a thumbnail.
        frame_times: [T] seconds; of an image tiled of frames their mean.
        indices: frames that the sampler chose.
    """

    reader: ClipReader
    features: Tensor
    pictures: np.ndarray
    frame_times: Tensor
    indices: list[int]

    @property
    def times(self) -> list[float]:
        """Seconds of the pictures."""
        return [float(time) for time in self.frame_times]


class ShownClip:
    """One clip under several poolings; frames are encoded once where the feature store keeps them.

    Args:
        point: model, frames and clip.

    Raises:
        ConfigError: there is no such clip, or it cannot be read.
    """

    def __init__(self, point: ClipPoint) -> None:
        self.point, self.job = point, point.clip
        self.backbone: Backbone = point_backbone(point.model, point.model_identity, point.adapter)
        self.source = feature_source(point.config, self.backbone)
        if not self.backbone.placed:
            self.backbone.to(trainer_device(point.config))
        self.plain = self.view(Shown(NoPooling(), "projector"))

    @torch.no_grad()
    def view(self, shown: Shown) -> View:
        """The clip as the tower sees it under a pooling."""
        point, backbone = self.point, self.backbone
        check_needs(shown.pooling, backbone.shape, point.model_name, shown.stage)
        processor = image_processor_of(point.config, backbone)
        plan = load_plan(point.sampler, str(point.config.job.reader), processor, shown.pooling)
        reader = ClipReader(backbone, shown.pooling, shown.stage, point.store, plan, self.source)
        loaded = load_clip(request_clip(self.job, plan, point.store, self.source), plan)
        if loaded.error:
            raise ConfigError(f"clip: {loaded.error}")
        features = reader.features(loaded).to(backbone.device)
        pictured = loaded.views[:-1] if THUMBNAIL in shown.pooling.needs else loaded.views
        unique = sorted(set(pictured))
        pixels = from_pixels(processor, read_again(plan, loaded, unique, reader.seconds))
        height, width = (size * backbone.shape.patch for size in (backbone.shape.height, backbone.shape.width))
        pictures = pixels[[unique.index(view) for view in pictured], :height, :width]
        return View(reader, features[None], pictures, reader.frame_times(loaded), loaded.indices)

    @property
    def question(self) -> str:
        """The clip's first question, or what asks for a description: what a pooling goes by that needs a prompt."""
        return self.job.samples[0].question or self.point.prompt.describe

    @torch.no_grad()
    def _question_vector(self, pooling: Pooling) -> Tensor | None:
        """[1, D], for a pooling that needs it."""
        return self.backbone.text_vector(self.question)[None] if TEXT in pooling.needs else None

    @torch.no_grad()
    def norm_row(self, stage: str, p: float) -> FilmRow:
        """Norms of the frames' patches behind the tower or the projector, to be laid over them."""
        grid = self.backbone.grid(self.plain.features[0])
        norms = token_norms(grid if stage == ENCODER else self.backbone.project(grid), p)
        return FilmRow(f"norms, {stage}", _arrays(norms[..., None]), unit=f"L{p:g} norm", over=True)

    def pooled_row(self, shown: Shown, p: float | None = None) -> FilmRow:
        """What a pooling keeps, as colours, or with a p as norms of the tokens that the language model reads.

        Raises:
            PoolingContractError: the pooling's tokens cannot be traced to patches.
        """
        view = self.view(shown)
        with torch.no_grad():
            question = self._question_vector(shown.pooling)
            grid, context = view.reader.pooling_input(view.features, question, view.frame_times)
        trace = PatchTrace(shown.pooling, grid, context)
        sizes = grid.shape[1:4]
        if p is None:
            values = trace.of_tokens(_patch_colours(view.pictures, *sizes[1:]))
        else:
            tokens = trace.tokens.to(self.backbone.dtype)
            with torch.no_grad():
                values = token_norms(self.backbone.project(tokens) if shown.stage == ENCODER else tokens, p)[:, None]
        times = torch.tensor(view.times)
        label = f"{shown.pooling.label}{' before the projector' if shown.stage == ENCODER else ''}"
        label += f" for: {self.question}" if TEXT in shown.pooling.needs else ""
        label += f"\n{len(trace.read)} tokens"
        if missing := int((~trace.read).sum()):
            label += f", {missing} from elsewhere"
        if isinstance(shown.pooling, GridPooling):
            out = shown.pooling.out_shape(*sizes)
            cells = values.masked_fill(~trace.read[:, None], torch.nan).unflatten(0, out)
            read = trace.of_tokens(times.view(-1, 1, 1, 1).expand(*sizes, 1)).view(out[0], -1)
            times = read.nanmean(dim=1).cpu()
        else:
            cells = trace.of_patches(values)
        own = self.plain.times
        slack = NOISE * (max(own) - min(own)) / len(own) + ROUNDING
        same = len(times) == len(own) and np.allclose(times, own, atol=slack, rtol=0)
        captions = [] if same else [f"{time:.2f} s" for time in times.tolist()]
        unit = "" if p is None else f"L{p:g} norm"
        return FilmRow(label, _arrays(cells), captions, unit)


def _patch_colours(pictures: np.ndarray, height: int, width: int) -> Tensor:
    """Mean colour of each patch: pictures [T, S, S, 3] to [T, height, width, 3]."""
    patches = torch.from_numpy(pictures.copy()).unflatten(2, (width, -1)).unflatten(1, (height, -1))
    return patches.mean(dim=(2, 4))


def _arrays(pictures: Tensor) -> Sequence[np.ndarray]:
    """[T, h, w, C] to pictures [h, w, 3] or, of one value, [h, w]."""
    arrays = pictures.float().cpu().numpy()
    return list(arrays[..., 0] if arrays.shape[-1] == 1 else arrays)
