"""The variables of the environment that the client reads, and so does the command line."""

from __future__ import annotations

from typing import Final

API_KEY_VARIABLE: Final = "KODMOBI_API_KEY"
SECRET_KEY_VARIABLE: Final = "KODMOBI_SECRET_KEY"  # noqa: S105 its name is no secret
BASE_URL_VARIABLE: Final = "KODMOBI_BASE_URL"
DEFAULT_BASE_URL: Final = "https://api.kod.mobi/session"
"""What the client takes where neither an argument nor the variable names an address."""
