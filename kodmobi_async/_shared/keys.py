"""The keys of shared slots: a hash for each session and channel."""

from __future__ import annotations

import hashlib

from kodmobi_async._values.errors import ConfigurationError


class Keys:
    """Makes keys from which nobody can tell a session id.

    Args:
        prefix: What all keys begin with.
        secret: A key for the hash.

    Raises:
        ConfigurationError: These are not strings.
    """

    def __init__(self, prefix: str, secret: str | bytes) -> None:
        if not isinstance(prefix, str):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise ConfigurationError("prefix takes a string")
        if not isinstance(secret, (str, bytes)):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise ConfigurationError("secret takes a string, or bytes")
        secret = secret.encode() if isinstance(secret, str) else secret
        self.prefix = prefix
        self.probe: str = f"{prefix}probe"
        """The key of a slot that no caller uses."""
        self._hash = hashlib.blake2b(digest_size=20, key=hashlib.blake2b(secret).digest(), person=b"kodmobi_async")

    def of(self, session_id: str, channel: str) -> str:
        """Return the key of a session and a channel, whatever the channel's case."""
        digest = self._hash.copy()
        digest.update(f"{session_id}:{channel.lower()}".encode())  # a canonical session id has no colon
        return self.prefix + digest.hexdigest()
