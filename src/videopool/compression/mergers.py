"""Mergers: what becomes of the tokens that are not chosen."""

import torch
from torch import Tensor

from videopool.compression.clip import Clip, Part, likest, squared_distances, unit
from videopool.pooling.checks import flag, number, one_of, positive


class Merger:
    """Base of mergers. A subclass defines the call.

    Attributes:
        needs: names of PoolingContext fields.
        extra: tokens that it makes of each part beside those of its centres.
    """

    needs: frozenset[str] = frozenset()
    extra = 0

    def __call__(self, clip: Clip, centres: Part, others: Part) -> Part:
        """One token for each of C centres [C, D], made of it and of others [m, D]; and then the extra ones."""
        raise NotImplementedError


BY = ("features", "distance", "keys")


class Nearest(Merger):
    """Each token goes to its nearest centre.

    Args:
        by: cosine of "features", euclidean "distance", or cosine of attention "keys".
        token: "mean" of the centre and its tokens, or VisionZip's "sum" of the centre and the mean of its tokens.
        beta: the centre's weight beside the mean of its tokens, but at least 1 / (their number + 1); null: as `token`.
        own: with beta: all centres of a segment count as tokens too, which FastVID does.
    """

    def __init__(self, by: str = "features", token: str = "mean", beta: float | None = None, own: bool = False) -> None:
        self.by = one_of("merger.by", by, BY)
        self.token = one_of("merger.token", token, ("mean", "sum"))
        self.beta = None if beta is None else number("merger.beta", beta, 0, 1)
        self.own = flag("merger.own", own)
        self.needs = frozenset({"keys"}) if by == "keys" else frozenset()

    @torch.no_grad()
    def nearest(self, clip: Clip, centres: Part, others: Part) -> Tensor:
        """[m] the centre of each token; of equally near ones the first."""
        if self.by == "distance":
            return squared_distances(others.values, centres.values).argmin(1)
        pair = (others.values, centres.values)
        if self.by == "keys":
            assert clip.keys is not None
            pair = tuple(clip.keys.flatten(0, 1)[part.places] for part in (others, centres))  # type: ignore[assignment]
        return likest(*pair, clip.reference)

    def __call__(self, clip: Clip, centres: Part, others: Part) -> Part:
        x = centres.values
        owner = self.nearest(clip, centres, others)
        sums = torch.zeros_like(x).index_add(0, owner, others.values)
        sizes = x.new_zeros(len(centres)).index_add(0, owner, x.new_ones(len(owner)))[:, None]
        if self.beta is not None:
            weight = (1 / (sizes + 1)).clamp(min=self.beta)
            x = torch.where(sizes > 0, weight * x + (1 - weight) * sums / sizes.clamp(min=1), x)
        elif self.token == "sum":
            x = x + sums / sizes.clamp(min=1)
        else:
            x = (x + sums) / (sizes + 1)
        return Part(x, centres.places)


class Runs(Merger):
    """Each token joins the last kept token at its place in an earlier frame; plain means: FrameFusion.

    A token without such a one is dropped.
    """

    def __call__(self, clip: Clip, centres: Part, others: Part) -> Part:
        index = torch.full((clip.frames * clip.places,), -1, device=centres.places.device)
        index[centres.places] = torch.arange(len(centres), device=index.device)
        # Of ascending places the largest so far, in each column.
        frame = torch.where(index >= 0, torch.arange(len(index), device=index.device), -1)
        last = frame.view(clip.frames, -1).cummax(0).values.flatten()[others.places]
        owner, values = index[last[last >= 0]], others.values[last >= 0]
        x = centres.values.index_add(0, owner, values)
        sizes = x.new_ones(len(centres)).index_add(0, owner, x.new_ones(len(owner)))
        return Part(x / sizes[:, None], centres.places)


class Neighbours(Merger):
    """Each centre plus its nearest tokens times their saliency, and one token of all others: LLaVA-PruMerge.

    arXiv 2403.15388. A token may add to several centres, and a centre to others. The last token is the sum of all
    tokens that are not chosen, times their saliency; its place is that of the largest.

    Args:
        near: how many, by cosine of keys, of all other tokens of the part.
    """

    needs = frozenset({"keys", "saliency"})
    extra = 1

    def __init__(self, near: int = 32) -> None:
        self.near = positive("merger.near", near)

    def __call__(self, clip: Clip, centres: Part, others: Part) -> Part:
        assert clip.keys is not None
        assert clip.saliency is not None
        # A place chosen twice, which only the published code does, counts as two, and costs one of the other tokens.
        again = len(centres) - len(centres.places.unique())
        others = others.of(torch.arange(again, len(others), device=others.places.device)) if again else others
        values = torch.cat([centres.values, others.values])
        places = torch.cat([centres.places, others.places])
        chosen = len(centres)
        weighted = clip.saliency.flatten()[places].to(values)[:, None] * values
        with torch.no_grad():
            keys = unit(clip.keys.flatten(0, 1)[places])
            likeness = keys[:chosen] @ keys.T
            likeness[torch.arange(chosen), torch.arange(chosen)] = -torch.inf
            order = likeness.nan_to_num(nan=-2.0).argsort(dim=1, descending=True, stable=True)
            order = order[:, : min(self.near, len(places) - 1)]
        x = torch.cat([centres.values + weighted[order].sum(1), weighted[chosen:].sum(0, keepdim=True)])
        rest = clip.saliency.flatten()[others.places]
        anchor = others.places[rest.nan_to_num(nan=-1.0).argmax()][None] if len(rest) else places[-1:]
        return Part(x, torch.cat([centres.places, anchor]))
