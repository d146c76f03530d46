"""Instruction files to conversations: what is read, what is refused and why; held-out slices; mixtures."""

import json
from collections import Counter

import pytest

from videopool.benchmarks import Prompt
from videopool.shapes.tokenizer import build_tokenizer
from videopool.shapes.training import load_world
from videopool.training_data import (
    Conversation,
    ConversationLayout,
    Example,
    Mixture,
    Round,
    Source,
    TrainingDataError,
    encode_conversation,
    load_llava,
    load_videochat2,
)
from videopool.training_data.conversation import IGNORED


def said(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


@pytest.fixture
def written(tmp_path):
    def write(entries):
        (tmp_path / "data.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
        return tmp_path / "data.json"

    return write


def test_llavas_layout(written, tmp_path):
    source = load_llava(
        written(
            [
                {"id": "a", "video": "v/a.mp4", "conversations": said("<video>\nWho?", "A dog.", "Where?", "Here.")},
                {"id": "a", "image": "b.jpg", "conversations": said("What is it?\n<image>", "A cat <b>.")},
                {"image": ["c.jpg"], "conversations": [{"from": "system", "value": "Be kind."}, *said("<image>", "C")]},
            ]
        ),
        tmp_path / "media",
        name="mine",
    )
    first, second, third = source.examples
    assert (first.kind, first.media, first.name) == ("video", tmp_path / "media/v/a.mp4", "v/a.mp4")
    assert first.conversation == Conversation([Round("Who?", "A dog."), Round("Where?", "Here.")])
    assert (second.kind, second.conversation) == ("image", Conversation([Round("What is it?", "A cat <b>.")]))
    assert third.conversation == Conversation([Round("", "C")], "Be kind. ")
    assert len({example.id for example in source.examples}) == 3


ONE = ["<image>\nq", "a"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"conversations": said(*ONE)}, "there is no medium"),
        ({"image": "", "conversations": said(*ONE)}, "there is no medium"),
        ({"image": "a", "video": "b", "conversations": said(*ONE)}, "both a 'video' and an 'image'"),
        ({"image": ["a", "b"], "conversations": said(*ONE)}, "2 of 'image', but there is a place for one"),
        ({"image": 3, "conversations": said(*ONE)}, "must name a file, got 3"),
        ({"image": "../a", "conversations": said(*ONE)}, "leads out of"),
        ({"image": "a", "conversations": said("q", "a")}, "holds no placeholder; <image> is expected"),
        ({"video": "a", "conversations": said(*ONE)}, "is a video, but the first question holds <image>"),
        ({"image": "a", "conversations": said("<image><image> q", "a")}, "holds <image>, <image>; one <image>"),
        ({"image": "a", "conversations": said("<image> q", "a", "<image>", "b")}, "question 1 holds <image>"),
        ({"image": "a", "conversations": said("<audio> q", "a")}, "<audio> in question 0 is no placeholder"),
        ({"image": "a", "conversations": said("<image> q", " ")}, "has an empty answer"),
        ({"image": "a", "conversations": said("<image> q")}, "1 turns; questions and answers in turn"),
        ({"image": "a", "conversations": [*said(*ONE)[::-1]]}, "turns of 'gpt' and 'human'"),
        ({"image": "a", "conversations": "q"}, "'conversations' must be a list"),
        ({"image": "a", "conversations": said("<image>", 4)}, "'value' must be text, got 4"),
        ("text", "an object is expected"),
    ],
)
def test_what_llavas_layout_refuses(written, tmp_path, entry, words):
    good = {"image": "a.jpg", "conversations": said(*ONE)}
    source = load_llava(path := written([good, entry]), tmp_path, name="mine")
    assert len(source.examples) == 1
    (line,) = source.refused
    assert line.startswith(f"{path}, entry 1: ")
    assert words in line
    assert "\n" not in line


def test_videochat2s_layout(written, tmp_path):
    path = written(
        [
            {"video": "a.mp4", "QA": [{"i": "Look.", "q": "Who?", "a": "A dog."}, {"q": "", "a": "It runs."}]},
            {"image": "b.jpg", "QA": [{"i": "", "q": "", "a": "A cat."}]},
            {"video": "c.mp4", "start": 1, "end": 2.5, "QA": [{"q": "What?", "a": "Rain."}]},
            {"video": "d.mp4", "QA": [{"q": "What?", "a": ""}]},
            {"video": "e.mp4", "QA": []},
            {"QA": [{"q": "What?", "a": "x"}]},
            {"video": "f.mp4", "QA": [{"q": "<Video></Video> What?", "a": "x"}]},
            {"video": "g.mp4", "start": "1 s", "QA": [{"q": "What?", "a": "x"}]},
        ]
    )
    source = load_videochat2(path, tmp_path, name="mine", weight=2)
    first, second, third = source.examples
    assert first.conversation == Conversation([Round("Who?", "A dog."), Round("", "It runs.")], "Look. ")
    assert (second.kind, second.conversation) == ("image", Conversation([Round("", "A cat.")]))
    assert (third.start, third.end, source.weight) == (1, 2.5, 2)
    told = "\n".join(source.refused)
    for words in ("3: the question 'What?' has an empty answer", "4: the field 'QA'", "5: there is no medium"):
        assert f"entry {words}" in told
    assert "<Video> in the question" in told
    assert "'start' must be a number of seconds" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Expecting"),
        ("{}", "a list of entries is expected"),
        ("[]", "there is no usable example"),
        ('[{"QA": []}]', "the first of 1 refused: "),
    ],
)
def test_a_file_that_cannot_be_used(written, tmp_path, content, words):
    with pytest.raises(TrainingDataError, match=words):
        load_videochat2(written(content), tmp_path, name="mine")
    with pytest.raises(TrainingDataError, match=r"training_data\.sources\.mine: .*No such file"):
        load_llava(tmp_path / "none.json", tmp_path, name="mine")


