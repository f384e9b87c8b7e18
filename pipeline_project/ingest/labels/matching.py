"""What a user probably meant: the class behind a misspelt label, the object behind a misspelt path."""

import difflib
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

_SHOWN = 5


def close_class(label: str, classes: Sequence[str]) -> str | None:
    """The class that a label was probably meant to be: the same but for upper and lower case, spaces and accents' coding, or much alike."""
    folded = {fold(name): name for name in classes}
    same = folded.get(fold(label))
    if same is not None:
        return same
    found = difflib.get_close_matches(fold(label), folded, n=1, cutoff=0.75)
    return folded[found[0]] if found else None


def same_but_for_case(one: str, other: str) -> bool:
    """Whether two labels differ only in upper and lower case, spaces and Unicode form."""
    return fold(one) == fold(other)


def close_key(key: str, keys: Collection[str]) -> tuple[str, str] | None:
    """The object that a row was probably meant for, and how the two names differ."""
    composed, folded = unicodedata.normalize("NFC", key), fold(key)
    for other in sorted(keys):
        if unicodedata.normalize("NFC", other) == composed:
            return other, "the same letters in another Unicode form (NFC or NFD)"
        if fold(other) == folded:
            return other, "the same but for upper and lower case"
        if PurePosixPath(other).stem == PurePosixPath(key).stem and PurePosixPath(other).parent == PurePosixPath(key).parent:
            return other, "the same but for the ending"
    return None


def in_few_words(texts: Sequence[str], shown: int = _SHOWN, total: int | None = None) -> str:
    """The first texts, and how many more there are; `total` counts all, where `texts` are the first of them only."""
    left = (len(texts) if total is None else total) - min(shown, len(texts))
    return " ".join(texts[:shown]) + (f" And {left:,} more like these." if left > 0 else "")


def fold(text: str) -> str:
    """A text without what people do not see as a difference: upper and lower case, runs of blanks, Unicode's compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
