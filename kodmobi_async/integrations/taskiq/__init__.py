"""Sends as tasks, for a fleet of workers on any Taskiq broker (extra ``taskiq``).

resend = add_resend(broker, open_client)          # in the module that `taskiq worker` is given
async for outcome in send_through(resend, requests):  # wherever the requests are

A task may be delivered more than once: its worker died, or the request was put into the queue again. So a run notes in
the result backend that it begins to send, before it does. A run that finds such a note, and no result, never sends: it
asks the service whether the code arrived, and if that is not known, the outcome is unknown. So a task that runs again
sends no code twice. Two runs at the same moment may both begin, before either has noted it; then it is the service's
window that keeps a second code away.

The broker needs a result backend that keeps progress, as taskiq-redis's does. A broker that acknowledges messages, such
as Redis Streams, loses no task with its worker.
"""

from __future__ import annotations

from kodmobi_async.integrations.taskiq._feed import send_through
from kodmobi_async.integrations.taskiq._worker import ResendTask, add_resend

__all__ = ("ResendTask", "add_resend", "send_through")
