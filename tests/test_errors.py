"""The tree of errors: what it promises of each."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from typing import TYPE_CHECKING

import pytest

import kodmobi_async
from kodmobi_async._values import errors as _errors
from kodmobi_async._values.errors import (
    AuthenticationError,
    BadRequestError,
    BalanceError,
    BulkStoppedError,
    ChallengeError,
    ChannelUnavailableError,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    InvalidRequestError,
    KodmobiError,
    LimitsUnavailableError,
    NotFoundError,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    RecipientBlockedError,
    ResponseError,
    SendInterruptedError,
    ServerError,
    SessionExpiredError,
    TransportError,
    UnreadableResponseError,
    WrongCodeError,
    WrongLoopError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TREE: dict[type[KodmobiError], type[Exception]] = {
    KodmobiError: Exception,
    ConfigurationError: KodmobiError,
    InvalidRequestError: KodmobiError,
    ClientClosedError: KodmobiError,
    WrongLoopError: KodmobiError,
    CooldownError: KodmobiError,
    CooldownUnavailableError: KodmobiError,
    LimitsUnavailableError: KodmobiError,
    TransportError: KodmobiError,
    OutcomeUnknownError: KodmobiError,
    UnreadableResponseError: KodmobiError,
    SendInterruptedError: KodmobiError,
    BulkStoppedError: KodmobiError,
    ResponseError: KodmobiError,
    BadRequestError: ResponseError,
    WrongCodeError: ResponseError,
    AuthenticationError: ResponseError,
    NotFoundError: ResponseError,
    SessionExpiredError: ResponseError,
    ChannelUnavailableError: ResponseError,
    RecipientBlockedError: ResponseError,
    ChallengeError: ResponseError,
    BalanceError: ResponseError,
    RateLimitedError: ResponseError,
    ServerError: ResponseError,
}
ALSO_VALUE_ERRORS = {ConfigurationError, InvalidRequestError}


def descendants(kind: type[KodmobiError]) -> Iterator[type[KodmobiError]]:
    """Yield the class and all that derive from it in the package; classes of users are none of its business."""
    if kind.__module__.partition(".")[0] == "kodmobi_async":
        yield kind
        for child in kind.__subclasses__():
            yield from descendants(child)


def drawn() -> dict[str, str]:
    """Return, from the picture in the module's docstring, each class and its parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        match = re.match(r"    (?P<branches>(?:[│ ]   |[├└]── )*)(?P<name>[A-Z]\w+)", line)
        if match:
            depth = len(match["branches"]) // 4
            path[depth:] = [match["name"]]
            parents[match["name"]] = path[depth - 1] if depth else "Exception"
    return parents


def made(kind: type[KodmobiError], outcome: Outcome | None = None) -> KodmobiError:
    """Return an error of this kind with every number set to something of its own."""
    if issubclass(kind, CooldownError):
        return kind("x", retry_after=12.5, session_id="01K", channel="sms", outcome=outcome)
    if issubclass(kind, OutcomeUnknownError):
        return kind("x", safe_after=59.5, outcome=outcome)
    if issubclass(kind, BulkStoppedError):
        return kind("x", done=7, error=AuthenticationError("y", status=401), outcome=outcome)
    if issubclass(kind, ResponseError):
        return kind("x", status=418, sys_message="ERROR_X", message="Words.", retry_after=3.5, outcome=outcome)
    return kind("x", outcome=outcome)


every_error = pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)


def test_the_tree_has_no_orphans() -> None:
    assert set(descendants(KodmobiError)) == set(TREE)
    named = {
        value
        for name, module in sys.modules.copy().items()
        if name.partition(".")[0] == "kodmobi_async" and name.startswith("kodmobi_async._")
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception)
        if value.__module__ == name and value.__name__[0] != "_"
    }
    assert named == set(TREE)


@every_error
def test_an_error_hangs_where_the_tree_says(kind: type[KodmobiError]) -> None:
    assert kind.__bases__[0] is TREE[kind]
    assert issubclass(kind, ValueError) is (kind in ALSO_VALUE_ERRORS)
    assert isinstance(made(kind), ValueError) is (kind in ALSO_VALUE_ERRORS)
    assert not issubclass(kind, OSError)


