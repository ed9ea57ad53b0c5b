"""Sends as tasks, for a fleet of workers on any Taskiq broker (extra ``taskiq``).

resend = add_resend(broker, open_client)          # in the module that `taskiq worker` is given
async for outcome in send_through(resend, requests):  # wherever the requests are

A send may be handed over more than once: its worker died, or it was put into the queue again. Of all runs that are
given the same send, one begins it: to ask whether it was begun, and to begin it, is one step. A run that finds it
begun by another one never sends. It waits until the other one can be taken for dead, and asks the service whether the
code arrived; if the service does not tell, the outcome is unknown.

That step takes the result backend of taskiq-redis, or Taskiq's own in memory. Other backends must keep progress, which
serves as a note; there, two runs at the same moment may both begin, and it is the service's window that keeps a second
code away. A broker that acknowledges messages, such as Redis Streams, loses no task with its worker.
"""

from __future__ import annotations

from kodmobi_async.integrations.taskiq._feed import send_through
from kodmobi_async.integrations.taskiq._message import WorkerProgress
from kodmobi_async.integrations.taskiq._tasks import ResendTask, add_resend

__all__ = ("ResendTask", "WorkerProgress", "add_resend", "send_through")
