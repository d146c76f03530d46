"""What sharing can save at most, from counts of tokens and operations.

A clip's prompt is a prefix of P positions (text, then visual tokens) and a question of q behind it. Read with
its whole prompt, each question costs P + q positions; behind a shared prefix it costs q, and the clip P once.
"""

from collections.abc import Sequence

from videopool.models import ModelShape, prefill_flops


def token_ratio(prefix: int, questions: Sequence[int]) -> float:
    """Positions read without a shared prefix over positions read with one.

    Args:
        prefix: P.
        questions: q of each question of a clip.
    """
    return sum(prefix + size for size in questions) / (prefix + sum(questions))


def shared_share(shape: ModelShape, prefix: int, questions: Sequence[int]) -> float:
    """The share of the language model's operations that is left once a clip's prefix is read once.

    Counted by prefill_flops: a question behind P positions costs what P + q cost more than P.
    """
    alone = [prefill_flops(shape, prefix + size) for size in questions]
    once = prefill_flops(shape, prefix)
    return (once + sum(whole - once for whole in alone)) / sum(alone)