@pytest.mark.parametrize("limit", [0, -1, "x", True])
def test_a_limit_is_a_number_of_entries(written, tmp_path, limit):
    path = written([{"image": "a.jpg", "conversations": said(*ONE)}] * 3)
    with pytest.raises(TrainingDataError, match=r"training_data\.sources\.mine\.limit"):
        load_llava(path, tmp_path, name="mine", limit=limit)
    assert len(load_llava(path, tmp_path, name="mine", limit=2).examples) == 2


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "x", True])
def test_a_weight_is_a_number_above_nothing(written, tmp_path, weight):
    with pytest.raises(TrainingDataError, match="give a number above 0"):
        load_llava(written([{"image": "a.jpg", "conversations": said(*ONE)}]), tmp_path, name="mine", weight=weight)


PLAIN = Prompt("USER: {image}\n{question} ASSISTANT:", "{question} {options}", "({letter}) {text}", " ", " (", "d")


def test_the_embedded_world_asks_as_its_evaluation_does(data_dir):
    """Training reads, token by token, the prompt that evaluation puts, and learns what stands behind it."""
    source = load_world(data_dir / "shapes", "world", PLAIN, clips=60, per_task=8, letters=0.5, rounds=3)
    tokenizer = build_tokenizer()
    layout = ConversationLayout(user="USER: ", user_closing=" ", own_turn=False)
    by_letter = 0
    for example in source.examples:
        assert example.media.is_file()
        assert 1 <= len(example.conversation.rounds) <= 3
        first = example.conversation.rounds[0]
        encoded = encode_conversation(Conversation([first]), tokenizer, 200, layout)
        if first.given:
            asked = tokenizer.encode(f"USER: <image>\n{first.question} ASSISTANT: (")
            options = first.question.split("? ")[1].lower().split(" (")
            assert first.answer[3:] in " ".join(options)
            by_letter += 1
        else:
            asked = tokenizer.encode(PLAIN.text(first.question))
        assert encoded.input_ids[: len(asked)] == asked
        assert [label != IGNORED for label in encoded.labels].index(True) == len(asked)  # the answer begins there
        assert encoded.learned == len(tokenizer.encode(first.answer, add_special_tokens=False)) + 1
    assert 0.3 < by_letter / len(source.examples) < 0.7
    again = load_world(data_dir / "shapes", "world", PLAIN, clips=60, per_task=8, letters=0.5, rounds=3)
    assert again.digest == source.digest
    few = load_world(data_dir / "shapes", "world", PLAIN, clips=60, per_task=8, tasks=["moving_direction"])
    assert sum(len(example.conversation.rounds) for example in few.examples) == 8
    with pytest.raises(TrainingDataError, match="no flying; there are"):
        load_world(data_dir / "shapes", "world", PLAIN, clips=60, per_task=8, tasks=["flying"])


def made(name, count, per_clip=1, weight=1.0):
    talk = Conversation([Round("q", "a")])
    examples = [
        Example(f"{clip}/{n}", "x", f"{name}{clip}", "video", talk, "here")
        for clip in range(count)
        for n in range(per_clip)
    ]
    return Source(name, examples, (), weight)


def test_a_held_out_slice_shares_no_clip():
    kept, held = made("a", 50, per_clip=3).split(0.1, 7)
    assert len({example.name for example in kept.examples}) == 45
    assert len(kept.examples) == 135
    names = [example.name for example in held]
    assert not {example.name for example in kept.examples} & set(names)
    assert Counter(Counter(names).values()) == {1: 3, 2: 2}  # one of each clip before a second of any
    larger = made("a", 51, per_clip=3).split(0.1, 7)[1]
    assert len({example.name for example in larger} & set(names)) >= 4  # a clip's draw depends on itself alone
    assert made("a", 5).split(0, 7)[1] == []
    with pytest.raises(TrainingDataError, match="leaves nothing to train on"):
        made("a", 1).split(0.1, 7)


def test_epochs_show_sources_by_weight_and_nothing_by_chance():
    mixture = Mixture([made("a", 10, weight=0.5), made("b", 6, weight=2), made("c", 4)], seed=3)
    stream = [mixture.at(place) for place in range(mixture.length(4))]
    assert mixture.length(4) == 4 * (5 + 12 + 4)
    for epoch in range(4):
        shown = Counter(example.name for at, example in stream if at == epoch)
        assert sum(n for name, n in shown.items() if name[0] == "a") == 5
        assert all(shown[f"b{i}"] == 2 for i in range(6))
        assert all(shown[f"c{i}"] == 1 for i in range(4))
    for pair in ((0, 1), (2, 3)):  # a half of an epoch's examples, and the other half in the next
        assert {e.name for at, e in stream if at in pair and e.name[0] == "a"} == {f"a{i}" for i in range(10)}
    orders = [[example.name for at, example in stream if at == epoch] for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    same = Mixture([made("a", 10, weight=0.5), made("b", 6, weight=2), made("c", 4)], seed=3)
    places = [70, 3, 40, 5, 83, 0]
    assert [same.at(place)[1].id for place in places] == [stream[place][1].id for place in places]
    other = Mixture([made("a", 10, weight=0.5), made("b", 6, weight=2), made("c", 4)], seed=4)
    assert [other.at(p)[1].name for p in range(21)] != orders[0]


def test_weights_are_positive():
    with pytest.raises(TrainingDataError, match=r"sources\.a\.weight=0"):
        made("a", 3, weight=0)
