"""A wrong setting fails where it was written, and shows no secret."""

from __future__ import annotations

import math
import pickle
import sys
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodmobi_async import ConfigurationError, KodmobiClient, Limits, Outcome, RetryPolicy, Timeout
from kodmobi_async._values.addresses import BASE_URL_VARIABLE, DEFAULT_BASE_URL, resolve_base_url
from kodmobi_async._values.settings import (
    API_KEY_VARIABLE,
    check_language,
    check_max_wait,
    resolve_api_key,
)
from kodmobi_async.redis import RedisLimits

NO_NUMBER: tuple[Any, ...] = (None, True, False, "1", "", b"1", [1], {}, 1j, Decimal(1), object())
NO_FLAG: tuple[object, ...] = (None, 0, 1, "yes", "", [])
NOT_FINITE = (math.nan, math.inf, -math.inf)
# an integer that no float can hold
TOO_LARGE = 10**400
POSITIVE = (1, 0.001, sys.float_info.min, 5e-324, 30.0, 1e9, sys.float_info.max)
ZERO: tuple[float, ...] = (0, 0.0, -0.0)
SHARED = RedisLimits("redis://localhost")
NEGATIVE = (-1, -0.001, -5e-324, -TOO_LARGE)

SECONDS: tuple[tuple[type, str], ...] = (
    (Timeout, "total"),
    (Timeout, "connect"),
    (Timeout, "attempt"),
    (Limits, "window"),
)
SECONDS_OR_ZERO: tuple[tuple[type, str], ...] = (
    (Limits, "keepalive"),
    (RetryPolicy, "initial_backoff"),
    (RetryPolicy, "max_backoff"),
)
COUNTS: tuple[tuple[type, str], ...] = ((Limits, "connections"), (RetryPolicy, "attempts"))

VALID: list[tuple[type, str, object]] = [
    *((kind, name, value) for kind, name in SECONDS for value in POSITIVE),
    *((kind, name, value) for kind, name in SECONDS_OR_ZERO for value in (*ZERO, *POSITIVE)),
    *((kind, name, value) for kind, name in COUNTS for value in (1, 2, 10**9)),
    *((Limits, "rate", value) for value in (None, *POSITIVE)),
    *((Limits, "shared", value) for value in (None, SHARED)),
    *((RetryPolicy, "repeat_unknown", value) for value in (True, False)),
]
INVALID: list[tuple[type, str, object]] = [
    *(
        (kind, name, value)
        for kind, name in SECONDS
        for value in (*NO_NUMBER, *NOT_FINITE, *ZERO, *NEGATIVE, TOO_LARGE)
    ),
    *(
        (kind, name, value)
        for kind, name in SECONDS_OR_ZERO
        for value in (*NO_NUMBER, *NOT_FINITE, *NEGATIVE, TOO_LARGE)
    ),
    *((kind, name, value) for kind, name in COUNTS for value in (*NO_NUMBER, *NOT_FINITE, *ZERO, *NEGATIVE, 1.0, 2.5)),
    *((Limits, "rate", value) for value in (*NO_NUMBER[1:], *NOT_FINITE, *ZERO, *NEGATIVE, TOO_LARGE)),
    *((Limits, "shared", value) for value in (*NO_NUMBER[1:], RedisLimits, "redis://localhost")),
    *((RetryPolicy, "repeat_unknown", value) for value in NO_FLAG),
]


def label(value: object) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)[:24]


@pytest.mark.parametrize(("kind", "name", "value"), VALID, ids=label)
def test_a_setting_in_its_range_is_kept_as_it_is(kind: type, name: str, value: object) -> None:
    settings = kind(**{name: value})
    assert getattr(settings, name) is value


@pytest.mark.parametrize(("kind", "name", "value"), INVALID, ids=label)
def test_a_setting_out_of_its_range_is_refused_by_name(kind: type, name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}\.{name} takes ") as caught:
        kind(**{name: value})
    assert isinstance(caught.value, ValueError)
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("kind", [Timeout, Limits, RetryPolicy])
def test_every_setting_is_tried_and_none_can_be_changed_afterwards(kind: type) -> None:
    fields = {field.name for field in attrs.fields(kind)}
    assert fields == {name for tried, name, _ in VALID if tried is kind}
    assert fields == {name for tried, name, _ in INVALID if tried is kind}
    settings = kind()
    for name in fields:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(settings, name, 1)


