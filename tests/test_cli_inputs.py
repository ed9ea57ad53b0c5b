"""The files that people have: their headers, their keys, their encodings; and those that hold no sessions."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import tracemalloc
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from background import Background, emulator_in_background
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kodmobi_async import ConfigurationError
from kodmobi_async.cli import main
from kodmobi_async.cli._columns import Columns
from kodmobi_async.cli._rows import BadRow, Input, Row, example_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "key-of-these-tests"
ONE, TWO, THREE = "01K8N1VMPN0EE389K72YW0CBM2", "01K8N1VMPN0EE389K72YW0CBM3", "01K8N1VMPN0EE389K72YW0CBM4"
KNOWN = Columns()
BOTH = [(ONE, "sms"), (TWO, "telegram")]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KODMOBI_API_KEY", "KODMOBI_BASE_URL", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input"


@contextmanager
def opened(content: bytes, channel: str | None = None, columns: Columns = KNOWN) -> Iterator[Input]:
    """Open an input with this content, through a file of that the system alone knows the name."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with Input.open(file.name, channel, columns) as found:
            yield found


def read(content: bytes | str, channel: str | None = None, columns: Columns = KNOWN) -> list[Row | BadRow]:
    with opened(content.encode() if isinstance(content, str) else content, channel, columns) as found:
        rows = list(found)
        assert len(rows) == found.rows
        return rows


def pairs(rows: list[Row | BadRow]) -> list[tuple[str, str]]:
    """Return what the rows say, all of which have to be good."""
    assert [row for row in rows if isinstance(row, BadRow)] == []
    return [(str(row.session_id), str(row.channel)) for row in rows if isinstance(row, Row)]


def refusal(content: bytes | str, channel: str | None = "sms", columns: Columns = KNOWN) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(content, channel, columns)
    return str(caught.value)


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "session", ["session_id", "Session ID", "sessionId", "SESSION-ID", "session.id", '"Session Id"']
)
@pytest.mark.parametrize("channel", ["channel", "Channel", "type", "TYPE", '"Type"'])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_header_counts_by_its_letters_and_digits(session: str, channel: str, delimiter: str) -> None:
    lines = [(channel, "note", session), ("sms", "", ONE), ("telegram", "x", TWO)]
    assert pairs(read("\n".join(map(delimiter.join, lines)))) == BOTH


@pytest.mark.parametrize("session", ["session_id", "Session ID", "sessionId", "SESSION-ID"])
@pytest.mark.parametrize("channel", ["channel", "Channel", "type"])
def test_a_key_of_json_lines_counts_by_its_letters_and_digits(session: str, channel: str) -> None:
    rows = [{session: ONE, channel: "sms"}, {channel: "telegram", "more": [1], session: TWO}]
    assert pairs(read("\n".join(map(json.dumps, rows)))) == BOTH


def test_rows_of_json_lines_may_have_keys_of_their_own() -> None:
    rows = [{"session_id": ONE, "type": "sms"}, {"sessionId": TWO, "channel": "telegram"}]
    assert pairs(read("\t " + "\n\n  ".join(map(json.dumps, rows)))) == BOTH


@pytest.mark.parametrize(
    ("channel", "kind", "expected"),
    [
        ("sms", "sms", "sms"),
        ("SMS", "sms", "sms"),
        ("", "sms", "sms"),
        ("sms", "", "sms"),
        ("", "", "email"),
        ("sms", "telegram", "channel, type differ: choose one with --channel-column"),
    ],
)
def test_channel_and_type_in_one_row_have_to_agree(channel: str, kind: str, expected: str) -> None:
    for content in (
        f"session_id,channel,type\n{ONE},{channel},{kind}\n",
        json.dumps({"session_id": ONE, "channel": channel, "type": kind}),
        json.dumps({"session_id": ONE, "channel": channel or None, "type": kind or None}),
    ):
        (row,) = read(content, "email")
        assert (row.reason if isinstance(row, BadRow) else row.channel) == expected
        (row,) = read(content, "email", Columns(channel="type"))
        assert isinstance(row, Row)
        assert row.channel == (kind or "email")


