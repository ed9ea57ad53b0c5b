"""How ``kodmobi bulk`` is asked to work its input."""

from __future__ import annotations

from pathlib import Path

import attrs

from kodmobi_async import ConfigurationError, Limits
from kodmobi_async.cli._files import Files, check_apart

__all__ = ("Options",)


@attrs.frozen(kw_only=True)
class Options:
    """How to work the input; checked when built.

    Raises:
        ConfigurationError: One of them makes no sense.
    """

    source: str
    channel: str | None
    concurrency: int
    rate: float | None
    max_wait: float
    journal: Path | None
    retry_failed: bool
    files: Files
    quiet: bool
    queue: str | None = attrs.field(default=None, repr=False)
    """Where the workers are that send; ``None``: this process sends."""

    def __attrs_post_init__(self) -> None:
        if not self.max_wait >= 0:
            raise ConfigurationError("--max-wait takes 0 or more seconds")
        if self.concurrency < 1:
            raise ConfigurationError("--concurrency takes 1 or more")
        Limits(rate=self.rate)
        check_apart(self.source, self.journal, self.files)
