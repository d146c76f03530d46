"""Words: what was typed on the command line.

Made into words that Hydra reads, or refused in one line with the words that were probably meant.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from videopool.commandline.groups import Groups
from videopool.commandline.top_level import PATHS
from videopool.errors import did_you_mean

# Flags, and whether a value follows.
FLAGS = {
    **dict.fromkeys(("-h", "--help", "-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help"), False),
    **dict.fromkeys(("-q", "--quiet", "-v", "--verbose", "-V", "--version"), False),
    **dict.fromkeys(("-sc", "--shell-completion", "-i", "--info"), False),
    **dict.fromkeys(("-c", "--cfg", "-p", "--package", "-cn", "--config-name", "-cp", "--config-path"), True),
    **dict.fromkeys(("-cd", "--config-dir", "--experimental-rerun"), True),
}  # fmt: skip
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
FUNCTIONS = r"(choice|glob|range|interval|shuffle|sort|tag|str|int|float|bool|json_str|extend_list)\("


def parted(words: Sequence[str]) -> tuple[list[str], list[str], str]:
    """Flags with their values, all other words, and the comment that was pasted after them.

    Raises ValueError for an unknown flag.
    """
    flags: list[str] = []
    others: list[str] = []
    for number, word in enumerate(words):
        before = words[number - 1] if number and words[number - 1] in flags[-1:] else ""
        if FLAGS.get(before) or (before in ("-i", "--info") and word in INFO):
            flags.append(word)
        elif word.startswith("#"):  # zsh passes on what bash takes for a comment
            return flags, others, " ".join(words[number:])
        elif word.startswith(tuple(DASHES)):
            bare = word.lstrip(DASHES + "-")
            raise ValueError(f"{word}: this begins with a long dash; write {'-' if len(bare) == 1 else '--'}{bare}")
        elif word.startswith("-") and word != "-":
            flags.append(_flag(word, words[number + 1 :]))
        else:
            others.append(word)
    return flags, others, ""


def value_of(flags: Sequence[str], *names: str) -> list[str]:
    """The values of a flag, whichever of its names it has."""
    after = [flags[place + 1] for place, flag in enumerate(flags[:-1]) if flag in names]
    return after + [flag.partition("=")[2] for flag in flags if flag.partition("=")[0] in names and "=" in flag]


def _flag(word: str, following: Sequence[str]) -> str:
    """The flag's full name. Raises ValueError if there is none."""
    name, equals, value = word.partition("=")
    if name in FLAGS:
        return word
    full = [flag for flag in FLAGS if name.startswith("--") and len(name) > 3 and flag.startswith(name)]
    if len(full) == 1:
        return full[0] + equals + value
    if (bare := name.lstrip("-")) in Groups().names() or "." in bare:
        value = value or next(iter(following), "NAME")
        raise ValueError(f"{word}: keys have no dashes and an equals sign; write {bare}={value}")
    meant = did_you_mean(f"--{bare}", [flag for flag in FLAGS if flag.startswith("--")])
    raise ValueError(f"{word}: there is no such flag{meant or '; videopool --help lists them'}")


def understood(words: Sequence[str], groups: Groups, multirun: bool) -> list[str]:
    """Overrides as Hydra reads them. Raises ValueError for words that are none, in one line."""
    result = []
    for number, word in enumerate(words):
        key, equals, value = word.partition("=")
        after = words[number + 1 : number + 2]
        if key and not equals and word.startswith("~"):
            result.append(word)
        elif not equals or not key:
            raise ValueError(_stray(word, words[number + 1 : number + 3], groups))
        elif not value and after and "=" not in after[0]:
            raise ValueError(f"{word} {after[0]}: write it without blanks, {key}={after[0]}")
        else:
            plain = key.lstrip("+~")
            if key[0] == "+" and groups.defaults.get(plain, "") is None:
                word = f"{plain}={value}"  # view and experiment have no choice yet
            result.append(quoted(word, multirun, words[number + 1 :]))
    return _with_each(result) if multirun else result