def test_two_keys_of_a_session_have_to_agree_whatever_they_hold() -> None:
    rows = read(
        f'{{"session_id": "{ONE}", "sessionId": "{ONE.lower()}", "type": "sms"}}\n'
        f'{{"session_id": "{ONE}", "sessionId": "{TWO}", "type": "sms"}}\n'
        f'{{"session_id": [1], "sessionId": {{}}, "type": "sms"}}\n'
    )
    assert isinstance(rows[0], Row)
    assert [row.reason for row in rows[1:] if isinstance(row, BadRow)] == [
        "session_id, sessionId differ: choose one with --session-column"
    ] * 2


def test_a_short_row_lacks_the_second_of_two_channels() -> None:
    assert pairs(read(f"session_id,channel,type\n{ONE},sms\n{TWO},,telegram\n")) == BOTH


@pytest.mark.parametrize(
    "content",
    [
        f"ID,id,via\nx,{ONE},sms\ny,{TWO},telegram\n",
        f"Via;Id;more;id\nsms;x;;{ONE}\ntelegram;y;;{TWO}\n",
        f'{{"id": "{ONE}", "VIA": "sms", "session_id": 1, "channel": 2}}\n{{"id": "{TWO}", "via": "telegram"}}\n',
    ],
)
def test_columns_and_keys_may_be_named_and_their_exact_spelling_counts_first(content: str) -> None:
    assert pairs(read(content, None, Columns(" id ", "via"))) == BOTH


def test_a_column_that_is_named_is_no_other() -> None:
    assert pairs(read(f"type,channel\n{ONE},sms\n{TWO},telegram", None, Columns(session="Type"))) == BOTH
    assert pairs(read(f"type\n{ONE}\n", "sms", Columns(session="type"))) == [(ONE, "sms")]
    words = refusal(f"session_id,x\n{ONE},sms\n", None, Columns(channel="session_id"))
    assert words.startswith("the first line of the input is neither a row nor a header with a session_id")


def test_a_name_without_letters_is_taken_as_it_is() -> None:
    assert pairs(read(f"#,№\n{ONE},sms\n{TWO},telegram\n", None, Columns("#", "№"))) == BOTH
    assert refusal(f"session_id,-\n{ONE},sms\n", None, Columns(channel="#")).startswith("--channel-column names a col")


def test_the_delimiter_is_the_one_that_shows_the_session() -> None:
    assert pairs(read(f"last, first name\tsession_id\tchannel\nx, y\t{ONE}\tsms\n\t{TWO}\ttelegram\n")) == BOTH
    assert pairs(read(f"{ONE};sms\n{TWO};telegram\n")) == BOTH
    rows = read(f"{ONE}\tsms, of course\n{ONE}\tsms\n{TWO}\ttelegram\n")
    assert isinstance(rows[0], BadRow)
    assert pairs(rows[1:]) == BOTH


def test_quoted_fields_may_stand_apart() -> None:
    assert pairs(read(f'session_id, "note", channel\n"{ONE}", "a, b", "sms" \n  {TWO}, "", telegram\n')) == BOTH


def test_the_empty_fields_at_the_end_that_a_sheet_has_are_none() -> None:
    assert pairs(read(f"{ONE},sms,,\n{TWO},telegram,,\n")) == BOTH


# -- first lines that are rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        f"{ONE[:-1]},sms",
        "O1K8N1VMPNOEE389K72YWOCBM2X,sms",
        "6f1e0c5a-1111-4222-8333-444455556666,sms",
        "+12025550123,sms",
        "j.doe@example.com",
        ",sms",
        "\0,sms",
        "café,sms".encode("latin-1"),
        '"',
        f"{ONE},sms,more",
        f"x,{ONE}",
    ],
)
def test_one_bad_row_at_the_beginning_makes_no_other_file_of_it(first: str | bytes) -> None:
    line = first.encode() if isinstance(first, str) else first
    rows = read(line + f"\n{TWO},telegram\n{ONE},sms\n".encode())
    assert isinstance(rows[0], BadRow)
    assert pairs(rows[1:]) == BOTH[::-1]