@every_error
def test_an_error_is_exported_and_documented(kind: type[KodmobiError]) -> None:
    assert kind.__name__ in kodmobi_async.__all__
    assert getattr(kodmobi_async, kind.__name__) is kind
    assert kind.__doc__


def test_the_picture_of_the_tree_is_true() -> None:
    assert drawn() == {kind.__name__: parent.__name__ for kind, parent in TREE.items()}


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (KodmobiError, {"outcome", "retryable"}),
        (CooldownError, {"outcome", "retry_after", "available_at", "session_id", "channel"}),
        (OutcomeUnknownError, {"outcome", "safe_after"}),
        (BulkStoppedError, {"outcome", "done", "error"}),
        (
            ResponseError,
            {"outcome", "status", "sys_message", "message", "retry_after", "error_params", "errors", "request_id"},
        ),
    ],
)
def test_the_picture_names_every_attribute(kind: type[KodmobiError], attributes: set[str]) -> None:
    (line,) = re.findall(rf"^.*\b{kind.__name__} .*$", (_errors.__doc__ or "").partition("::")[2], re.MULTILINE)
    error = made(kind, Outcome.UNKNOWN)
    computed = {name for name, value in vars(kind).items() if isinstance(value, property)}
    assert {name for name in {*vars(error), *computed} if name[0] != "_"} == attributes
    assert {"outcome", *re.findall(r"\.([a-z_]+)", line)} == attributes


@every_error
def test_without_a_word_on_it_an_error_has_its_kinds_outcome(kind: type[KodmobiError]) -> None:
    expected = {
        OutcomeUnknownError: Outcome.UNKNOWN,
        UnreadableResponseError: Outcome.ACCEPTED,
        BulkStoppedError: Outcome.REFUSED,  # that of the error it tells of
    }.get(kind, Outcome.REFUSED if issubclass(kind, ResponseError) else Outcome.NOT_SENT)
    assert made(kind).outcome is expected


@every_error
@pytest.mark.parametrize("outcome", Outcome)
def test_the_outcome_that_an_error_is_given_counts(kind: type[KodmobiError], outcome: Outcome) -> None:
    assert made(kind, outcome).outcome is outcome


def through(protocol: int) -> Callable[[KodmobiError], KodmobiError]:
    def round_trip(error: KodmobiError) -> KodmobiError:
        loaded: KodmobiError = pickle.loads(pickle.dumps(error, protocol))
        return loaded

    return round_trip


@every_error
@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, *(through(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))],
    ids=["copy", "deepcopy", *(f"pickle {protocol}" for protocol in range(pickle.HIGHEST_PROTOCOL + 1))],
)
def test_an_error_comes_through_copying_and_pickling_whole(
    kind: type[KodmobiError], again: Callable[[KodmobiError], KodmobiError]
) -> None:
    for outcome in Outcome:
        error = made(kind, outcome)
        error.args = ("x; the client's retry budget is empty",)
        error.add_note("seen by a test")
        twin = again(error)
        assert twin is not error
        assert type(twin) is kind
        assert twin.args == error.args
        assert str(twin) == str(error)
        # (two errors are never equal, and one of them holds another)
        assert {name: repr(value) for name, value in vars(twin).items()} == {
            name: repr(value) for name, value in vars(error).items()
        }
        assert twin.outcome is outcome
        assert twin.to_dict() == error.to_dict()


def test_a_users_own_kind_of_error_comes_through_too() -> None:
    twin = pickle.loads(pickle.dumps(QuotaError("x", left=3)))
    assert (type(twin), twin.left, str(twin), twin.outcome) == (QuotaError, 3, "x", Outcome.REFUSED)


class QuotaError(KodmobiError):
    outcome = Outcome.REFUSED

    def __init__(self, message: str, *, left: int) -> None:
        super().__init__(message)
        self.left = left


def test_the_outcomes_are_the_four_words() -> None:
    assert [str(outcome) for outcome in Outcome] == ["not_sent", "refused", "unknown", "accepted"]
