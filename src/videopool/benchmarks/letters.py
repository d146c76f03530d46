"""The option that a generated answer names: read strictly, so that nothing is guessed.

A *claim* says which option is the answer: a letter alone or in front, in brackets or bold, after "answer is", or an
option's whole text. A *mention* only speaks of an option. An answer is parsed if all its claims name one option and
it mentions no other. Blocks of thoughts do not count.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from videopool.benchmarks.scoring import LETTERS, normalise

MOST = 64  # letters whose surroundings are examined
NEAR = 200  # characters examined beside a letter

# Form: removed, or replaced by plain text, before anything is read.
_THINK = r"(?:think|thinking|thought|reasoning)"
_THOUGHTS = re.compile(rf"<({_THINK})>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OPEN_THOUGHTS = re.compile(rf"<{_THINK}>.*\Z", re.DOTALL | re.IGNORECASE)
# Other kinds of brackets, quotes, dashes and commas, to ASCII.
_ASCII = str.maketrans(
    "\u3010\u3011\u300c\u300d\u300e\u300f\u3008\u3009\u300a\u300b\u201c\u201d\u2018\u2019\u2013\u2014\u2212\u3001\u3002",
    "()()()()()\"\"''---,.",
)
_TAG = r"(?:final[\s_-]*)?(?:answer|ans|option|choice)\s*>"
_LATEX = r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|rm|bf)\s*\{([^{}]*)\}"
# Markup, and the plain text for it, in order.
_PLAIN_FORM = (
    (r"<\|[^|<>]*\|>|</?s>|<(?:eos|end_of_turn|pad)>|\[/?INST\]", " "),
    (_LATEX, r"\1"),
    (_LATEX, r"\1"),  # nested
    (r"\\f?box(?:ed)?\s*\{([^{}]*)\}", r"\nAnswer: (\1)\n"),
    (r"\\[()\[\]]|\$", ""),
    (rf"(?i)<\s*{_TAG}", "\nAnswer: "),
    (rf"(?i)<\s*/\s*{_TAG}", "\n"),
    (r"(?is)<(b|i|u|s|em|strong|p|span|code|pre)>(.*?)</\1>", r"**\2**"),
    (r"(?<!\w)(\*{1,3}|_{1,3}|`{1,3}|\"|')\s*[(\[]?([A-Za-z])[)\]]?\s*[.:,)]?\s*\1(?!\w)", r"(\2)"),
    (r"[*`]", ""),
    (r"(?m)^[ \t]*(?:[>#•*+-]+[ \t]+)+", ""),  # marks of lists and quotes
    (r"(?<!\w)_+|_+(?!\w)", ""),
)

# Claims.
_GAP = r"[\s:=\"'`>-]*"
_HEAD = (
    r"\b(?:answer|ans\.?|option|choice|letter|choose|chose|select|selected|pick|picked|go with|going with|it is|it's"
    r"|i (?:think|believe|say|guess))(?!\w)"
)
_FILLER = (
    r"(?:is|are|was|would|should|must|will|be|to|the|this|that|question|option|choice|answer|letter|correct|right|best"
    r"|most|likely|probably|definitely|clearly|therefore|here|it|it's|with|for|final|my)"
)
_PHRASE = re.compile(
    rf"{_HEAD}(?:{_GAP}\b{_FILLER}\b){{0,8}}{_GAP}(?P<open>[(\[{{<]?)\s*(?P<letter>[A-Za-z])(?![\w'])", re.I
)
_NAMING = re.compile(r"(?:option|choice|letter)\W*$", re.I)  # "option B shows ...": a letter follows for sure
_SAYS = re.compile(
    r"\b(?:answer|ans|option|choice)\b(?:[^\n:.]{0,40}?\b(?:is|would be|must be|should be)\b\s*:?|\s*[:=])[\s\"'(]*"
    r"(?=(?P<rest>[^\n]+))",
    re.I,
)
_BRACKETED = re.compile(r"(?<!\w)[(\[{<]\s*([A-Za-z])\s*(?:[)\]}>]|[.:]\s)")
_LEAD = re.compile(
    r"^\s*[(\[]?\s*(?P<letter>[A-Za-z])\s*(?P<mark>[)\]]|[.:,](?=\s|$)|\s[-](?=\s)|[-](?=\s)|!?\s*$)", re.M
)
_LEAD_BARE = re.compile(r"^\s*(?P<letter>[A-Za-z])(?P<mark>[.:\s(-]+)(?P<rest>[^\n]+)", re.M)
_REASONS = r"(?:because|since|due to|as (?:it|the|he|she|they|there|this|we)\b)"
_REASON = re.compile(_REASONS, re.I)
_VERDICT = re.compile(r"^(?:is|would be|must be|should be|seems) (?:the )?(?:correct|right|best|most \w+|answer)", re.I)
_JOINED = re.compile(
    r"\W*(?:or|and|nor|vs|because|since|but|not|rather|instead|then|if|unless|answer|option|choice|the|i)\b", re.I
)
_SPEAKS = re.compile(r"\s+(?:is|are|was|because|since|shows?|would|could|can|seems?|does|has)\b")
_ENDS = re.compile(r"\s*(?:$|[.,:;)\]}>!\"'<]|-\s|\n)")
_CAN_FOLLOW_A = re.compile(
    r"\s*(?:because|since|due to|is (?:the )?(?:correct|right|best|answer)|or\b|and [A-Z]\b)", re.I
)

# Words that turn a claim into a mention.
_NOT_BEFORE = re.compile(
    r"(?:\bnot\b|n't\b|\bcannot\b|\bnever\b|\bneither\b|\bnor\b|\bexcept\b|\bthan\b|\binstead of\b|\bexclud\w+"
    r"|\bwrong\b|\bincorrect\b|\beliminat\w+|\bruled? out\b|\bunlikely\b|\beither\b|\bif\b)[^.!?;,\n]{0,60}$",
    re.I,
)
_NOT_AFTER = re.compile(
    r"^[\s)\]\"':-]*(?:(?:is|was|are|would be|can be|could be|can|could|does|do|did|has|seems|looks|appears|might be"
    r"|may be)\s+)?(?:also |clearly |definitely |probably |certainly |simply )?"
    r"(?:not\b|cannot|can't|isn't|wasn't|doesn't|n't|wrong|incorrect|false|unlikely|ruled out|eliminated|excluded"
    r"|impossible|out\b)"
    r"|^[^\w\n]{0,3}?(?:(?:or|and|nor|vs|versus)\b|/|&)",
    re.I,
)
_HEADS = re.compile(r"\b(?:the )?(?:correct |right |best |final )?(?:answer|option|choice|i choose)\b(?: is)?", re.I)
_JOINTS = "or|and|but|not|no|nor|also|else|maybe|because|rather|than|instead|of|vs|wait"
_MORE = re.compile(r"^\W*(?:(?:or|and|/|&|but not|not|nor|,)\s*)?(?:also |maybe |perhaps )?")


def without_thoughts(text: str) -> str:
    """A reply without its thoughts; "" if it ends within them."""
    text = re.split(rf"</{_THINK}>", _THOUGHTS.sub(" ", text), flags=re.IGNORECASE)[-1]
    return _OPEN_THOUGHTS.sub(" ", text)


def parse_letter(answer: str, options: Sequence[str]) -> int | None:
    """The place of the option that a generated answer names; None if it names none, or more than one.

    Of options with the same text, the first stands for all of them.
    """
    text = _plain(answer)
    whole = _same_text(text, options)
    claims = set(_texts(text, options))
    mentions = {*_bare(text, options), *_parts(text, options)}
    lettered: set[int] = set()
    for letter, start, end, sure in _letters(text, options):
        place = _place(letter)
        claimed = sure and not _denied(text, start, end, options[place] if place < len(options) else "")
        (claims if claimed else mentions).add(place)
        lettered.add(place)
    exact = _folded(text).rstrip(" .!") in map(_folded, options)
    if not exact and re.search(r"(?<![\w'])[Aa]\s*(?:[^\w\s]|$)", text):  # no article
        lettered.add(0)
    if whole is not None and all(place == whole or place >= len(options) for place in lettered):
        return whole  # whatever words its text has
    named = {options.index(options[place]) if place < len(options) else place for place in claims | mentions}
    if len(named) != 1 or not claims or whole is not None:
        return None
    (place,) = named
    return None if place >= len(options) or _contradicts(text, options, place) else place


def _place(letter: str) -> int:
    return LETTERS.index(letter.upper())


def _plain(answer: str) -> str:
    """The answer without thoughts, markup, and wide or invisible characters."""
    text = unicodedata.normalize("NFKC", answer)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").translate(_ASCII)
    text = without_thoughts(text)
    for pattern, replacement in _PLAIN_FORM:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def _same_text(text: str, options: Sequence[str]) -> int | None:
    """The option that equals a text, or each of its lines; None if there is none, or several that differ."""
    places = {_equal(line, options) for line in text.splitlines() if line.strip()}
    whole = _equal(text, options)
    return places.pop() if whole is None and len(places) == 1 else whole


def _equal(text: str, options: Sequence[str]) -> int | None:
    if len(text) > 2 * max(map(len, options), default=0) + 100:
        return None
    for form in (str.strip, _folded, normalise):
        own = form(text)
        if alike := [place for place, option in enumerate(options) if form(option) == own != ""]:
            return alike[0] if len({options[place] for place in alike}) == 1 else None
    return None


@lru_cache(maxsize=4096)
def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _denied(text: str, start: int, end: int, option: str) -> bool:
    """Whether the words around a letter deny it. "B) not moving" denies nothing if that is option B."""
    before, after, own = text[max(0, start - NEAR) : start], text[end : end + NEAR], normalise(option)
    repeated = own and f"{normalise(after)} ".startswith(f"{own} ")
    return bool((not repeated and _NOT_AFTER.match(after)) or _NOT_BEFORE.search(before))


def _letters(text: str, options: Sequence[str]) -> Iterator[tuple[str, int, int, bool]]:
    """Letters in the form of claims: letter, its start and end, and whether it is a claim for sure."""
    words = re.findall(r"\w+", text)
    if words and re.fullmatch("[A-Za-z]", words[0]) and len({word.upper() for word in words}) == 1:
        yield words[0], 0, len(text), not re.search(r"\?|\.\.", text)
        return
    for match in _BRACKETED.finditer(text):
        yield match[1], match.start(), match.end(), True
    for match in _LEAD.finditer(text):
        letter, mark = match["letter"], match["mark"].strip()
        # At the end of a line, before a word in lower case, it may be an article.
        wraps = letter in "AaI" and not mark and re.match(r"[ \t]*\n[ \t]*[a-z]", text[match.end("letter") :][:NEAR])
        yield letter, match.start(), match.end(), not wraps and (letter.isupper() or mark not in (",", "-"))
    for match in _LEAD_BARE.finditer(text):
        letter, rest = match["letter"], match["rest"]
        verdict = _VERDICT.match(rest) and letter.isupper()
        if _REASON.match(rest) or verdict or _same_text(rest.strip("()"), options) == _place(letter):
            yield letter, match.start(), match.end("letter"), True
    for match in _PHRASE.finditer(text):
        if match["open"]:
            continue  # a bracketed letter, seen already, or a word in brackets
        letter, after = match["letter"], text[match.end("letter") : match.end("letter") + NEAR]
        named = bool(_NAMING.search(text[match.start() : match.start("letter")]))
        follows = _REASON.match(after.lstrip()) or _VERDICT.match(after.lstrip()) or (letter.isupper() and named)
        if letter in "aAI":
            follows = letter == "A" and _CAN_FOLLOW_A.match(after)
        sure = bool(_ENDS.match(after) or follows)
        if sure or named:
            yield letter, match.start(), match.end("letter"), sure


def _bare(text: str, options: Sequence[str]) -> Iterator[int]:
    """Options of lone letters that are no article, no "I", and no word of an option."""
    words = {word.upper() for o in options for word in re.findall(r"\b[A-Za-z]\b", o) if len(o.strip()) > 1} - {"A"}
    for match in re.finditer(r"(?<![\w'.])([A-Za-z])(?![\w'])(?!\.\w)", text):
        letter, after = match[1], text[match.end() : match.end() + NEAR]
        before_word = re.match(r"[ \t]+\w|[ \t]*\n[ \t]*[a-z]", after) and not _JOINED.match(after)
        word = letter in "Iia" or letter.upper() in words or (letter == "A" and not _SPEAKS.match(after))
        if _place(letter) < len(options) and not (before_word and word):
            yield _place(letter)


def _texts(text: str, options: Sequence[str]) -> Iterator[int]:
    """Options whose whole text is a line, a sentence, or comes after "answer is"."""
    pieces = [piece for line in text.splitlines() for piece in (line, *re.split(r"(?<=[.!?;:])\s+", line))]
    pieces += [match["rest"] for match in _SAYS.finditer(text)]
    for piece in pieces:
        without = re.sub(r"^\s*[(\[]?\s*[A-Za-z]\s*[)\].:,-]+\s*", "", piece)
        for form in {piece, without, re.split(r"[.;]\s", f"{piece} ")[0]}:
            if len(form.strip()) > 1 and (place := _same_text(form, options)) is not None:
                yield place


def _parts(text: str, options: Sequence[str]) -> Iterator[int]:
    """Options whose whole text stands between two commas, an "or" or the like."""
    joints = _joints(tuple(options))
    for option in options:
        if len(joints.split(option)) > 1:
            text = re.sub(rf"(?<!\w){re.escape(option)}(?!\w)", "", text, flags=re.I)
    plain = text
    for _, start, end, _ in [*_letters(text, options)][:MOST]:
        plain = plain[:start] + "\n" * (end - start) + plain[end:]
    answers = [joints.split(match["rest"])[0] for match in _SAYS.finditer(text)]
    for part in [*joints.split(_HEADS.sub("\n", plain)), *answers]:
        if len(part.strip()) > 1 and (place := _equal(part, options)) is not None:
            yield place


@lru_cache(maxsize=256)
def _joints(options: tuple[str, ...]) -> re.Pattern[str]:
    """Separators of the parts of a text: signs, and words that are no option themselves."""
    words = "|".join(word for word in _JOINTS.split("|") if word not in {normalise(option) for option in options})
    return re.compile(rf"[.!?;:,/()\n]|->|\b(?:{words})\b", re.I)


def _contradicts(text: str, options: Sequence[str], place: int) -> bool:
    """Whether the text after an option's letter begins with, or adds, another option's text."""
    own = normalise(options[place])
    others = {normalise(o) for o in options if o != options[place]} - {own, ""}
    letter = rf"(?:{LETTERS[place]}(?![\w'])|{LETTERS[place].lower()}(?=\s*[).:\]]))"
    for line in text.splitlines():
        match = re.search(rf"(?<![\w']){letter}[\s)\]}}>.:,=-]*(?P<rest>.*)", line)
        if not match:
            continue
        sentence = re.split(rf"[.!?;]\s|\b{_REASONS}", match["rest"] + " ", flags=re.I)[0]
        rest = f"{normalise(sentence)} "
        starts = max((o for o in (own, *others) if o and rest.startswith(f"{o} ")), key=len, default="")
        if starts == own != "":
            follows = f"{normalise(_MORE.sub('', sentence[_length(sentence, own) :]))} "
            if any(follows.startswith(f"{o} ") for o in others):
                return True
        elif starts or any(f" {o} " in f" {rest}" for o in others if f" {o} " not in f" {own} "):
            return True
    return False


def _length(sentence: str, own: str) -> int:
    """The length of an option's text at the start of a sentence."""
    ends = (end for end in range(1, len(sentence) + 1) if not sentence[end : end + 1].isalnum())
    return next((end for end in ends if normalise(sentence[:end]) == own), len(sentence))