def test_the_defaults_are_the_documented_ones() -> None:
    assert Timeout() == Timeout(total=30.0, connect=5.0, attempt=10.0)
    assert Limits() == Limits(connections=100, keepalive=120.0, rate=None, shared=None, window=60.0)
    assert RetryPolicy() == RetryPolicy(attempts=4, initial_backoff=0.1, max_backoff=5.0, repeat_unknown=True)


@pytest.mark.parametrize("settings", [Timeout(total=1), Limits(rate=2.0), RetryPolicy(attempts=1)])
def test_settings_are_values(settings: object) -> None:
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert len({settings, pickle.loads(pickle.dumps(settings))}) == 1


@pytest.mark.parametrize("value", [*ZERO, *POSITIVE, math.inf])
def test_a_wait_may_be_none_at_all_or_endless(value: float) -> None:
    assert check_max_wait(value) is value


@pytest.mark.parametrize("value", [*NO_NUMBER, *NEGATIVE, math.nan, -math.inf, TOO_LARGE], ids=label)
def test_what_cannot_be_waited_for_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_wait takes"):
        check_max_wait(value)


# -- the key ----------------------------------------------------------------------------------------------------------

SECRET = "sk-Ab3_very~secret"


@pytest.mark.parametrize("key", [SECRET, "x", "!~", "a/b+c==", "x" * 1024])
def test_a_key_of_printable_ascii_is_kept_as_it_is(key: str) -> None:
    assert resolve_api_key(key) == key


@pytest.mark.parametrize("around", ["", " ", "\n", "\r\n", "\t "])
def test_a_key_from_the_environment_may_have_space_around_it(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, f"{around}{SECRET}{around}")
    assert resolve_api_key(None) == SECRET


def test_a_key_that_is_passed_outweighs_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, "another")
    assert resolve_api_key(SECRET) == SECRET


@pytest.mark.parametrize("value", [None, "", " ", "\n\t "])
def test_without_a_key_the_error_says_where_one_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(API_KEY_VARIABLE, value)
    with pytest.raises(ConfigurationError, match="no API key: pass api_key=, or set KODMOBI_API_KEY"):
        resolve_api_key(None)


BAD_KEYS: tuple[Any, ...] = (
    SECRET + "\r\nx-admin: 1",
    SECRET + "\n",
    "\n" + SECRET,
    SECRET + " ",
    " " + SECRET,
    SECRET.replace("-", " "),
    SECRET + "\t",
    SECRET + "\x7f",
    SECRET + "\x1b[0m",
    SECRET + "\N{LATIN SMALL LETTER E WITH ACUTE}",
    SECRET + "\N{NO-BREAK SPACE}",
    SECRET + "\N{FULLWIDTH DIGIT ONE}",
    SECRET + "\ud800",
    SECRET * 100,
)


@pytest.mark.parametrize("key", BAD_KEYS, ids=label)
def test_a_key_that_could_not_stand_in_a_header_is_refused_and_never_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="the API key takes 1 to 1024 printable ASCII") as caught:
        resolve_api_key(key)
    error = caught.value
    assert SECRET[:6] not in f"{error} {error!r} {error.args} {vars(error)}"
    assert error.__context__ is None
    assert error.__cause__ is None


@pytest.mark.parametrize("key", [f"{SECRET}\r\nx-admin: 1", f"{SECRET} {SECRET}", SECRET * 100, f"{SECRET}é"])
def test_a_wrong_key_in_the_environment_is_never_shown_either(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, key)
    with pytest.raises(ConfigurationError) as caught:
        resolve_api_key(None)
    assert SECRET[:6] not in f"{caught.value!r} {vars(caught.value)}"


@pytest.mark.parametrize("key", ["", b"bytes", 1, 0, False, [SECRET], object()], ids=label)
def test_what_is_no_key_is_refused_even_where_the_environment_has_one(
    monkeypatch: pytest.MonkeyPatch, key: object
) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, SECRET)
    with pytest.raises(ConfigurationError, match="the API key takes"):
        resolve_api_key(key)


