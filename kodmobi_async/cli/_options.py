"""The arguments and options that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kodmobi_async.cli._variables import BASE_URL_VARIABLE, DEFAULT_BASE_URL

__all__ = (
    "AllowHttp",
    "ApiKeyFile",
    "AsJson",
    "BaseUrl",
    "ChannelName",
    "Emulate",
    "Language",
    "OptionalSessionId",
    "Recipient",
    "SecretKeyFile",
    "SessionId",
    "TimeoutSeconds",
    "ToChannel",
    "file_option",
)

SessionId = Annotated[str, typer.Argument(metavar="SESSION_ID", help="The session's ULID.", show_default=False)]
ChannelName = Annotated[
    str, typer.Argument(metavar="CHANNEL", help="telegram, whatsapp, sms, email, ...", show_default=False)
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Address and path prefix of the API.",
        show_default=f"{BASE_URL_VARIABLE}, else {DEFAULT_BASE_URL}",
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="File with the API key, instead of the variable KODMOBI_API_KEY."),
]
Emulate = Annotated[
    bool, typer.Option("--emulate", metavar="", help="Start an emulator for this run and use it; needs no key.")
]
Language = Annotated[str | None, typer.Option(metavar="L", help="Of the service's messages: en or ru.")]
TimeoutSeconds = Annotated[
    float | None, typer.Option(metavar="S", help="Seconds for all attempts together.", show_default="30")
]
AllowHttp = Annotated[
    bool,
    typer.Option("--allow-http", metavar="", help="Allow http:// to another machine: the key travels in clear text."),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Write the result, or the error, as JSON.")]


OptionalSessionId = Annotated[
    str | None, typer.Argument(metavar="[SESSION_ID]", help="The session's ULID.", show_default=False)
]
Recipient = Annotated[
    str,
    typer.Argument(metavar="TO", help="Phone number with + and country code, or email address.", show_default=False),
]
ToChannel = Annotated[
    str | None, typer.Option("--channel", metavar="C", help="telegram, sms, ...", show_default="the service's choice")
]
SecretKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="File with the secret key, instead of the variable KODMOBI_SECRET_KEY."),
]


def file_option(text: str) -> typer.models.OptionInfo:
    """Return an option that takes the name of a file."""
    option: typer.models.OptionInfo = typer.Option(metavar="FILE", help=text)
    return option
