"""Personal data in text columns (R190): found by pattern and masked before anything downstream stores the text."""

import functools
import re
from collections import Counter

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")
_PHONE = re.compile(r"(?<![\w.])(?!\d{4}-\d{2}-\d{2}\b)\+?\d{1,3}?[ .-]?\(?\d{2,4}\)?(?:[ .-]\d{2,4}){2,4}(?!\w)")


def mask_personal_data(text: str) -> tuple[str, Counter[str]]:
    """Replace e-mail addresses, payment card numbers (Luhn-valid) and telephone numbers by [email], [card], [phone].

    Returns:
        the masked text, and how many of each kind were found.
    """
    found: Counter[str] = Counter()

    def replace(kind: str, match: re.Match[str]) -> str:
        if kind == "card" and not _luhn(match.group()):
            return match.group()
        found[kind] += 1
        return f"[{kind}]"

    for kind, pattern in (("email", _EMAIL), ("card", _CARD), ("phone", _PHONE)):
        text = pattern.sub(functools.partial(replace, kind), text)
    return text, found


def _luhn(text: str) -> bool:
    """The checksum of payment cards (ISO/IEC 7812-1, annex B)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [digit if n % 2 == 0 else digit * 2 - 9 * (digit > 4) for n, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