def test_rows_are_found_however_late_the_first_good_one_comes() -> None:
    rows = read("1\n" * 50_000 + f"{ONE},sms\n")
    assert [type(row) for row in rows[-2:]] == [BadRow, Row]


def test_a_session_in_the_first_field_is_a_row_even_if_another_field_is_a_name() -> None:
    rows = read(f"{ONE},session_id\n{TWO},type\n")
    assert pairs(rows) == [(ONE, "session_id"), (TWO, "type")]


def test_keys_are_found_however_late_the_first_row_with_them_comes() -> None:
    columns = Columns("id", "via")
    rows = read('{"x": 1}\n{\n' * 10 + f'{{"id": "{ONE}"}}\n{{"id": "{TWO}", "via": "telegram"}}\n', "sms", columns)
    assert pairs(rows[-2:]) == BOTH


# -- inputs that are refused as a whole -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        ("foo,bar,baz\n1,2,3\n", Columns(), "has foo, bar, baz: name the column of the sessions with --session-column"),
        ("foo\n", Columns(), "it has foo: name"),
        ("Имя;Канал\n", Columns(), "it has Имя, Канал: name"),
        (f"{ONE},sms,x\n{TWO},sms,y\n", Columns(), "3 fields; without a header, a row is session_id,channel"),
        (f"1,{ONE}\n2,{TWO}\n", Columns(), "the first line: session_id is not a ULID"),
        (f"session_id,Session ID\n{ONE},{ONE}\n", Columns(), "two columns of the same name, session_id, Session ID"),
        (f"session_id,type,TYPE\n{ONE},,\n", Columns(), "name the other with --channel-column"),
        (f"id,id\n{ONE},\n", Columns(session="id"), "two columns of the same name, id, id"),
        (f"session_id\n{ONE}\n", Columns(session="id"), "--session-column names a column that the input does not have"),
        (f"session_id\n{ONE}\n", Columns(channel="via"), "does not have; it has session_id"),
        (f"{ONE},sms\n", Columns(session="id"), "--session-column needs a header"),
        (f"{ONE},sms\n", Columns(channel="via"), "--channel-column needs a header"),
        ("1,2\n", Columns(channel="via"), "--channel-column needs a header"),
        (f"via,x\nsms,{ONE}\n", Columns(channel="via"), "nor a header with a session_id; it has via, x"),
        ('{"id": 1, "a@b": 2}\n', Columns(), "has a session_id: the first one has id, …; name another key with"),
        ('{"session_id": 1}\n', Columns(session="id"), "key that --session-column names: the first one has session_id"),
        (f'{{"session_id": "{ONE}"}}', Columns(channel="via"), "the key that --channel-column names"),
        ('{\n  "session_id": 1\n}\n', Columns(), "the first line is not JSON, and JSON Lines has one object a line"),
        (f'[{{"session_id": "{ONE}"}}]', Columns(), "begins like a JSON array"),
        ("  <!DOCTYPE html>\n<html>\n</html>\n", Columns(), "looks like HTML"),
        (f"session_id,channel\r{ONE},sms\r{TWO},sms\r", Columns(), "its lines end in carriage returns alone"),
        ("x" * 70_000, Columns(), "its first line is longer than 65536 bytes"),
    ],
)
def test_an_input_that_says_too_little_is_one_error(content: str, columns: Columns, words: str) -> None:
    assert words in refusal(content, "sms", columns)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it is binary"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "it is binary"),
        (b"GIF89a\x01\0\x01\0\x80\0\0", "it is binary"),
        (b"%PDF-1.4\n%\xe2\xe3\n", "the first line: session_id is not a ULID"),
        (b"\x7fELF\x02\x01\x01\0", "it is binary"),
        (bytes(100_000), "its first line is longer"),
        (f"session_id\tchannel\n{ONE}\tsms\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (f"session_id,channel\n{ONE},sms\n".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        (f"session_id\n{ONE}\n".encode("utf-32"), "text in UTF-32: save it as UTF-8"),
        (b"\0\0\xfe\xff\0\0\0x", "text in UTF-32"),
        (b"PK\x03\x04\x14\0\x06\0", "a zip file or an Excel workbook: save the sheet as CSV"),
        (b"PK\x05\x06" + bytes(18), "an empty zip file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook: save the sheet as CSV"),
        (gzip.compress(b"PK\x03\x04"), "a zip file"),
        (gzip.compress(gzip.compress(ONE.encode())), "compressed twice"),
        (gzip.compress(bytes(100 << 20)), "unpacks to more than 100 times its size"),
        (gzip.compress(ONE.encode()) + b"more", "a damaged gzip file"),
        (b"\x1f\x8b", "a gzip file that was cut off"),
        (b"\x1f\x8b\x07" + bytes(100), "a damaged gzip file"),
    ],
)
def test_a_file_of_another_kind_is_one_error(content: bytes, words: str) -> None:
    assert words in refusal(content)


