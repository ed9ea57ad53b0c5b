"""Dates and waits in HTTP headers, as RFC 9110 has them."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from kodmobi_async._values.assumptions import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

_WEEKDAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
# RFC 9110, 5.6.7: IMF-fixdate, RFC 850 with two digits of a year, and C's asctime.
_HTTP_DATES: Final = (
    re.compile(rf"{_WEEKDAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"
    ),
    re.compile(rf"{_WEEKDAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
_WHOLE_SECONDS: Final = re.compile(r"[0-9]{1,15}")
_LEAP_SECOND: Final = 60
_CENTURY: Final = 100
_HALF_CENTURY: Final = timedelta(days=50 * 365.25)


def parse_http_date(value: str, now: datetime) -> datetime | None:
    """Return the moment that an HTTP date names, or ``None``; a two-digit year is the one nearest to ``now``."""
    for form in _HTTP_DATES:
        match = form.fullmatch(value)
        if match:
            break
    else:
        return None
    year, second = int(match["year"]), int(match["second"])
    if len(match["year"]) == 2:
        year += now.year - now.year % _CENTURY
    leap = second == _LEAP_SECOND
    try:
        moment = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            second - leap,
            tzinfo=UTC,
        )
        if len(match["year"]) == 2:
            # RFC 9110: more than 50 years ahead means the past century; over its turn, as far behind means the next
            if moment - now > _HALF_CENTURY:
                moment = moment.replace(year=year - _CENTURY)
            elif now - moment > _HALF_CENTURY:
                moment = moment.replace(year=year + _CENTURY)
        return moment + timedelta(seconds=leap)
    except (ValueError, OverflowError):  # no such day, or the second after the calendar's last
        return None


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, 0.0 to ``MAX_WAIT_SECONDS``; ``None`` if it says nothing.

    Whole seconds, or any of the three date forms of RFC 9110. Everything else is ignored.

    Args:
        value: The header's value.
        now: The moment that a date is counted from: the response's own ``Date``, or the wall clock. Aware.
    """
    if value is None:
        return None
    value = value.strip(" \t")
    if _WHOLE_SECONDS.fullmatch(value):
        return min(float(value), MAX_WAIT_SECONDS)
    moment = parse_http_date(value, now)
    if moment is None:
        return None
    return min(max((moment - now).total_seconds(), 0.0), MAX_WAIT_SECONDS)


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the service's own time of a response, its ``Date``."""
    return _parse_date_header(headers.get("Date", ""))


@functools.lru_cache(maxsize=4)  # the responses of one second share their date
def _parse_date_header(value: str) -> datetime | None:
    return parse_http_date(value, datetime.now(UTC))
