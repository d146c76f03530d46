"""Token ids and labels of training conversations, as recorded from the PLLaVA reference code, and where ours part."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from transformers import PreTrainedTokenizerFast

from reference_tables import DATA, EACH_SOURCE, read_table
from videopool.training_data import (
    IGNORED,
    Conversation,
    ConversationError,
    ConversationLayout,
    Round,
    encode_conversation,
)
from videopool.training_data.conversation import conversation_pieces

TURNS = ("USER:", "ASSISTANT:")


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast(
        tokenizer_file=str(DATA / "reference_tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def conversation_of(row):
    """A recorded case; where clip and question share a turn, the reference drops the message."""
    instruction = row["qa"][0].get("i", "")
    return Conversation(
        [Round(said["q"], said["a"]) for said in row["qa"]],
        row["system"] + (instruction + " " if instruction else ""),
        row["msg"] if row["mm_alone"] else "",
    )


def holds_a_turn(row):
    return any(turn in said[part] for turn in TURNS for said in row["qa"] for part in "qa")


@EACH_SOURCE
def test_ids_and_labels_equal_the_reference(source, shared, tokenizer):
    rows = read_table("train_preprocess", source, shared)
    equal = unlearned = 0
    for row in rows:
        length, layout = row["max_txt_l"], ConversationLayout(own_turn=row["mm_alone"])
        if all(label == IGNORED for label in row["labels"]):
            # The cut leaves nothing to learn. The reference trains on it, with a loss of NaN.
            with pytest.raises(ConversationError, match="leaves nothing of the answers"):
                encode_conversation(conversation_of(row), tokenizer, length, layout)
            unlearned += 1
        elif not holds_a_turn(row):
            encoded = encode_conversation(conversation_of(row), tokenizer, length, layout)
            expected = (row["input_ids"], row["labels"], row["attention_mask"])
            assert encoded.padded(length, tokenizer.pad_token_id) == expected, row["conversation_text"]
            equal += 1
    assert (len(rows), equal, unlearned) == ((21, 15, 2) if source == "part" else (40, 30, 3))


@EACH_SOURCE
def test_pieces_equal_the_reference(source, shared):
    for row in read_table("train_preprocess", source, shared):
        if not holds_a_turn(row):
            pieces = conversation_pieces(conversation_of(row), ConversationLayout(own_turn=row["mm_alone"]))
            assert [text for text, _ in pieces] == row["segments"]


@EACH_SOURCE
def test_a_turn_named_in_a_text_is_text(source, shared, tokenizer):
    compared = 0
    for row in read_table("train_preprocess", source, shared):
        if not holds_a_turn(row) or all(label == IGNORED for label in row["labels"]):
            continue
        layout = ConversationLayout(own_turn=row["mm_alone"])
        encoded = encode_conversation(conversation_of(row), tokenizer, row["max_txt_l"], layout)
        learned = [label for label in encoded.labels if label != IGNORED]
        answer = row["qa"][0]["a"] + "</s>"
        assert tokenizer.decode(learned).strip() == answer
        # The reference cuts the answer at the name within it and does not learn the name.
        recorded = [label for label in row["labels"] if label != IGNORED]
        assert "ASSISTANT:" in answer
        assert "ASSISTANT:" not in tokenizer.decode(recorded)
        compared += 1
    assert compared == (4 if source == "part" else 7)


TALK = Conversation([Round("Who is it?", "A dog"), Round("Where?", "On the street")], message="4 frames. ")


def test_message_is_kept_in_a_shared_turn():
    pieces = conversation_pieces(TALK, ConversationLayout(own_turn=False))
    assert pieces[2] == ("<image>4 frames.\nWho is it?</s>", False)
    assert [text for text, learned in pieces if learned] == ["A dog</s>", "On the street</s>"]


@pytest.mark.parametrize("own_turn", [True, False])
@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_a_round_without_a_question_has_no_turn_that_asks(own_turn, empty, tokenizer):
    """Wherever it stands: only the clip's turn may be without a question."""
    layout = ConversationLayout(own_turn=own_turn)
    for place in range(3):
        questions = ["Who is it?", "Where?", "When?"]
        questions[place] = empty
        talk = Conversation([Round(question, f"answer {n}") for n, question in enumerate(questions)])
        text = "".join(piece for piece, _ in conversation_pieces(talk, layout))
        turns = [turn.split("ASSISTANT:")[0] for turn in text.split("USER:")[1:]]
        assert all(turn.removesuffix("</s>").strip() for turn in turns)
        asked = sum(bool(question.strip()) for question in questions)
        assert len(turns) == asked + (own_turn or place == 0)
        assert text.count("ASSISTANT:") == 3
        assert encode_conversation(talk, tokenizer, 200, layout).learned > 3


def test_a_cut_keeps_what_is_left(tokenizer):
    whole = encode_conversation(TALK, tokenizer, 100)
    cut = encode_conversation(TALK, tokenizer, len(whole.input_ids) - 3)
    assert cut.input_ids == whole.input_ids[:-3]
    assert cut.labels == whole.labels[:-3]
    with pytest.raises(ConversationError, match="holds <image> 0 times"):
        encode_conversation(TALK, tokenizer, 3)
    with pytest.raises(ValueError, match="do not fit into 5"):
        whole.padded(5, 0)


def test_the_layout_can_be_evaluations(tokenizer):
    layout = ConversationLayout(user="USER: ", user_closing=" ", clip="<image>")
    assert [text for text, _ in conversation_pieces(TALK, layout)][-4:] == [
        "USER: ", "Where? ", "ASSISTANT:", "On the street</s>",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="<clip> is not a token"):
        encode_conversation(TALK, tokenizer, 100, ConversationLayout(clip="<clip>"))


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (Conversation([]), "has no round"),
        (Conversation([Round("q", " ")]), "empty answer"),
        (Conversation([Round("is this <image>?", "yes")]), "'<image>' stands in the text 'is this"),
        (Conversation([Round("q", "yes</s>no")]), "'</s>' stands in the text"),
        (Conversation([Round("q", "yes")], message="<s>"), "'<s>' stands in the text"),
    ],
)
def test_conversations_that_cannot_be_learned(tokenizer, talk, words):
    with pytest.raises(ConversationError, match=words):
        encode_conversation(talk, tokenizer, 100)


def test_what_is_given_is_not_learned_and_the_answer_goes_on_in_it():
    """With a tokenizer that marks where words begin: behind " (" the letter is no new word, as evaluation reads it."""
    letters = sorted(set("USER:ASTN ()Aredwhtisxn?abc<image>/"))
    vocabulary = {"<unk>": 0, "<image>": 1, "</s>": 2, "\u2581": 3} | {c: n for n, c in enumerate(letters, start=4)}
    model = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    model.pre_tokenizer = Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    layout = ConversationLayout(user="USER: ", user_closing=" ", own_turn=False)
    encoded = encode_conversation(Conversation([Round("is it ?", "A) red", " (")]), tokenizer, 200, layout)
    learned = [
        tokenizer.convert_ids_to_tokens(n)
        for n, label in zip(encoded.input_ids, encoded.labels, strict=True)
        if label != IGNORED
    ]
    assert learned[:2] == ["A", ")"]
    assert learned[-1] == "</s>"
    place = [label != IGNORED for label in encoded.labels].index(True)
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids[place - 1]) == "("
    alone = tokenizer("A) red", add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(alone[0]) != "A"  # else this test shows nothing