def test_no_error_shows_what_is_no_name() -> None:
    for private in ("+12025550123", "j.doe@example.com", ONE, "493027", "x" * 41, "a\x1b[31mb"):
        assert private not in refusal(f"foo,{private},session_id,sessionid\n")
        assert private not in refusal(json.dumps({private: 1}))
        assert private not in refusal(f"{private},x,y\n{private},x,y\n")
        assert private not in refusal(f"session_id,{private}\n", None)


def test_what_is_no_json_lines_is_not_helped_by_another_key() -> None:
    assert refusal('{\n  "id": 1\n}\n').endswith("the first line is not JSON, and JSON Lines has one object a line")


def test_a_long_header_is_shown_in_part() -> None:
    assert refusal(",".join("abcdefghijklmnop")).count(",") == 12


def test_a_header_without_a_channel_needs_one_for_all_rows() -> None:
    content = f"name,session_id\nx,{ONE}\n"
    assert "it has name, session_id: name one with --channel-column, or give --channel" in refusal(content, None)
    assert pairs(read(content, "sms")) == [(ONE, "sms")]


def test_nothing_is_refused_in_an_input_without_rows() -> None:
    for content in ("", "\n \n", "\ufeff", "session_id,channel\n"):
        for encoding in ("utf-8", "utf-16"):
            assert read(content.encode(encoding), None) == []
    assert read("", None, Columns("id", "via")) == []


# -- encodings --------------------------------------------------------------------------------------------------------

TEXT = f"Имя\tSession ID\tChannel\r\n\t{ONE}\tsms\r\n\t\t\r\nЖ, ж\t{TWO}\ttelegram\r\nx\tbad\tsms\r\n"
PACKED = {
    "plain": TEXT.encode(),
    "utf-8 with a mark": TEXT.encode("utf-8-sig"),
    "utf-16-le": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "utf-16-be": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "gzip": gzip.compress(TEXT.encode()),
    "gzip in two members": gzip.compress(TEXT.encode()[:99]) + gzip.compress(TEXT.encode()[99:]),
    "gzip of utf-16": gzip.compress(TEXT.encode("utf-16")),
}


@pytest.mark.parametrize("content", PACKED.values(), ids=list(PACKED))
def test_however_a_file_is_packed_its_rows_are_the_same(content: bytes) -> None:
    with opened(content) as found:
        rows = list(found)
        assert found.header == "Имя\tSession ID\tChannel".encode()
    assert [row.line for row in rows] == [2, 4, 5]
    assert pairs(rows[:2]) == BOTH
    assert [row.raw.decode() for row in rows if isinstance(row, Row)] == [f"\t{ONE}\tsms", f"Ж, ж\t{TWO}\ttelegram"]