# -- the address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "without_slash"),
    [
        ("https://api.kod.mobi/session", None),
        ("https://api.kod.mobi/session/", "https://api.kod.mobi/session"),
        ("https://api.kod.mobi/session///", "https://api.kod.mobi/session"),
        ("https://api.kod.mobi", None),
        ("https://api.kod.mobi/", "https://api.kod.mobi"),
        ("https://api.kod.mobi/v2", None),
        ("https://API.kod.mobi:8443/a/b-c_d~e.f%20g", None),
        ("https://x", None),
        ("https://xn--80ak6aa92e.com", None),
        ("https://10.0.0.1:1", None),
        ("https://[2001:db8::1]:65535/x", None),
        ("https://[::ffff:10.0.0.1]", None),
        ("http://127.0.0.1:8080/session", None),
        ("http://127.255.255.254", None),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://[0:0:0:0:0:0:0:1]", None),
        ("http://localhost", None),
        ("http://LOCALHOST:80/x", None),
    ],
)
def test_a_safe_address_is_taken_without_a_slash_at_its_end(address: str, without_slash: str | None) -> None:
    assert resolve_base_url(address, allow_http=False) == (without_slash or address)
    assert resolve_base_url(address, allow_http=True) == (without_slash or address)


@pytest.mark.parametrize(
    "address",
    [
        "http://api.kod.mobi/session",
        "http://10.0.0.1",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://evil-localhost",
        "http://127.1",
        "http://127",
        "http://0",
        "http://0.0.0.0",
        "http://2130706433",
        "http://0x7f000001",
        "http://0177.0.0.1",
        "http://127.0.0.01",
        "http://128.0.0.1",
        "http://[::]",
        "http://[::2]:80/x",
        "http://[2001:db8::1]",
    ],
)
def test_clear_text_to_another_machine_has_to_be_asked_for(address: str) -> None:
    with pytest.raises(ConfigurationError, match="would send the API key in clear text") as caught:
        resolve_base_url(address, allow_http=False)
    assert address not in str(caught.value)
    assert resolve_base_url(address, allow_http=True) == address


@pytest.mark.parametrize(
    "address",
    [
        b"https://api.kod.mobi",
        7,
        "",
        " ",
        "api.kod.mobi",
        "//api.kod.mobi",
        "/session",
        "https:",
        "https://",
        "https:///session",
        "https:api.kod.mobi",
        "https:/api.kod.mobi",
        "ftp://api.kod.mobi",
        "ws://api.kod.mobi",
        "file:///etc/passwd",
        "javascript:alert(1)",
        # users, who could be passwords
        "https://hunter2@api.kod.mobi",
        "https://user:hunter2@api.kod.mobi",
        "https://:hunter2@api.kod.mobi",
        "https://@api.kod.mobi",
        "http://127.0.0.1@evil.example",
        "http://127.0.0.1:80@evil.example",
        "https://api.kod.mobi%40evil.example",
        # what would swallow the path that is joined on
        "https://api.kod.mobi/session?key=hunter2",
        "https://api.kod.mobi?",
        "https://api.kod.mobi/session#hunter2",
        "https://api.kod.mobi#",
        "https://api.kod.mobi/a;b",
        # what parsers read in different ways
        "https://api.kod.mobi\\session",
        "https://api.kod.mobi\\@evil.example",
        "https:\\\\api.kod.mobi",
        " https://api.kod.mobi",
        "https://api.kod.mobi ",
        "https://api.kod.mobi/ses sion",
        "https://api .kod.mobi",
        "https://api.kod.mobi\n",
        "https://api.kod.mobi/\r\nx-admin: 1",
        "https://api.kod.mobi/\t",
        "https://api.kod.mobi/\x00",
        "https://api.kod.mobi\N{FULLWIDTH SOLIDUS}session",
        "https://api\N{IDEOGRAPHIC FULL STOP}kod.mobi",
        "https://\N{CIRCLED LATIN SMALL LETTER A}pi.kod.mobi",
        "http://127.0.0.\N{FULLWIDTH DIGIT ONE}",
        "http://\N{LATIN SMALL LETTER LONG S}ocalhost",
        "https://кот.example",
        "https://-api.kod.mobi",
        "https://api.kod.mobi.",
        "https://api_kod.mobi",
        "https://api.kod.mobi/é",
        # ports
        "https://api.kod.mobi:",
        "https://api.kod.mobi:/session",
        "https://api.kod.mobi:0",
        "https://api.kod.mobi:65536",
        "https://api.kod.mobi:99999",
        "https://api.kod.mobi:100000",
        "https://api.kod.mobi:-1",
        "https://api.kod.mobi:+80",
        "https://api.kod.mobi:80a",
        "https://api.kod.mobi:8_0",
        "https://api.kod.mobi:80:80",
        "https://api.kod.mobi:\N{SUPERSCRIPT TWO}",
        "https://:443",
    ],
    ids=label,
)
def test_what_is_no_plain_address_is_refused_without_being_repeated(address: Any) -> None:
    for allow_http in (False, True):
        with pytest.raises(ConfigurationError, match="base_url takes an address like") as caught:
            resolve_base_url(address, allow_http=allow_http)
        error = caught.value
        assert "hunter2" not in f"{error!r} {vars(error)}"
        assert len(str(error)) < 300


