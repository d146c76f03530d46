"""The synthetic benchmark: true answers, balanced questions, no leaks, the same every time."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.stats import binomtest

from videopool.paths import shipped
from videopool.shapes import clips, render
from videopool.shapes.clips import WorldError, WorldSettings, build, choose_questions, to_yuv420
from videopool.shapes.questions import ASK, caption, image_questions
from videopool.shapes.render import IGNORE, patch_labels, render_clip, render_frame, render_image
from videopool.shapes.scene import BACKGROUNDS, COLOURS, IMAGE_TASKS, SHAPES, TASKS, TASKS_OF, random_clip, random_image
from videopool.shapes.tokenizer import build_tokenizer
from videopool.video import open_clip


@pytest.fixture(scope="module")
def test_split():
    return choose_questions(WorldSettings())


def nearest_colour(pixel):
    return min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name], float) - pixel).sum()))


def test_pixels_show_what_the_tracks_say():
    """Centres have their object's colour, corners the background's, hidden objects are not there."""
    for seed, event in enumerate(["none", "blink", "change", "order"] * 3):
        clip = random_clip(np.random.default_rng(seed), event, movers=1, objects=3, scene_change=seed % 2 == 0)
        frames = render_clip(clip)
        for number in range(0, clip.frames, 5):
            for track in clip.tracks:
                pixel = frames[number, int(track.y[number]), int(track.x[number])].astype(float)
                ground = np.array(BACKGROUNDS[clip.backgrounds[number]], float)
                if track.visible[number]:
                    assert nearest_colour(pixel) == track.colours[number]
                else:
                    assert np.abs(pixel - ground).max() < 20


def plain_yuv420(frame):
    luma, blue, red = np.moveaxis(frame @ clips.YUV_FROM_RGB.T / 255.0 + clips.YUV_OFFSET, -1, 0)
    height, width = luma.shape
    halves = [c.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)).reshape(-1, width) for c in (blue, red)]
    return np.clip(np.rint(np.concatenate([luma, *halves])), 0, 255).astype(np.uint8)


def test_what_frames_share_is_kept_and_changes_none(monkeypatch):
    """Objects at rest and grounds, kept from frame to frame, are drawn as anew; the same of a short way to YUV."""
    scenes = [random_clip(np.random.default_rng(seed), "blink", 1, 4, seed % 2 == 0) for seed in range(4)]
    drawn = [render_clip(scene) for scene in scenes]
    for name in ("_covered", "_ground"):
        monkeypatch.setattr(render, name, getattr(render, name).__wrapped__)
    for scene, frames in zip(scenes, drawn, strict=True):
        assert np.array_equal(render_clip(scene), frames)
        for frame in (*frames[::5], np.random.default_rng(0).integers(0, 256, (32, 62, 3), np.uint8)):
            assert np.array_equal(to_yuv420(frame), plain_yuv420(frame))


def test_every_shape_looks_different():
    """Areas of the five shapes at one radius, from their formulas (pixels, anti-aliased)."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        image = random_image(rng, max_objects=1)
        (track,) = image.tracks
        background = np.array(BACKGROUNDS[image.backgrounds[0]], float)
        colour = np.array(COLOURS[track.colour], float)
        share = ((render_frame(image, 0) - background) @ (colour - background)) / (
            (colour - background) @ (colour - background)
        )
        area = share[share > 0.5].size / track.radius**2
        star = 5 * np.sin(np.pi / 5) * 1.15 * 0.42 * 1.15
        formula = {
            "circle": np.pi,
            "square": (2 * 0.86) ** 2,
            "cross": 2 * 2 * 0.68 - 0.68**2,
            "triangle": 3 * np.sqrt(3) / 4 * 1.22**2,
            "star": star,
        }
        assert area == pytest.approx(formula[track.shape], rel=0.1)


def test_answers_are_true_by_another_route(test_split):
    """Answers recomputed from the tracks, apart from the code that asked."""
    clips, chosen = test_split
    for index, question in chosen["object_count"]:
        assert int(question.answer) == len(clips[index].tracks)
    for index, question in chosen["existence"]:
        name = question.text.removeprefix("is there any ").removesuffix(" ?")
        names = {f"{c} {t.shape}" for t in clips[index].tracks for c in t.colours}
        assert (name in names) == (question.answer == "yes")
    for index, question in chosen["moving_direction"]:
        (track,) = [t for t in clips[index].tracks if f"the {t.shape} " in question.text]
        dx, dy = track.x[-1] - track.x[0], track.y[-1] - track.y[0]
        assert {"left": dx < -40, "right": dx > 40, "up": dy < -40, "down": dy > 40}[question.answer]
    for index, question in chosen["event_count"]:
        (track,) = [t for t in clips[index].tracks if f"the {t.shape} " in question.text]
        assert int(question.answer) == int(np.sum(np.diff(track.visible.astype(int)) == -1))
    for index, question in chosen["relation_vertical"]:
        words = question.text.split()
        y = {f"{t.colour} {t.shape}": t.y for t in clips[index].tracks}
        above = y[" ".join(words[2:4])] < y[" ".join(words[-3:-1])]
        assert np.all(above) if question.answer == "above" else not np.any(above)
    for index, question in chosen["event_order"]:
        first, last = sorted((t.change_frame, t.shape) for t in clips[index].tracks if t.change_frame is not None)
        assert question.answer == (first if "first" in question.text else last)[1]
    for index, question in chosen["scene_change"]:
        assert question.answer == f"{clips[index].backgrounds[0]} to {clips[index].backgrounds[-1]}"