@pytest.mark.parametrize("name", ["gzip", "gzip of utf-16", "utf-16-le"])
def test_standard_input_may_be_packed_as_well(
    monkeypatch: pytest.MonkeyPatch, path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path.write_bytes(PACKED[name])
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["bulk", "-", "--dry-run", "--json"]) == 8
    assert json.loads(capsys.readouterr().out) == {"rows": 3, "good": 2, "bad": 1}


def test_the_digest_is_that_of_the_file_and_packing_does_not_change_it() -> None:
    digests: dict[str, str] = {}
    for name, content in PACKED.items():
        with opened(content) as found:
            digests[name] = found.digest
    assert digests.pop("utf-8 with a mark") == hashlib.sha256(PACKED["utf-8 with a mark"]).hexdigest()
    assert set(digests.values()) == {hashlib.sha256(PACKED["plain"]).hexdigest()}


def test_what_is_no_character_spoils_no_other_row() -> None:
    lone = "\ud800".encode("utf-16-le", "surrogatepass")
    first = f"session_id\tchannel\tx\n{ONE}\tsms\t".encode("utf-16-le")
    last = (
        f"\n{TWO}\ttele".encode("utf-16-le") + lone + f"gram\n{TWO}\ttelegram\n{ONE}\ttele".encode("utf-16-le") + b"g"
    )
    rows = read(b"\xff\xfe" + first + lone + last)
    assert [row.line for row in rows if isinstance(row, BadRow)] == [3, 5]
    assert pairs([rows[0], rows[2]]) == BOTH


def test_rows_that_are_alike_are_no_bomb_and_a_large_file_is_none_either() -> None:
    alike = f"{ONE},sms\n".encode() * 100_000
    large = f"session_id,channel,x\n{ONE},sms,{'x' * 60_000}\n{TWO},telegram,\n".encode() * 1_200
    for content, level in ((alike, 9), (large, 0)):
        packed = gzip.compress(content, level)
        with opened(packed) as found:
            assert found.digest == hashlib.sha256(content).hexdigest()
    assert len(alike) > 100 * len(gzip.compress(alike))
    assert len(large) > 64 << 20


def test_a_gzip_file_that_was_cut_off_is_refused_wherever_that_was() -> None:
    content = gzip.compress("\n".join(example_rows(20)).encode())
    for length in range(2, len(content)):
        assert refusal(content[:length]) == "the input is a gzip file that was cut off: it ends in the middle"


def test_a_damaged_gzip_file_is_refused_or_holds_the_same() -> None:
    text = "\n".join(example_rows(20)).encode()
    content = gzip.compress(text)
    same, refusals = 0, set[str]()
    for place in range(2, len(content)):
        damaged = content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]
        with ExitStack() as stack:
            try:
                found = stack.enter_context(opened(damaged))
            except ConfigurationError as error:
                refusals.add(str(error))
                continue
            assert found.digest == hashlib.sha256(text).hexdigest()
            same += 1
    assert refusals == {
        "the input is a damaged gzip file",
        "the input is a gzip file that was cut off: it ends in the middle",
    }
    assert same < 12  # the time and the system in its header, and bits that fill up a byte


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=300)
    | st.lists(
        st.sampled_from(["session_id", "type", ONE, "sms", ",", "\t", '"', "{", "}", ":", "\n", "\r", "é", "\0"])
    )
    .map("".join)
    .flatmap(lambda text: st.sampled_from([text.encode(), text.encode("utf-16"), gzip.compress(text.encode())]))
)
def test_every_file_is_read_row_by_row_or_refused_in_one_sentence(content: bytes) -> None:
    message = "x" * 20
    try:
        read(content, "sms")
    except ConfigurationError as error:
        message = str(error)
    assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f]{20,400}", message)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("pack", [bytes, partial(gzip.compress, compresslevel=1)], ids=["plain", "gzip"])
