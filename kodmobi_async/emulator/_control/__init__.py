"""The control interface under ``/_emulator``: a look into a running emulator, and changes to it, for any language."""

from __future__ import annotations

from kodmobi_async.emulator._control._serving import Control, serves

__all__ = ("Control", "serves")
