"""What a ``Retry-After`` says, in every form that services and mischief have found for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kodmobi_async._rules.http_dates import parse_http_date, parse_retry_after
from kodmobi_async._values.assumptions import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2025, 10, 28, 10, 30, tzinfo=UTC)

ZONES = ("UTC0", "NST3:30NDT,M3.2.0,M11.1.0", "LINT-14")


@pytest.fixture(params=ZONES)
def _local_zone(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


in_every_zone = pytest.mark.usefixtures("_local_zone")


@in_every_zone
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        # whole seconds
        ("0", 0.0),
        ("1", 1.0),
        ("007", 7.0),
        ("60", 60.0),
        (" 60", 60.0),
        ("60\t ", 60.0),
        ("86400", 86_400.0),
        ("86401", 86_400.0),
        ("999999999999999", 86_400.0),
        # IMF-fixdate
        ("Tue, 28 Oct 2025 10:31:00 GMT", 60.0),
        (" Tue, 28 Oct 2025 10:31:00 GMT ", 60.0),
        ("Tue, 28 Oct 2025 10:30:00 GMT", 0.0),
        ("Wed, 29 Oct 2025 10:30:00 GMT", 86_400.0),
        ("Wed, 29 Oct 2025 10:30:01 GMT", 86_400.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        # RFC 850
        ("Tuesday, 28-Oct-25 10:31:00 GMT", 60.0),
        ("Wednesday, 29-Oct-25 10:29:59 GMT", 86_399.0),
        ("Saturday, 28-Oct-75 10:30:00 GMT", 86_400.0),
        # asctime, which names no zone and means UTC
        ("Tue Oct 28 10:31:00 2025", 60.0),
        ("Sat Nov  1 10:31:00 2025", 86_400.0),
        ("Tue Oct 28 10:30:07 2025", 7.0),
        # the past
        ("Tue, 28 Oct 2025 10:29:59 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0.0),
        # a leap second is the one after :59
        ("Tue, 28 Oct 2025 10:30:60 GMT", 60.0),
        ("Tuesday, 28-Oct-25 10:30:60 GMT", 60.0),
        ("Tue Oct 28 10:30:60 2025", 60.0),
        ("Tue, 28 Oct 2025 10:29:60 GMT", 0.0),
        # a weekday that does not fit the date still names the date
        ("Mon, 28 Oct 2025 10:31:00 GMT", 60.0),
    ],
)
def test_a_wait_means_the_same_in_every_local_time_zone(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds
    # the moment it is counted from may come in any zone of its own
    assert parse_retry_after(value, NOW.astimezone(timezone(timedelta(hours=-9, minutes=-30)))) == seconds


@in_every_zone
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "\t",
        "+5",
        "-1",
        "-0",
        "--5",
        "1_000",
        "1,000",
        "1 000",
        "1.5",
        "1.5x",
        "5s",
        "5;",
        "5, 10",
        "0x10",
        "1e3",
        "nan",
        "NaN",
        "inf",
        "Infinity",
        "soon",
        "\N{SUPERSCRIPT TWO}",
        "\N{FULLWIDTH DIGIT FIVE}",
        "\N{ARABIC-INDIC DIGIT FIVE}",
        "5\N{NO-BREAK SPACE}",
        "5\x85",
        "5\n",
        "5\r\n",
        "5\x0b",
        "\x005",
        "1" * 16,
        "9" * 5_000,
        "0" * 5_000,
        "Tue, 28 Oct 100000 10:31:00 GMT",
        "Tue, 28 Oct 25 10:31:00 GMT",
        "Tue, 28 Oct 0000 10:31:00 GMT",
        "Tue, 28 Oct 2025 10:31:00",
        "Tue, 28 Oct 2025 10:31:00 UTC",
        "Tue, 28 Oct 2025 10:31:00 gmt",
        "Tue, 28 Oct 2025 10:31:00 +0000",
        "Tue, 28 Oct 2025 10:31:00 GMT GMT",
        "Tue, 28 Oct 2025 10:31:00 GMT\n",
        "Tue, 28 oct 2025 10:31:00 GMT",
        "Tue, 28 OCT 2025 10:31:00 GMT",
        "tue, 28 Oct 2025 10:31:00 GMT",
        "Tue 28 Oct 2025 10:31:00 GMT",
        "Tue,28 Oct 2025 10:31:00 GMT",
        "Tue,  28 Oct 2025 10:31:00 GMT",
        "28 Oct 2025 10:31:00 GMT",
        "Tue, 8 Oct 2025 10:31:00 GMT",
        "Tue, 00 Oct 2025 10:31:00 GMT",
        "Tue, 32 Oct 2025 10:31:00 GMT",
        "Fri, 30 Feb 2026 10:31:00 GMT",
        "Sun, 29 Feb 2026 10:31:00 GMT",
        "Tue, 28 Oct 2025 24:00:00 GMT",
        "Tue, 28 Oct 2025 10:60:00 GMT",
        "Tue, 28 Oct 2025 10:31:61 GMT",
        "Tue, 28 Oct 2025 10:31 GMT",
        "Tue, 28 Oct 2025 10:31:00.5 GMT",
        "Tue, \N{FULLWIDTH DIGIT TWO}8 Oct 2025 10:31:00 GMT",
        "Tuesday, 28-Oct-2025 10:31:00 GMT",
        "Tue, 28-Oct-25 10:31:00 GMT",
        "Tuesday, 28 Oct 25 10:31:00 GMT",
        "Tuesday, 30-Feb-26 10:31:00 GMT",
        "Tuesday, 28-Oct-25 10:31:00",
        "Tue Oct 28 10:31:00 25",
        "Tue Oct 28 10:31:00 2025 GMT",
        "Tue Oct  0 10:31:00 2025",
        "Tue Oct 8 10:31:00 2025",
        "2025-10-28T10:31:00Z",
        "1761647460.0",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_wait_is_ignored_in_every_local_time_zone(value: str) -> None:
    assert parse_retry_after(value, NOW) is None


def test_no_header_is_no_wait() -> None:
    assert parse_retry_after(None, NOW) is None


@pytest.mark.parametrize(
    ("now", "value", "year"),
    [
        (2025, "Tuesday, 28-Oct-25 10:31:00 GMT", 2025),
        (2025, "Tuesday, 28-Oct-26 10:31:00 GMT", 2026),
        (2025, "Tuesday, 28-Oct-75 10:31:00 GMT", 2075),
        (2025, "Tuesday, 28-Oct-76 10:31:00 GMT", 1976),
        (2025, "Tuesday, 28-Oct-99 10:31:00 GMT", 1999),
        (2025, "Tuesday, 01-Jan-00 10:31:00 GMT", 2000),
        (1999, "Friday, 31-Dec-99 23:59:59 GMT", 1999),
        (2030, "Thursday, 29-Feb-80 10:31:00 GMT", 2080),
        (2029, "Thursday, 29-Feb-80 10:31:00 GMT", 1980),
        (2085, "Thursday, 28-Oct-10 10:31:00 GMT", 2110),
        (9999, "Thursday, 28-Oct-10 10:31:00 GMT", None),
        # 1900 had no 29 February, and the year 50 before year 50 was never
        (1930, "Thursday, 29-Feb-00 10:31:00 GMT", None),
        (49, "Thursday, 01-Jan-99 10:31:00 GMT", 99),
        (1, "Thursday, 01-Jan-99 10:31:00 GMT", None),
    ],
)
def test_two_digits_of_a_year_name_the_year_nearest_to_now(now: int, value: str, year: int | None) -> None:
    moment = parse_http_date(value, datetime(now, 10, 28, 10, 31, tzinfo=UTC))
    assert (moment and moment.year) == year


def test_two_digits_of_a_year_lead_over_the_turn_of_a_century() -> None:
    new_years_eve = datetime(2099, 12, 31, 23, 59, 30, tzinfo=UTC)
    assert parse_retry_after("Friday, 01-Jan-00 00:00:00 GMT", new_years_eve) == 30.0


DATE_LIKE = st.builds(
    "{}{}{} {}{} {:02}:{:02}:{:02} {}".format,
    st.sampled_from(("Tue, ", "Tuesday, ", "Tue ")),
    st.sampled_from(("28", "01", " 1", "31", "Oct", "Dec", "00")),
    st.sampled_from(("-Oct-25", "-Feb-99", " Oct", " Dec", " 31", "  1")),
    st.integers(0, 10_000),
    st.sampled_from(("", " Oct")),
    st.integers(0, 25),
    st.integers(0, 61),
    st.integers(0, 61),
    st.sampled_from(("GMT", "2025", "0001", "9999", "UTC")),
)
# pieces of every form, so that whole dates come about, at the calendar's edges too
DATES = st.one_of(
    st.builds(
        "Tue, {:02} {} {:04} {:02}:{:02}:{:02} GMT".format,
        st.integers(0, 32),
        st.sampled_from(("Jan", "Feb", "Dec")),
        st.sampled_from((0, 1, 1900, 2024, 2025, 2026, 9998, 9999)),
        st.sampled_from((0, 10, 23, 24)),
        st.sampled_from((0, 30, 59, 60)),
        st.sampled_from((0, 30, 59, 60, 61)),
    ),
    st.builds(
        "Friday, {:02}-{}-{:02} {:02}:59:{:02} GMT".format,
        st.integers(0, 32),
        st.sampled_from(("Jan", "Feb", "Dec")),
        st.integers(0, 99),
        st.sampled_from((0, 23, 24)),
        st.sampled_from((0, 59, 60, 61)),
    ),
    st.builds(
        "Fri {} {:2} {:02}:59:{:02} {:04}".format,
        st.sampled_from(("Jan", "Feb", "Dec")),
        st.integers(0, 32),
        st.sampled_from((0, 23, 24)),
        st.sampled_from((0, 59, 60, 61)),
        st.sampled_from((0, 1, 1900, 2024, 2025, 2026, 9998, 9999)),
    ),
)
MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(st.text() | st.from_regex(r"[-+]?[0-9_.,]{1,40}") | DATE_LIKE | DATES, st.just(NOW) | MOMENTS)
@example("Fri, 31 Dec 9999 23:59:60 GMT", NOW)
@example("Friday, 31-Dec-99 23:59:60 GMT", datetime(9999, 6, 1, tzinfo=UTC))
def test_no_text_asks_for_less_than_nothing_or_more_than_a_day(value: str, now: datetime) -> None:
    seconds = parse_retry_after(value, now)
    assert seconds is None or 0.0 <= seconds <= MAX_WAIT_SECONDS


@given(st.binary(max_size=60))
def test_no_bytes_of_a_header_ask_for_less_than_nothing_or_more_than_a_day(value: bytes) -> None:
    seconds = parse_retry_after(value.decode("latin-1"), NOW)
    assert seconds is None or 0.0 <= seconds <= MAX_WAIT_SECONDS


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)), st.sampled_from((0, 1)))  # noqa: DTZ001 the strategy adds the zone
def test_every_moment_is_read_back_from_both_forms_that_spell_its_year(moment: datetime, form: int) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    weekday, month = _WEEKDAYS[moment.weekday()], _MONTHS[moment.month - 1]
    clock = f"{moment:%H:%M:%S}"
    text = (
        f"{weekday}, {moment.day:02} {month} {moment.year:04} {clock} GMT",
        f"{weekday} {month} {moment.day:2} {clock} {moment.year:04}",
    )[form]
    assert parse_http_date(text, NOW) == moment


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
