"""Personal data in titles is masked, and prices, sizes and product numbers are left alone."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.ingest.privacy import KINDS, check_phone_regions, mask_personal_data
from pipeline_project.ingest.privacy.recall import clean_text, personal_piece


@pytest.mark.parametrize(
    ("text", "masked", "kinds"),
    [
        ("ask anna.b+x@shop.example.com now", "ask [email] now", {"email": 1}),
        ("ask anna (at) shop (dot) com", "ask [email]", {"email": 1}),
        ("anna@b\u00fccher.example", "[email]", {"email": 1}),
        ("card 4111 1111 1111 1111 ok", "card [card] ok", {"card": 1}),
        ("card 4111-1111-1111-1111", "card [card]", {"card": 1}),
        ("4111 1111 1111 1111 123", "[card]", {"card": 1}),
        ("amex 378282246310005", "amex [card]", {"card": 1}),
        ("to DE89 3704 0044 0532 0130 00 please", "to [iban] please", {"iban": 1}),
        ("gb82west12345698765432", "[iban]", {"iban": 1}),
        ("seen at 203.0.113.77", "seen at [ip_address]", {"ip_address": 1}),
        ("seen at 2001:db8::ff00:42:8329.", "seen at [ip_address].", {"ip_address": 1}),
        ("call +49 30 1234 5678", "call [phone]", {"phone": 1}),
        ("call +49 (0)30 123456", "call [phone]", {"phone": 1}),
        ("call 555-010-9999 or a@b.de", "call [phone] or [email]", {"phone": 1, "email": 1}),
        ("(415) 555-2671", "[phone]", {"phone": 1}),
        ("Tel. 0171/2345678", "Tel. [phone]", {"phone": 1}),
        ("020 7946 0958, 07700 900123", "[phone], [phone]", {"phone": 2}),
        ("whatsapp me: 4155552671", "whatsapp me: [phone]", {"phone": 1}),
        ("a@b.de c@d.de", "[email] [email]", {"email": 2}),
    ],
)
def test_personal_data_is_masked_and_counted(text: str, masked: str, kinds: dict[str, int]) -> None:
    result, found = mask_personal_data(text)
    assert result == masked
    assert found == kinds


@pytest.mark.parametrize(
    "text",
    [
        "", "Shirt 2 x 40 cm, 19.99 EUR", "ISBN 9783161484100", "Model 4111111111111112", "1999-2024",
        "Calendar from 2026-11-01", "M@rs bar",
        "2@3.50 each", "EAN 4006381333931", "UPC 036000291452", "ISBN 0-19-853453-1", "01.02.2024 10:00", "phone 128/256/512 GB",
        "mobile 2022-2023 edition", "firmware 10.21.30.400", "v 10.20.30.40", "DE88 1111 2222 3333 4444 55", "std::vector<int>", "12:30:45",
        "a0:b1:c2:d3:e4:f5", "$1,299.00", "100 200 300 pieces", "SKU 1234-5678-90",
    ],
)  # fmt: skip
def test_ordinary_titles_stay(text: str) -> None:
    assert mask_personal_data(text) == (text, {})


def test_national_numbers_are_those_of_the_regions() -> None:
    french, american = "06 12 34 56 78", "415-555-2671"
    assert mask_personal_data(french, ["FR"])[0] == "[phone]"
    assert mask_personal_data(french, ["US"])[0] == french
    assert mask_personal_data(american, ["FR"])[0] == american
    assert mask_personal_data("+33 6 12 34 56 78", [])[0] == "[phone]", "international ones are found everywhere"


def test_an_unknown_region_is_refused_with_those_that_are_known() -> None:
    for refuse in (lambda: check_phone_regions(["US", "XX"]), lambda: mask_personal_data("1", ["XX"])):
        with pytest.raises(ValueError, match=r"XX.*Known: .*DE.*US"):
            refuse()


@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.sampled_from(["{}", "Bag. {} new", "({})", "x, {}; y", "call {}"]))
def test_what_is_found_is_gone_and_what_stands_around_it_stays(kind: str, seed: int, frame: str) -> None:
    piece = personal_piece(kind, random.Random(seed))
    masked, found = mask_personal_data(frame.format(piece))
    if found[kind] == found.total() == 1 and masked == frame.format(f"[{kind}]"):
        assert piece not in masked
    else:  # missed, or an address in angle brackets: never half of it, nor the words around it
        before, after = frame.split("{}")
        assert masked.startswith(before)
        assert masked.endswith(after)
    assert mask_personal_data(masked)[0] == masked, "masking twice changes nothing"


@given(st.text(max_size=200))
def test_any_text_can_be_masked_and_only_what_was_found_changes(text: str) -> None:
    masked, found = mask_personal_data(text)
    assert sum(masked.count(f"[{kind}]") - text.count(f"[{kind}]") for kind in KINDS) == found.total()
    assert bool(found) == (masked != text)


@given(st.integers(0, 10**6))
def test_product_texts_stay(seed: int) -> None:
    text = clean_text(random.Random(seed))
    assert mask_personal_data(text, ["US", "GB", "DE"]) == (text, {})


@pytest.mark.parametrize(
    "piece", ["+1", "+12222222", "a", "@a.", "1 ", "0", "call ", ":", "1:", "DE89 ", "(at)", "a.b-", "[ at ", "(", "4 "]
)
def test_long_hostile_texts_come_to_an_end(piece: str) -> None:
    """A pattern that tries all ways to divide such a text would never end."""
    text = piece * (20_000 // len(piece))
    assert len(mask_personal_data(text)[0]) <= len(text) + 20
