"""What people type into a login page, read as they mean it."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodmobi_async import InvalidRequestError, normalize_code, normalize_phone
from kodmobi_async._rules.requests import canonical_recipient


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("123456", "123456"),
        (" 123 456 ", "123456"),
        ("123-456", "123456"),
        ("123\u2013456", "123456"),  # an en dash
        ("123\u00a0456\n", "123456"),
        ("[1234]", "1234"),
        ("1.2.3.4", "1234"),
        ("１２３４５６", "123456"),  # noqa: RUF001 full-width
        ("١٢٣٤٥٦", "123456"),
        ("۱۲۳۴۵۶", "123456"),
        ("१२३४", "1234"),
        ("\u200e123456\u200f", "123456"),
        ("aB3d", "aB3d"),
        ("ＡＢ１２", "AB12"),  # noqa: RUF001 full-width
    ],
)
def test_a_code_is_read_as_it_is_meant(typed: str, code: str) -> None:
    assert normalize_code(typed) == code


@pytest.mark.parametrize("typed", ["", "123", "12345678901", "12-3", "12 34 56 78 90 1", "кодкод", "12€4", "1" * 1000])
def test_what_can_be_no_code_is_refused_and_not_repeated(typed: str) -> None:
    with pytest.raises(InvalidRequestError, match="4 to 10 letters and digits") as caught:
        normalize_code(typed)
    assert not typed or typed not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "phone"),
    [
        ("+14155550123", "+14155550123"),
        ("+1 (415) 555-0123", "+14155550123"),
        ("+1.415.555.0123", "+14155550123"),
        ("+49 171/1234567", "+491711234567"),
        ("0049 171 1234567", "+491711234567"),
        ("+49 (0) 171 1234567", "+491711234567"),
        ("+44 (0)20 7946 0018", "+442079460018"),
        ("＋４９１７１１２３４５６７", "+491711234567"),  # noqa: RUF001 full-width
        ("+٢٠١٠٠١٢٣٤٥٦٧", "+201001234567"),
        ("\u202a+1 415 555 0123\u202c", "+14155550123"),
    ],
)
def test_a_phone_number_is_read_as_it_is_meant(typed: str, phone: str) -> None:
    assert normalize_phone(typed) == phone


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("4155550123", "starts with \\+ and its country code"),
        ("0171 1234567", "starts with \\+ and its country code"),
        ("+0123456789", "7 to 15 digits"),
        ("+123456", "7 to 15 digits"),
        ("+1234567890123456", "7 to 15 digits"),
        ("+1415555CALL", "7 to 15 digits"),
        ("+1+4155550123", "7 to 15 digits"),
        ("+" + "1" * 200, "7 to 15 digits"),
        (14155550123, "7 to 15 digits"),
        (None, "7 to 15 digits"),
        ("", "country code"),
    ],
)
def test_what_can_be_no_phone_number_is_refused(typed: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        normalize_phone(typed)


@given(st.text(max_size=40))
def test_whatever_is_typed_is_read_or_refused_and_reading_twice_changes_nothing(typed: str) -> None:
    for normalize in (normalize_code, normalize_phone):
        try:
            read = normalize(typed)
        except InvalidRequestError:
            continue
        assert read.isascii()
        assert normalize(read) == read


@pytest.mark.parametrize(
    ("typed", "recipient"),
    [
        ("+1 415 555 0123", "+14155550123"),
        ("jane@example.com", "jane@example.com"),
        (" Jane.Doe@Example.COM ", "Jane.Doe@example.com"),
    ],
)
def test_a_recipient_is_a_phone_number_or_an_email_address(typed: str, recipient: str) -> None:
    assert canonical_recipient(typed) == recipient


@pytest.mark.parametrize(
    "typed",
    ["jane@", "@example.com", "jane@example", "ja ne@example.com", "jane@exa\nmple.com", f"{'j' * 250}@e.com", "jane"],
)
def test_what_is_no_recipient_is_refused_and_shown_nowhere(typed: str) -> None:
    with pytest.raises(InvalidRequestError, match="to takes a phone number") as caught:
        canonical_recipient(typed)
    trace = caught.value.__traceback__
    assert trace is not None
    report = traceback.TracebackException(type(caught.value), caught.value, trace.tb_next, capture_locals=True)
    assert typed not in "".join(report.format())