@pytest.fixture(scope="module")
def events_split():
    return choose_questions(WorldSettings("events", clips=300, per_task=80))


def test_events_are_long_motions_and_one_thing_after_another(events_split):
    """Answers recomputed from the tracks: where a mover is late and early, which object is there first."""
    clips, chosen = events_split
    assert list(chosen) == list(TASKS_OF["events"])
    assert {len(rows) for rows in chosen.values()} == {80}
    for index, question in chosen["moving_direction"]:
        assert len(clips[index].tracks) <= 2
        (track,) = [t for t in clips[index].tracks if f"the {t.shape} " in question.text]
        dx, dy = track.x[-1] - track.x[0], track.y[-1] - track.y[0]
        assert {"left": dx < -60, "right": dx > 60, "up": dy < -60, "down": dy > 60}[question.answer]
    for index, question in chosen["appearance_order"]:
        first, second = sorted(clips[index].tracks, key=lambda t: int(np.flatnonzero(t.visible)[0]))
        assert question.answer == f"{first.shape} then {second.shape}"
        assert set(question.options) == {question.answer, f"{second.shape} then {first.shape}"}
        assert not (first.visible & second.visible).any()
        assert min(first.visible.sum(), second.visible.sum()) >= 7


def test_one_frame_and_the_mean_do_not_tell_the_order(events_split):
    """What a frame shows, and what all show together, is as often there with one order as with the other."""
    clips, chosen = events_split
    middle = Counter()
    for index, question in chosen["appearance_order"]:
        shown = [t.shape for t in clips[index].tracks if t.visible[clips[index].frames // 2]]
        middle[len(shown), bool(shown) and question.answer.startswith(shown[0])] += 1
        alphabetical = question.answer == min(question.options)
        middle["alphabetical", alphabetical] += 1
    for shown in (1, "alphabetical"):
        known, unknown = middle[shown, True], middle[shown, False]
        assert known + unknown < 10 or binomtest(known, known + unknown).pvalue > 0.001, middle


def test_image_tasks_have_one_answer_in_every_frame(test_split):
    """A question that one frame can answer gets the same answer from each frame alone."""
    clips, chosen = test_split
    for index, question in chosen["location_horizontal"]:
        name = " ".join(question.text.split()[2:4])
        (track,) = [t for t in clips[index].tracks if t.name == name]
        assert {("left" if x < 48 else "right") for x in track.x} == {question.answer}
        assert track.visible.all()


def test_tasks_are_equally_large_and_answers_even(test_split):
    _, chosen = test_split
    assert list(chosen) == list(TASKS)
    assert {len(rows) for rows in chosen.values()} == {160}
    for task, rows in chosen.items():
        chance = np.mean([1 / len(q.options) for _, q in rows])
        places = Counter((len(q.options), q.options.index(q.answer)) for _, q in rows)
        majority_place = sum(max(n for (s, _), n in places.items() if s == size) for size in {s for s, _ in places})
        assert majority_place / len(rows) <= chance + 0.02, task
        by_size = defaultdict(Counter)
        for _, question in rows:
            by_size[len(question.options)][question.answer] += 1
        majority = sum(max(counts.values()) for counts in by_size.values())
        assert majority / len(rows) <= chance + 0.06, (task, by_size)
        for _, question in rows:
            assert len(set(question.options)) == len(question.options)
            assert question.answer in question.options


def guess_from_words(question, seen, shown):
    """Naive Bayes over a question's words: the option that was most often right beside them when it was offered."""
    words = [*question.text.split(), "*"]
    odds = {o: sum(np.log((seen[w][o] + 1) / (shown[w][o] + 2)) for w in words) for o in question.options}
    return max(odds, key=odds.__getitem__)


def test_question_only_models_stay_at_chance(test_split):
    """Answers guessed from words alone, learned on the training split: no task is beaten."""
    _, train = choose_questions(WorldSettings(split="train", clips=2000, per_task=640))
    _, test = test_split
    for task, rows in test.items():
        seen: dict[str, Counter] = defaultdict(Counter)
        shown: dict[str, Counter] = defaultdict(Counter)
        for _, question in train[task]:
            words = [*question.text.split(), "*"]
            for word in words:
                for option in question.options:
                    shown[word][option] += 1
                seen[word][question.answer] += 1

        right = sum(guess_from_words(q, seen, shown) == q.answer for _, q in rows)
        chance = float(np.mean([1 / len(q.options) for _, q in rows]))
        p = binomtest(right, len(rows), chance, alternative="greater").pvalue
        assert p > 0.001, (task, right / len(rows), chance)


def test_splits_share_no_scene():
    def scenes(split, kind):
        clips, _ = choose_questions(WorldSettings(kind=kind, split=split, clips=60, per_task=1))
        return {
            tuple((t.shape, t.colour, round(float(t.x[0]), 3), round(float(t.y[0]), 3)) for t in c.tracks)
            for c in clips
        }

    sets = [scenes(split, kind) for split in ("train", "validation", "test") for kind in ("clips", "images")]
    assert all(len(s) == 60 for s in sets)
    assert len(set().union(*sets)) == sum(len(s) for s in sets)


def test_files_are_reproducible_and_real(tmp_path):
    settings = WorldSettings(clips=12, per_task=1)
    first, second = build(settings, tmp_path / "a"), build(settings, tmp_path / "b")
    for name in [f"json/{task}.json" for task in TASKS] + ["video/00000.mp4", "video/00011.mp4"]:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    clips, _ = choose_questions(settings)
    with open_clip(first / "video" / "00007.mp4") as clip:
        assert (clip.info.num_frames, clip.info.fps) == (32, 8.0)
        read = clip.frames(range(32)).astype(int)
    assert np.abs(read - render_clip(clips[7])).mean() < 4
    rows = json.loads((first / "json" / "event_order.json").read_text())
    assert set(rows[0]) == {"question_id", "video", "question", "candidates", "answer"}
    assert build(settings, tmp_path / "a") == first  # found, not made again


def test_impossible_settings_are_told(tmp_path):
    with pytest.raises(WorldError, match="ask for more clips"):
        build(WorldSettings(clips=5, per_task=100), tmp_path)
    with pytest.raises(WorldError, match="choose one of train, validation, test"):
        build(WorldSettings(split="nowhere"), tmp_path)
    assert not list(tmp_path.iterdir())


def sizes_of_studies():
    """Numbers of clips and of questions per task that shipped studies ask the bundled benchmark for."""
    own = (OmegaConf.load(path).get("benchmark") or {} for path in shipped("experiments").glob("*.yaml"))
    return sorted({(each.clips, each.per_task) for each in own if "per_task" in each})


@pytest.mark.parametrize(("clips", "per_task"), sizes_of_studies())
def test_the_clips_of_a_study_have_its_questions(clips, per_task):
    _, chosen = choose_questions(WorldSettings(clips=clips, per_task=per_task))
    assert {len(rows) for rows in chosen.values()} == {per_task}


def test_tokenizer_knows_every_word_of_the_world(test_split):
    tokenizer = build_tokenizer()
    rng = np.random.default_rng(0)
    texts = [caption(random_image(rng)) for _ in range(200)]
    for rows in test_split[1].values():
        texts += [" ".join([question.text, *question.options]) for _, question in rows]
    for text in texts:
        assert tokenizer.unk_token_id not in tokenizer.encode(text), text
    assert tokenizer.encode("USER: <image>\nColor?") == tokenizer.encode("user : <image> colour ?")
    assert tokenizer.decode(tokenizer.encode("red circle", add_special_tokens=False)) == "red circle"


def test_patch_labels_agree_with_the_picture():
    rng = np.random.default_rng(1)
    for _ in range(30):
        image = random_image(rng)
        pixels, labels = render_image(image), patch_labels(image, 8)
        for track in image.tracks:
            row, column = int(track.y[0] // 8), int(track.x[0] // 8)
            assert labels["shape"][row, column] == SHAPES.index(track.shape)
            assert labels["colour"][row, column] == list(COLOURS).index(track.colour)
            assert labels["is_centre"][row, column] == 1
        empty = np.argwhere(labels["shape"] == len(SHAPES))
        for row, column in empty[:: max(1, len(empty) // 10)]:
            patch = pixels[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].reshape(-1, 3)
            ground = np.array(BACKGROUNDS[image.backgrounds[0]], float)
            assert np.abs(np.median(patch, axis=0) - ground).max() < 15
        assert set(np.unique(labels["is_centre"])) <= {0, 1, IGNORE}


def test_image_questions_cover_the_image_tasks():
    rng = np.random.default_rng(2)
    tasks = Counter(q.task for _ in range(100) for q in image_questions(random_image(rng), rng))
    assert set(tasks) == set(IMAGE_TASKS)
    assert set(IMAGE_TASKS) < set(ASK)
