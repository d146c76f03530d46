"""Film strips and their moving pictures: what stands where, by the pixels that come out."""

import numpy as np
import pytest
from PIL import Image

from videopool.figures import save_figure
from videopool.figures.film import FilmRow, film_pictures, film_strip, on_one_scale, save_gif, spread

pytestmark = pytest.mark.usefixtures("drawn")

SIDE = 24


def plain(*colours):
    """One picture of each colour."""
    return [np.broadcast_to(np.array(colour, float), (SIDE, SIDE, 3)) for colour in colours]


def test_what_is_shown_is_spread_evenly():
    assert spread(4, 8) == [0, 1, 2, 3]
    assert spread(16, 8) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert spread(5, 1) == [2]
    assert spread(7, 3) == [1, 3, 5]


def pictures_of(figure, path):
    """Position of each picture's axes on the page, and the colour in the middle of it."""
    save_figure(figure, path)
    page = np.asarray(Image.open(path.with_name(path.name + ".png")).convert("RGB")) / 255
    found = []
    for axes in figure.axes:
        if axes.images and axes.get_xlim()[0] == 0:
            box = axes.get_position()
            x, y = (box.x0 + box.x1) / 2, 1 - (box.y0 + box.y1) / 2
            found.append(
                (round(box.x0 + box.width / 2, 4), round(y, 4), page[int(y * len(page)), int(x * page.shape[1])])
            )
    return found


GREYS = [(level, level, level) for level in (0.0, 0.3, 0.6, 0.9)]


def test_rows_stand_below_their_frames_and_fewer_pictures_between_them(tmp_path):
    frames = np.stack(plain(*GREYS))
    rows = [
        FilmRow("four", plain((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0))),
        FilmRow("two", plain((0, 1, 1), (1, 0, 1)), ["0.5 s", "2.5 s"]),
        FilmRow("one", plain((0.5, 0, 0)), ["1.5 s"]),
        FilmRow("eight", plain(*[(0, level / 8, 0) for level in range(8)])),
    ]
    found = pictures_of(film_strip(frames, [0, 1, 2, 3], rows, "a clip", columns=8), tmp_path / "a.film")
    assert (tmp_path / "a.film.svg").exists()
    lines = {}
    for x, y, colour in found:
        lines.setdefault(y, []).append((x, tuple(np.round(colour, 1))))
    top, four, two, one, eight = (sorted(lines[y]) for y in sorted(lines))
    assert [colour for _, colour in top] == GREYS
    assert [x for x, _ in four] == pytest.approx([x for x, _ in top])
    assert [colour for _, colour in four] == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]
    places = [x for x, _ in top]
    assert [x for x, _ in two] == pytest.approx([np.mean(places[:2]), np.mean(places[2:])], abs=1e-3)
    assert [colour for _, colour in two] == [(0, 1, 1), (1, 0, 1)]
    assert one[0][0] == pytest.approx(np.mean(places), abs=1e-3)
    assert len(eight) == 8
    few = film_strip(frames, [0, 1, 2, 3], rows, "a clip", columns=2)
    middle = [colour for _, _, colour in pictures_of(few, tmp_path / "b")[:2]]
    assert [tuple(np.round(colour, 1)) for colour in middle] == [GREYS[1], GREYS[3]]


def test_times_stand_below_the_frames():
    figure = film_strip(np.stack(plain(*GREYS)), [0.04, 1.5, 3.25, 7], [], "a clip", columns=2)
    assert [axes.get_xlabel() for axes in figure.axes] == ["1.50 s", "7.00 s"]
    assert figure.get_label() == "a clip, 2 of 4 frames."


def test_numbers_have_colours_of_their_row_or_of_all(tmp_path):
    frames = np.stack(plain(*GREYS[:2]))
    low, high = (FilmRow("n", [np.full((3, 3), one), np.full((3, 3), one + 1.0)], unit="norm") for one in (0.0, 5.0))

    def colours(rows):
        return [
            tuple(np.round(colour, 2))
            for _, _, colour in pictures_of(film_strip(frames, [0, 1], rows, ""), tmp_path / "n")
        ]

    apart, together = colours([low, high])[2:], colours(on_one_scale([low, high]))[2:]
    assert apart[:2] == apart[2:]
    assert together[0] == apart[0]
    assert together[3] == apart[1]
    assert len(set(together)) == 4


def test_nothing_is_not_a_colour(tmp_path):
    picture = np.full((2, 2, 3), 0.0)
    picture[1, 1] = np.nan
    figure = film_strip(np.stack(plain(GREYS[0])), [0], [FilmRow("kept", [picture])], "")
    drawn = figure.axes[1].images[0].get_array()
    assert drawn[..., 3].tolist() == [[1, 1], [1, 0]]


def test_a_gif_has_all_frames_in_order(tmp_path):
    colours = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, 1, 0)]
    rows = [FilmRow("two", plain((0, 1, 1), (1, 0, 1)))]
    made = film_pictures(np.stack(plain(*colours)), range(5), rows, "a clip")
    name = save_gif(made, tmp_path / "new" / "a.film")
    assert name.endswith("a.film.gif")
    with Image.open(name) as image:
        assert image.n_frames == 5
        assert image.info["loop"] == 0
        seen = []
        for number in range(5):
            image.seek(number)
            page = np.asarray(image.convert("RGB")) / 255
            height, width = page.shape[:2]
            line = page[int(0.6 * height)]
            seen.append([tuple(np.round(line[int(x * width)])) for x in (0.25, 0.75)])
    assert [frame for frame, _ in seen] == colours
    assert [pooled for _, pooled in seen] == [(0, 1, 1)] * 2 + [(1, 0, 1)] * 3
