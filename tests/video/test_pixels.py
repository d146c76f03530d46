"""What the tower sees of a frame under compat=pllava, against transformers' own resizing."""

import copy

import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import get_resize_output_image_size, resize
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from videopool.inference.feature_key import processor_hash
from videopool.video import ShrunkFirst, open_clip, to_pixels

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = np.array([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def clip_processor(side):
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def in_grey(pixels):
    return np.rint((pixels.numpy() * STD + MEAN) * 255).astype(int)


def picture(height, width, seed=0):
    """Coarse and fine detail, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)).resize((width, height))
    return np.clip(np.asarray(coarse, int) + rng.integers(-60, 61, (height, width, 3)), 0, 255).astype(np.uint8)


# Height, width, the tower's side, and the short side by hand: 640 for the long one, or the tower's at least.
SIZES = [
    (720, 1280, 336, 360), (1280, 720, 336, 360), (1080, 1920, 224, 360), (480, 854, 336, 359), (480, 640, 336, 480),
    (240, 320, 336, 336), (500, 500, 56, 500), (900, 900, 336, 640), (300, 1200, 336, 336),
]  # fmt: skip


@pytest.mark.parametrize(("height", "width", "side", "short"), SIZES)
def test_frames_are_shrunk_as_pllava_shrinks_them(height, width, side, short):
    frame, processor = picture(height, width), clip_processor(side)
    size = get_resize_output_image_size(frame, short, default_to_square=False)
    first = resize(frame, size, resample=Image.Resampling.BICUBIC)
    wanted = processor(images=[first], return_tensors="pt")["pixel_values"]
    got = to_pixels(ShrunkFirst(processor, 640), frame[None])
    assert np.abs(in_grey(got) - in_grey(wanted)).max() <= 1
    plain = np.abs(in_grey(got) - in_grey(to_pixels(processor, frame[None]))).max()
    assert (plain > 1) == (max(height, width) > 640 and short > side)  # what is shrunk once, or not, is the same


def test_a_line_that_rounding_leaves_is_cut_off():
    """98 x 119 at 336: resized to 408, and the ratio in floating point says 407."""
    shrunk = ShrunkFirst(clip_processor(336), 640)
    assert shrunk.shrunk(picture(98, 119)).shape == (336, 407, 3)
    assert shrunk.shrunk(picture(119, 98)).shape == (407, 336, 3)


def test_it_is_another_processor_to_the_feature_store_and_can_be_copied():
    processor = clip_processor(56)
    made = [processor, ShrunkFirst(processor, 640), ShrunkFirst(processor, 320)]
    assert len({processor_hash(one) for one in made}) == 3
    back = copy.deepcopy(made[1])
    assert processor_hash(back) == processor_hash(made[1])
    assert back.image_mean == processor.image_mean
    with pytest.raises(AttributeError):
        _ = back.nothing


def test_on_its_own_clip(shared):
    """A clip of the reference's own at 720p: the difference that compat=pllava takes away."""
    with open_clip(shared("videos/real/pllava_jesse_dance.mp4")) as clip:
        frame = clip.frames([clip.info.num_frames // 2])
    assert max(frame.shape[1:3]) > 640
    processor = clip_processor(336)
    apart = np.abs(in_grey(to_pixels(ShrunkFirst(processor, 640), frame)) - in_grey(to_pixels(processor, frame)))
    assert 30 <= apart.max() <= 40
