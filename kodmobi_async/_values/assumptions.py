"""What the service's documentation leaves open, and what this client does about it: every such choice stands here.

- A second send on a channel is refused for ``WINDOW`` seconds: the documentation's "60 seconds sending timeout" is read
  as a promise. That is what makes it safe to repeat a request whose response was lost.
- A channel's ``timeout`` above 0 means that a code was sent on it. One that began since a request was made was begun by
  that request, unless the tracker knows better. The service may round the number by ``GRAIN`` seconds.
- ``ERROR_MESSAGE_ATTEMPT`` under any 4xx status means "too soon". A 429 without it limits the whole account.
- A 4xx or a 503 says that the request was not carried out; 408, 421, 425 and 503 are worth another attempt. A 3xx or
  any other 5xx says nothing about it. A 2xx means accepted, whatever its body holds, unless it names another session.
- ``create`` with ``send: true`` may respond without having sent: a code counts as sent only where the channel that
  ``sent_to`` names, or the one asked for, is blocked by a window that began with this request. So it is if its
  ``timeout`` says so, or if the session itself began with this request: it lives for ``SESSION_LIFETIME`` seconds.
- ``create`` with ``send: false`` sends nothing and returns the same live session for the same recipient.
- ``check`` and ``verify`` use up a code, or a token, as soon as the service reads them; so neither is ever repeated
  after its response was lost.
- ``verify`` lives at ``VERIFY_PATH`` below the base address, takes the secret key, and names the recipient as
  ``phone``, ``email`` or ``to``, at the top or in ``data``. A phone number of digits alone lacks its plus sign.
- A CAPTCHA's token travels in ``CHALLENGE_HEADER``.
- Codes have from ``SHORTEST_CODE`` to ``LONGEST_CODE`` characters; the documentation says 4 to 6 for codes of one's
  own.
- ``session_expired_at`` without an offset is in UTC. It is compared only with the ``Date`` of the same response.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 60.0
"""Seconds for which a channel is blocked after a send. Source: "Each channel has 60 seconds sending timeout"."""

SESSION_LIFETIME: Final = 180.0
"""Seconds that a session lives. Source: "session valid 3 minutes"."""

GRAIN: Final = 1.0
"""Seconds by which the service may round a channel's ``timeout``."""

SHORTEST_BLOCK: Final = 1.0
"""Seconds for which a channel is blocked at least when the service says "too soon"."""

MAX_WAIT_SECONDS: Final = 86_400.0
"""No wait that the service asks for is believed beyond a day; a longer one is cut to this."""

VERIFY_PATH: Final = "/verify"
CHALLENGE_HEADER: Final = "X-CF-TURNSTILE-TOKEN"
REQUEST_ID_HEADER: Final = "X-Request-Id"
SHORTEST_CODE: Final = 4
LONGEST_CODE: Final = 10
