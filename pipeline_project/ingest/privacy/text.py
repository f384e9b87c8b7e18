"""Personal data in text columns: found by pattern and checksum, and masked before anything downstream stores the text.

Product texts are full of digits that are nobody's: article numbers, EANs and ISBNs, sizes, prices, dates, versions. Whatever has a
checksum (cards, IBANs) is taken only where it holds; a telephone number only in a form that one of the countries writes, or behind a
word such as "call". How much is found, and how much wrongly, is measured by `privacy.recall`.
"""

import functools
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

KINDS = ("email", "iban", "card", "ip_address", "phone")

_AT = r"(?:@|\uff20|\s?[\[(]\s?at\s?[\])]\s?)"
_DOT = r"(?:\.|\s?[\[(]\s?dot\s?[\])]\s?)"
_EMAIL = re.compile(
    rf"(?i)[\w.!#$%&'*+/=?^`{{|}}~-]{{1,64}}{_AT}(?:[\w-]{{1,63}}{_DOT}){{1,8}}(?:xn--[a-z0-9-]{{2,59}}|[^\W\d_]{{2,24}})\b"
)

_GAP = r"[ \u00a0.\-]{0,2}"
_CARD = re.compile(
    rf"(?<!\d)(?:\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{4}}(?:{_GAP}\d{{3}})?"
    rf"|3\d{{3}}{_GAP}\d{{6}}{_GAP}\d{{4,5}}|4\d{{3}}(?:[ -]\d{{3}}){{3}})(?!\d)"
)
_CARD_SCHEMES = re.compile(  # Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}|(?:50|5[6-8]|6[37])\d{14}(?:\d{3})?"
)

_IBAN_START = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}")
_IBAN_LENGTHS = {  # registry of ISO 13616, release 99
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "NL", "FO", "GL", "SD", "FK"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK", "MN"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "TL", "OM", "SO"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("PT", "ST", "LY"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("FR", "GR", "IT", "MC", "SM", "MR", "BI", "DJ"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    "LC": 32,
    "RU": 33,
}

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_VERSION_WORD = re.compile(r"(?i)(?:\b(?:v|ver|version|firmware|release|rev|build|bios|driver|os|android|ios)\.?|#)\s?$")