def _with_each(words: Sequence[str]) -> list[str]:
    """Keys of a group whose choices are swept, as sweeps of one value.

    Hydra composes once before it sweeps, with the default choice, which may lack such a key; sweeps wait.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    typed = OverridesParser.create().parse_overrides([word for word in words if not word.startswith("~")])
    swept = {override.key_or_group for override in typed if override.is_sweep_override()}

    def one(word: str) -> str:
        key, _, value = word.partition("=")
        group = key.lstrip("+").partition(".")[0]
        own = group in swept and "." in key and value and not re.match(rf"{FUNCTIONS}|null$|.*\$\{{", value)
        return f"{key}=choice({value})" if own and not word.startswith("~") else word

    sweeps = {override.input_line for override in typed if override.is_sweep_override()}
    return [word if word in sweeps else one(word) for word in words]


def _stray(word: str, after: Sequence[str], groups: Groups) -> str:
    """What to write for a word without a key."""
    following = after[0] if after else ""
    if following.startswith("="):
        parts = after[: 1 if following[1:] else 2]
        value = "".join(parts)[1:] or "VALUE"
        return f"{' '.join([word, *parts])}: write it without blanks, {word}={value}"
    if word.startswith("="):
        return f"{word}: write it without blanks, KEY{word}"
    choices = {group: [name for name, _ in groups.choices(group)] for group in groups.names()}
    if following in choices.get(word, ()):
        return f"{word} {following}: write {word}={following}"
    if word in choices:
        return f"{word}: say which, as in {word}={choices[word][0]}; videopool help {word} lists them"
    written = {name: f"{group}={name}" for group in reversed(choices) for name in choices[group]}
    written |= {name: f"job={name}" for name in choices["job"]}
    if word in written:
        return f"{word}: write {written[word]}"
    if following and "." in word:
        return f"{word} {following}: write {word}={following}"
    written |= {group: group for group in (*choices, "help")}
    meant = did_you_mean(word, written)
    return f"{word}: a word needs a key, as in pooling=average{meant or '; videopool --help shows what there is'}"


def quoted(word: str, multirun: bool = False, following: Sequence[str] = ()) -> str:
    """An override in quotes where Hydra's grammar asks for them.

    A path is taken as it is typed. Other values are quoted if Hydra cannot read them otherwise and they are text; in a
    sweep, each value by itself. Raises ValueError, in one line, for what is left.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = word.partition("=")
    path = key.rpartition(".")[2].lstrip("+") in PATHS
    if not value or word.startswith("~"):
        return word
    parser = OverridesParser.create()

    def readable(text: str) -> bool:
        try:
            parser.parse_override(text)
        except HydraException:
            return False
        return True

    if path and (Path(value).expanduser().exists() or not _of_grammar(value)):  # not null, a list, an interpolation
        return word if readable(word) and parser.parse_override(word).value() == value else f"{key}={_in_quotes(value)}"
    if readable(word):
        if parser.parse_override(word).is_sweep_override() and not multirun:
            listed = f"; for a list write '{key}=[{value}]'" if "," in value and not re.match(FUNCTIONS, value) else ""
            raise ValueError(f"{word}: several values are a sweep, which needs -m{listed}")
        return word
    parts = value.split(",") if multirun else [value]
    if path or not re.search(r"[\[\]{}]", value):
        mended = key + "=" + ",".join(part if readable(f"{key}={part}") else _in_quotes(part) for part in parts)
        if readable(mended):
            return mended
    for opening, closing in ("[]", "{}"):
        if value.count(opening) > value.count(closing):
            rest = next((i for i, one in enumerate(following, 1) if one.endswith(closing)), 0)
            whole = " ".join([word, *following[:rest]]) if rest else word + closing
            raise ValueError(f"{word}: a bracket is not closed; quote it for the shell, '{whole}'")
    text = value.strip("'\"")
    raise ValueError(
        f"{word}: this value cannot be read; text with special characters is quoted twice, '{key}=\"{text}\"'"
    )


def _of_grammar(value: str) -> bool:
    """Whether the value of a path is more than a path: null, quoted, an interpolation, a function or several values."""
    special = value.lower() in ("null", "true", "false", "???") or "${" in value or "," in value
    return special or value[0] in "[{" or bool(re.fullmatch(r"'.*'|\".*\"", value) or re.match(FUNCTIONS, value))


def _in_quotes(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text.strip(), Quote.single).with_quotes()
