"""Personal data in titles is masked, and prices, sizes and product numbers are left alone."""

import pytest

from pipeline_project.ingest.privacy import mask_personal_data


@pytest.mark.parametrize(
    ("text", "masked", "kinds"),
    [
        ("ask anna.b+x@shop.example.com now", "ask [email] now", {"email": 1}),
        ("card 4111 1111 1111 1111 ok", "card [card] ok", {"card": 1}),
        ("card 4111-1111-1111-1111", "card [card]", {"card": 1}),
        ("call +49 30 1234 5678", "call [phone]", {"phone": 1}),
        ("call 555-010-9999 or a@b.de", "call [phone] or [email]", {"phone": 1, "email": 1}),
        ("a@b.de c@d.de", "[email] [email]", {"email": 2}),
    ],
)
def test_personal_data_is_masked_and_counted(text: str, masked: str, kinds: dict[str, int]) -> None:
    result, found = mask_personal_data(text)
    assert result == masked
    assert found == kinds


@pytest.mark.parametrize(
    "text",
    ["", "Shirt 2 x 40 cm, 19.99 EUR", "ISBN 9783161484100", "Model 4111111111111112", "1999-2024", "Calendar from 2026-11-01", "M@rs bar"],
)
def test_ordinary_titles_stay(text: str) -> None:
    assert mask_personal_data(text) == (text, {})