@pytest.mark.parametrize("host", ["[1.2.3.4]", "[:::]", "[1::2::3]", "[12345::]", "[.]", "[1:2:3:4:5:6:7:8:9]"])
def test_a_wrong_ipv6_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="wrong IPv6 address"):
        resolve_base_url(f"https://{host}:443/session", allow_http=False)


@pytest.mark.parametrize("host", ["[]", "[::1", "::1", "[fe80::1%eth0]", "[::1]x", "[[::1]]", "[v1.x]"])
def test_what_is_no_ipv6_address_at_all_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url takes an address like"):
        resolve_base_url(f"https://{host}/session", allow_http=False)


@given(st.text(max_size=60) | st.from_regex(r"https?://[!-~]{0,40}"))
def test_every_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = resolve_base_url(text, allow_http=False)
    except ConfigurationError:
        return
    assert resolve_base_url(address, allow_http=False) == address
    assert text.rstrip("/") == address
    assert not set(address) & set("@?#\\ ")


def test_a_hostile_address_of_a_megabyte_is_refused_without_ado() -> None:
    for address in ("https://" + "a." * 500_000, "https://a" + "/a" * 500_000 + "?", "https://" + "-" * 1_000_000):
        with pytest.raises(ConfigurationError):
            resolve_base_url(address, allow_http=False)


# -- where the address comes from --------------------------------------------------------------------------------------


def test_without_an_argument_the_address_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BASE_URL_VARIABLE, " https://kod.example/v2/\n")
    assert resolve_base_url(None, allow_http=False) == "https://kod.example/v2"
    assert repr(KodmobiClient("key")) == "<KodmobiClient https://kod.example/v2>"


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_without_a_variable_the_address_is_the_documented_one(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(BASE_URL_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(BASE_URL_VARIABLE, value)
    assert resolve_base_url(None, allow_http=False) == DEFAULT_BASE_URL == "https://api.kod.mobi/session"


def test_an_address_that_is_given_counts_whatever_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BASE_URL_VARIABLE, "no address")
    assert resolve_base_url("https://kod.example", allow_http=False) == "https://kod.example"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://user:hunter2@kod.example", " takes an address like"),
        ("https://[:::]/hunter2", " holds a wrong IPv6 address"),
        ("http://kod.example/hunter2", " is http:// to another machine"),
    ],
)
def test_a_wrong_address_is_refused_in_the_name_of_where_it_was_set(
    monkeypatch: pytest.MonkeyPatch, address: str, words: str
) -> None:
    monkeypatch.setenv(BASE_URL_VARIABLE, address)
    with pytest.raises(ConfigurationError) as of_the_variable:
        KodmobiClient("key")
    with pytest.raises(ConfigurationError) as of_the_argument:
        KodmobiClient("key", base_url=address.strip())
    assert str(of_the_variable.value).startswith(f"KODMOBI_BASE_URL{words}")
    assert str(of_the_argument.value).startswith(f"base_url{words}")
    assert "hunter2" not in str(of_the_variable.value)


def test_clear_text_to_an_address_of_the_environment_may_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BASE_URL_VARIABLE, "http://kod.example")
    assert repr(KodmobiClient("key", allow_http=True)) == "<KodmobiClient http://kod.example>"


# -- the language -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", [None, "en", "ru", "EN", "pt-BR", "zh-Hant-TW", "ru, en;q=0.5", "*", "x" * 100])
def test_a_language_is_taken_as_it_is(language: str | None) -> None:
    assert check_language(language) == language


@pytest.mark.parametrize(
    "language",
    ["", " en", "-en", "en\n", "en\r\nx-admin: 1", "e\x00n", "русский", "en_US", 'en"', "x" * 101, b"en", 1, True],
)
def test_a_language_that_could_not_stand_in_a_header_is_refused(language: object) -> None:
    with pytest.raises(ConfigurationError, match="language takes a tag"):
        check_language(language)
