"""What stands where in a clip, against a loop that writes it token by token."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from random_models import save
from videopool.models import load_backbone
from videopool.models.texts import BLOCK, FRAMES, FrameTexts, Stamps
from videopool.pooling import Adaptive, Average, DualMean, NoPooling, PoolingContractError, Subsample
from videopool.reading.layout import Arranged, Spots, arrange, beside, spots_of

SIZE = (4, 2, 3)
STAMPS = Stamps([0.0, 1.5, 3.0, 4.5], 6.0)
# Two clips: places out of order, twice the same, a frame and rows without a token.
PLACES = torch.tensor([[7, 6, 10, 0, 22, 22], [23, 1, 2, 4, 18, 12]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save(tmp_path_factory.mktemp("onevision"), "llava_onevision"))


class Marked:
    """The texts of a family that says the seconds before each frame, and ends each row with a newline."""

    def __init__(self, backbone, rows, marks, ends):
        self.backbone = backbone
        self.row_newlines, self.marks_frames, self.separators = rows, marks, ends
        self.mrope = False
        self.newline, self.spreads, self.device = "image_newline", rows or marks, backbone.device
        self.newline_vector, self.words, self.text_ids = backbone.newline_vector, backbone.words, backbone.text_ids

    def separators_in(self, layout):
        return max(self.separators, int(self.row_newlines)) if layout == BLOCK else self.separators

    def texts_of(self, stamps):
        return self.frame_texts(stamps)

    def frame_texts(self, stamps):
        if not self.marks:
            return FrameTexts()
        words = ["a", "b", "c", "d"]
        before = [f" {'red ' * number}{words[number]}" for number in range(len(stamps.times))]
        return FrameTexts("is ", before, [" ."] * len(before), " what", " star", " circle")

    @property
    def marks(self):
        return self.marks_frames


def spots(places):
    return Spots(places // 6, places % 6 // 3, places, range(4))


def written(family, tokens, places, layout, original):
    """States and positions of one clip, token by token; what is around; the position behind."""
    texts, embed = family.frame_texts(STAMPS), family.backbone.embed
    newline = family.newline_vector()

    def write(chosen):
        """(what, vector, place) in order, for tokens as (place, vector)."""
        if layout == BLOCK or not family.spreads:  # in the order of the pooling
            return [("token", vector, place) for place, vector in chosen] + [
                ("newline", newline, None) for _ in range(family.separators_in(layout))
            ]
        out = []
        frames = sorted({place // 6 for place, _ in chosen})
        for number, frame in enumerate(frames):
            if number and family.marks:
                ids = family.text_ids(texts.after[frames[number - 1]] + texts.before[frame])
                out += [
                    ("text", embed(torch.tensor([id]))[0], (frame, place - len(ids))) for place, id in enumerate(ids)
                ]
            own = [one for one in chosen if one[0] // 6 == frame]
            if not family.row_newlines:
                out += [("token", vector, place) for place, vector in own]
                continue
            for row in sorted({place % 6 // 3 for place, _ in own}):
                out += [("token", vector, place) for place, vector in own if place % 6 // 3 == row]
                out.append(("newline", newline, (frame, row)))
        return out + [("newline", newline, None) for _ in range(family.separators)]

    out = write(list(zip(places.tolist(), tokens, strict=True)))
    states = torch.stack([vector for _, vector, _ in out])
    if not original:
        return states, list(range(len(out))), len(out)
    whole = write([(place, newline) for place in range(24)])
    first = {}
    for position, (kind, _, place) in enumerate(whole):
        first[kind, place] = position
    ends = iter(range(len(whole) - family.separators_in(layout), len(whole)))
    positions = []
    for kind, _, place in out:
        if place is None:
            positions.append(next(ends))
        elif kind == "text":
            positions.append(first["token", place[0] * 6] + place[1])
        else:
            positions.append(first[kind, place])
    return states, positions, len(whole)


@pytest.mark.parametrize("layout", [FRAMES, BLOCK])
@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize(("rows", "marks", "ends"), [(0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 1, 1)])
def test_each_entry_stands_where_a_loop_writes_it(folder, layout, original, rows, marks, ends):
    family = Marked(load_backbone(folder), bool(rows), bool(marks), ends)
    tokens = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(0))
    found = arrange(family, tokens, SIZE, [STAMPS] * 2, layout, spots(PLACES), original)
    for clip, places in enumerate(PLACES):
        states, positions, end = written(family, tokens[clip], places, layout, original)
        assert found.lengths[clip] == len(states)
        torch.testing.assert_close(found.row(clip), states)
        assert found.ends[clip] == end
        if original:
            assert found.positions[clip, : len(states)].tolist() == positions
        torch.testing.assert_close(found.states[clip, found.at[clip]], tokens[clip])
    assert bool((found.states[0, found.lengths[0] :] == 0).all())
    if marks and layout == FRAMES:
        assert found.texts == [("is  a", " . what"), ("is  a", " . what")]
    elif marks:
        assert found.texts == [("is  star", " circle what")] * 2
    else:
        assert found.texts == [("", "")] * 2


def test_clips_arranged_apart_are_those_arranged_together(folder):
    family = Marked(load_backbone(folder), True, True, 1)
    tokens = torch.randn(2, 6, 64)
    together = arrange(family, tokens, SIZE, [STAMPS] * 2, FRAMES, spots(PLACES), True)
    apart = [arrange(family, tokens[[row]], SIZE, [STAMPS], FRAMES, spots(PLACES[[row]]), True) for row in range(2)]
    joined = Arranged.joined(apart)
    for name in ("states", "at", "positions"):
        assert torch.equal(getattr(joined, name), getattr(together, name))
    assert (joined.lengths, joined.ends, joined.texts) == (together.lengths, together.ends, together.texts)
    swapped = together.of([1, 0])
    assert torch.equal(swapped.row(0), together.row(1))
    assert swapped.asked(0, "say <image> now", "<image>") == "say is  a<image> . what now"


def test_cells_belong_to_their_row_and_to_the_middle_frame_of_their_window():
    grid = torch.randn(1, *SIZE, 5)
    assert spots_of(NoPooling(), grid, None, FRAMES).shown == range(4)
    halved = spots_of(Adaptive((2, 2, 2)), grid, None, FRAMES)
    assert halved.shown == [1, 3]
    assert halved.rows.tolist() == [[0, 0, 1, 1] * 2]
    assert spots_of(Average("time"), grid, None, FRAMES).shown == [2]
    assert spots_of(Average("space"), grid, None, FRAMES).frames.tolist() == [[0, 1, 2, 3]]
    with pytest.raises(PoolingContractError, match=r"layout=frames: .* say layout=block"):
        spots_of(DualMean(), grid, None, FRAMES)
    with pytest.raises(PoolingContractError, match=r"positions=original: .* say positions=contiguous"):
        spots_of(Average("time"), grid, None, BLOCK)


def test_what_stands_beside_tokens_is_counted_without_weights(folder):
    """As many as a loop finds where all cells are there; the most where places decide."""
    family = Marked(load_backbone(folder), True, True, 1)
    shape = replace(family.backbone.shape, separators=1, row_newlines=True, frame_text=2)
    for pooling in (NoPooling(), Adaptive((2, 1, 2)), Subsample(5)):
        grid = torch.randn(1, *SIZE, 64)
        own = spots_of(pooling, grid, None, FRAMES)
        found = arrange(family, pooling(grid), SIZE, [STAMPS], FRAMES, own)
        texts, shown = family.frame_texts(STAMPS), [own.shown[one] for one in own.frames.unique().tolist()]
        words = sum(len(family.text_ids(texts.between(*pair))) for pair in pairwise(shown))
        counted = beside(pooling, replace(shape, frame_text=0), SIZE, FRAMES)
        exact = found.lengths[0] - words - found.at.shape[1]
        assert counted >= exact
        assert pooling.label == "subsample" or counted == exact
    assert beside(NoPooling(), shape, SIZE, FRAMES) == 1 + 8 + 2 * 3
    assert beside(NoPooling(), shape, SIZE, BLOCK) == 1