# What a telephone number may not be part of: longer numbers, codes, decimals.
_BEFORE = r"(?<![\w+/\-])(?<!\d[.,:])(?<![$\u20ac\u00a3])"
_AFTER = r"(?![\w%]|[.,:\-/]\d)"
_SEP = r"[ \u00a0.\-/]"
_COUNTRY_CODE = (  # ITU-T E.164
    r"(?:1|7|2(?:0|7|[1-689]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)|6(?:[0-6]|[7-9]\d)"
    r"|8(?:[1246]|[0578]\d)|9(?:[0-58]|[679]\d))"
)
_REST = rf"(?:{_SEP}?\(?\d\)?){{5,13}}"
_INTERNATIONAL = (
    rf"(?<![\w+])\+{_SEP}?{_COUNTRY_CODE}{_REST}{_AFTER}"
    rf"|{_BEFORE}(?<!\d )00{_SEP}?{_COUNTRY_CODE}{_SEP}\(?\d{_REST}{_AFTER}"
)
_NATIONAL: dict[str, str] = {
    "US": r"(?:1[ .\-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .\-])\d{3}[ .\-]\d{4}",
    "GB": r"\(?0(?:2\d\)?[ \-]\d{4}[ \-]?\d{4}|1\d{2,4}\)?[ \-]\d{3}[ \-]?\d{2,4}|[378]\d{2,3}[ \-]?\d{3}[ \-]?\d{3,4}|7[1-9]\d{8})",
    "DE": r"\(?0(?:1[5-7]\d{1,2}|180\d|800|[2-9]\d{1,4})\)?(?: ?[/\-] ?| )\d{2,8}(?:[ \-]\d{1,5}){0,4}|01[5-7]\d{8}",
    "FR": r"0[1-9](?:[ .\-]\d\d){4}",
    "IT": r"0\d{1,3}[ /\-]\d{5,8}|3\d\d[ .\-]\d{3}[ .\-]?\d{3,4}",
    "ES": r"[6-9]\d\d[ .\-](?:\d{3}[ .\-]\d{3}|\d\d[ .\-]\d\d[ .\-]\d\d)",
    "PL": r"(?:[4-8]\d\d[ \-]\d{3}[ \-]\d{3}|[1-9]\d[ \-]\d{3}[ \-]\d\d[ \-]\d\d)",
    "PT": r"[29]\d\d[ \-]\d{3}[ \-]\d{3}",
    "NL": r"\(?0(?:6\)?[ \-]?\d{4}[ \-]?\d{4}|[1-578]\d{1,2}\)?[ \-]\d{3}[ \-]?\d{2}[ \-]?\d{2})",
    "BE": r"0(?:4\d\d|\d{1,2})[ /](?:\d\d[ .]\d\d[ .]\d\d|\d{3}[ .]\d\d[ .]\d\d)",
    "AT": r"\(?0(?:6\d{2,3}|[1-7]\d{0,3})\)?[ /\-]\d{3,8}(?:[ \-]\d{1,4}){0,3}",
    "CH": r"0[2-9]\d[ /]\d{3}[ .]\d\d[ .]\d\d",
    "IE": r"\(?0(?:1|[2-9]\d)\)?[ \-]\d{3}[ \-]?\d{4}",
    "SE": r"0\d{1,3}-\d{2,3} ?\d{2,3} ?\d{2}",
    "DK": r"[2-9]\d(?: \d\d){3}",
    "NO": r"[2-79]\d(?: \d\d){3}|[49]\d\d \d\d \d{3}",
    "AU": r"\(?0[23478]\)?[ \-]\d{4}[ \-]\d{4}|04\d\d[ \-]\d{3}[ \-]\d{3}",
    "IN": r"0?[6-9]\d{4}[ \-]\d{5}",
    "JP": r"0\d{1,3}-\d{2,4}-\d{4}",
    "BR": r"\(\d\d\) ?9?\d{4}-\d{4}",
}
_NATIONAL["CA"] = _NATIONAL["US"]
_CUE = re.compile(
    r"(?i)\b(?:tel|telefon|telephone|phone|call|mobile|mobil|handy|cell|fax|whatsapp|signal|sms|ring|ruf|anruf)\b"
    r"(?: (?:me|us|at|on|no|nr|number|nummer))?[.:]?\s{0,2}"
    rf"(?P<number>\+?\(?\d(?:[ \u00a0.\-]?\(?\d\)?){{6,14}}){_AFTER}"  # no slash: phone 64/128/256 GB
)
_DATE = re.compile(r"(?:\d{4}([ .\-/])[01]?\d\1[0-3]?\d|[0-3]?\d([ .\-/])[01]?\d\2(?:19|20)?\d\d)(?!\d)")
_YEARS = re.compile(r"(?:19|20)\d\d\W(?:19|20)?\d\d$")

_Span = tuple[int, int]


def mask_personal_data(text: str, phone_regions: Sequence[str] | None = None) -> tuple[str, Counter[str]]:
    """Replace personal data by its kind in brackets: [email], [iban], [card], [ip_address], [phone].

    Args:
        text: any text; time grows with its length.
        phone_regions: countries (ISO 3166) whose national telephone numbers are looked for beside international ones; None: all known.

    Returns:
        the masked text, and how many of each kind were found.

    Raises:
        ValueError: a region whose numbers are not known; the message lists those that are.
    """
    found: Counter[str] = Counter()
    if not any(c.isdigit() or c in "@\uff20[(" for c in text):
        return text, found
    phones = _phones(None if phone_regions is None else tuple(phone_regions))
    finders: list[tuple[str, Callable[[str], Iterator[_Span]]]] = [
        ("email", _emails), ("iban", _ibans), ("card", _cards), ("ip_address", _addresses), ("phone", phones)
    ]  # fmt: skip
    for kind, find in finders:
        parts, end = [], 0
        for start, stop in find(text):
            if start >= end:
                parts += [text[end:start], f"[{kind}]"]
                end = stop
                found[kind] += 1
        text = "".join([*parts, text[end:]])
    return text, found


def check_phone_regions(regions: Sequence[str]) -> None:
    """Raises `ValueError` where privacy.phone_regions names a country whose numbers are not known; the message lists those that are."""
    unknown = sorted(set(regions) - _NATIONAL.keys())
    if unknown:
        raise ValueError(
            f"privacy.phone_regions: how telephone numbers are written in {', '.join(unknown)} is not known. Known: "
            f"{', '.join(sorted(_NATIONAL))}. Leave it out: numbers that begin with + are found everywhere."
        )


