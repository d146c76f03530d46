"""The toy model's tokenizer: one token per word, over the words of the synthetic benchmark and its prompts."""

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from videopool.shapes.scene import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
LETTERS = tuple("abcdefgh")
# The words of questions, answers and captions, then words for prompts and for questions yet to come.
WORDS = """
    user assistant system question options option answer best the only give describe image video ( ) . , : ? ; - '
    " 0 1 2 3 4 5 6 7 8 9 yes no is are there how many what which where objects object shapes shape colour
    background at or of on in to and with left right top bottom above below move moves moving moved change changes
    changed become have has first last times time does do blink blinks up down before after then next second third
    an any this that it its it's between near far big small large same other one two three four appears appear
    disappears disappear stops stop starts start fast slow still frame frames why who when word phrase short
    letter correct choose from clip picture scene see happens happen
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that lower-cases, splits at spaces and punctuation, and begins with <s>; unknown words are <unk>."""
    words = [*SPECIAL, *LETTERS, *WORDS.split(), *SHAPES, *COLOURS, *BACKGROUNDS, *DIRECTIONS]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\bcolor"), "colour")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"], padding_side="left", model_max_length=4096,
    )  # fmt: skip