def test_an_input_of_any_length_is_opened_in_the_same_memory(
    path: Path, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    rows = 250_000
    text = "\n".join(example_rows(rows // 50)) + "\n"
    path.write_bytes(pack((text * 50).encode(encoding)))
    tracemalloc.start()
    try:
        with Input.open(str(path), None) as found:
            assert found.rows == rows + 49  # the header again
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) * 50 > 7 << 20
    assert peak < 4 << 20


def test_rows_are_read_in_the_same_memory_however_many_they_are(path: Path) -> None:
    path.write_text("\n".join(example_rows(50_000)))
    with Input.open(str(path), None) as found:
        tracemalloc.start()
        try:
            assert sum(isinstance(row, Row) for row in found) == 50_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1 << 18


def test_a_disk_without_room_to_unpack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object, /) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    for name in ("gzip", "utf-16-le"):
        assert refusal(PACKED[name]) == "the input cannot be read: No space left on device"


# -- on the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    with emulator_in_background(api_key=KEY) as background:
        monkeypatch.setenv("KODMOBI_BASE_URL", background.emulator.base_url)
        for session in (ONE, TWO):
            background.call(background.emulator.add_session, session)
        yield background


def test_a_refused_input_is_exit_2_with_one_error_and_nothing_is_sent(
    service: Background, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(f"foo,bar\n{ONE},sms\n")
    for options in ([], ["--dry-run"], ["--emulate"], ["--quiet"]):
        assert main(["bulk", str(path), "--json", *options]) == 2
        out, err = capsys.readouterr()
        message = json.loads(out)["error"]["message"]
        assert err == f"error: {message}\n"
        assert "--session-column" in message
    assert service.emulator.requests["send"] == 0


def test_columns_are_named_with_options(service: Background, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(f"user;ID;via\nx;{ONE};sms\ny;{TWO};telegram\n")
    assert main(["bulk", str(path), "--session-column", "id", "--channel-column", "Via"]) == 0
    assert {(delivery.session_id, delivery.channel) for delivery in service.emulator.ledger} == set(BOTH)
    assert main(["bulk", str(path), "--session-column", "id", "--channel-column", "id"]) == 2
    assert "name the same column" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gzip of utf-16", "utf-16-be", "plain"])
def test_the_rows_that_failed_can_be_given_in_again(
    service: Background, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path.write_bytes(PACKED[name])
    service.call(service.emulator.expire_session, TWO)
    failed = tmp_path / "failed"
    assert main(["bulk", str(path), "--failed", str(failed)]) == 8
    assert failed.read_text() == f"Имя\tSession ID\tChannel\nЖ, ж\t{TWO}\ttelegram\n"
    service.call(service.emulator.add_session, TWO)
    assert main(["bulk", str(failed)]) == 0
    assert {(delivery.session_id, delivery.channel) for delivery in service.emulator.ledger} == set(BOTH)


def test_a_run_goes_on_with_the_same_rows_however_they_are_packed(
    service: Background, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bulk", str(path), "--quiet", "--journal", str(tmp_path / "journal")]
    for name in ("gzip", "gzip", "plain", "utf-16-le", "gzip of utf-16"):
        path.write_bytes(PACKED[name])
        assert main(command) == 8
    assert len(service.emulator.ledger) == 2
    path.write_bytes(gzip.compress(TEXT.encode() + b"\n"))
    assert main(command) == 2
    assert "the input has changed" in capsys.readouterr().err


def test_a_journal_is_bound_to_the_columns(
    service: Background, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(f"session_id;old;channel\n{ONE};{TWO};sms\n")
    command = ["bulk", str(path), "--quiet", "--journal", str(tmp_path / "journal")]
    assert main(command) == 0
    assert main([*command, "--session-column", "old"]) == 2
    assert "--session-column has changed" in capsys.readouterr().err
    assert main(command) == 0
    assert len(service.emulator.ledger) == 1