def _emails(text: str) -> Iterator[_Span]:
    yield from (match.span() for match in _EMAIL.finditer(text))


def _ibans(text: str) -> Iterator[_Span]:
    for match in _IBAN_START.finditer(text):
        length, chosen, position = _IBAN_LENGTHS.get(match.group()[:2].upper(), 0), "", match.start()
        while position < len(text) and len(chosen) < length and (text[position].isalnum() or text[position] in " -\u00a0"):
            chosen += text[position] if text[position].isalnum() else ""
            position += 1
        if length and len(chosen) == length and chosen.isascii() and not text[position : position + 1].isalnum() and _mod97(chosen):
            yield match.start(), position


def _mod97(iban: str) -> bool:
    """The check digits of ISO 13616."""
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def _cards(text: str) -> Iterator[_Span]:
    for match in _CARD.finditer(text):
        digits = "".join(c for c in match.group() if c.isdigit())
        for length in (len(digits), 16):  # 19 digits may be 16 and a security code
            if len(digits) >= length and _CARD_SCHEMES.fullmatch(digits[:length]) and _luhn(digits[:length]):
                if length == 14 and match.group().isdigit() and _is_gtin(digits):
                    continue
                yield match.start(), match.end()
                break


def _luhn(digits: str) -> bool:
    """The checksum of payment cards (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) if n % 2 == 0 else int(d) * 2 - 9 * (int(d) > 4) for n, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_gtin(digits: str) -> bool:
    """Whether 8, 12, 13 or 14 digits carry the check digit of a trade item (EAN, UPC, ISBN-13; GS1 General Specifications, 7.9)."""
    return len(digits) in (8, 12, 13, 14) and sum(int(d) * (1, 3)[n % 2] for n, d in enumerate(reversed(digits))) % 10 == 0


def _addresses(text: str) -> Iterator[_Span]:
    for match in sorted([*_IPV4.finditer(text), *_IPV6.finditer(text)], key=lambda found: found.start()):
        address = match.group()
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            continue
        # Versions look like addresses with small numbers, and C++ names like short IPv6 ones.
        plain = sum(c.isdigit() for c in address) < 6 or _VERSION_WORD.search(text[max(0, match.start() - 12) : match.start()])
        if parsed.version == 4 and plain:
            continue
        if parsed.version == 6 and (sum(map(bool, address.split(":"))) < 3 or not any(c.isdigit() for c in address)):
            continue
        yield match.span()


@functools.lru_cache(maxsize=32)
def _phones(regions: tuple[str, ...] | None) -> Callable[[str], Iterator[_Span]]:
    chosen = tuple(_NATIONAL) if regions is None else regions
    check_phone_regions(chosen)
    national = [f"{_BEFORE}(?:{_NATIONAL[region]}){_AFTER}" for region in dict.fromkeys(chosen)]
    pattern = re.compile("|".join([_INTERNATIONAL, *national]))

    def find(text: str) -> Iterator[_Span]:
        spans = [match.span() for match in pattern.finditer(text)] + [match.span("number") for match in _CUE.finditer(text)]
        spans = [span for span in spans if _may_be_phone(text[slice(*span)])]
        yield from sorted((_balanced(text, *span) for span in spans), key=lambda span: (span[0], -span[1]))

    return find


def _balanced(text: str, start: int, end: int) -> _Span:
    """Without a bracket that stands around the number instead of in it."""
    number = text[start:end]
    if number.startswith("(") and number.count("(") > number.count(")"):
        start += 1
    elif number.endswith(")") and number.count(")") > number.count("("):
        end -= 1
    return start, end


def _may_be_phone(number: str) -> bool:
    """At most 15 digits (ITU-T E.164), at least 7, and neither a date (with an hour), a span of years nor a trade item's number."""
    digits = "".join(c for c in number if c.isdigit())
    date = _DATE.match(number)
    dated = date is not None and sum(c.isdigit() for c in number[date.end() :]) <= 2
    return 7 <= len(digits) <= 15 and not (dated or _YEARS.match(number) or (number.isdigit() and _is_gtin(digits)))
