"""Several processes, one window: on a real Valkey, over real HTTP, with servers and workers that are killed.

Set ``KODMOBI_THOROUGH=1`` for 50 rounds instead of 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from fleet_worker import make_fleet
from ports import kept_port
from valkey_server import lossy_proxy, running_valkey

from kodmobi_async import Outcome
from kodmobi_async.integrations.taskiq import send_through

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from valkey_server import Valkey

    from kodmobi_async.emulator import Emulator

pytestmark = pytest.mark.real_clock

LONG = os.environ.get("KODMOBI_THOROUGH") == "1"
TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"
PROCESSES = 8
SENDS = 500
ROUNDS = 50 if LONG else 2


def environment(emulator: Emulator, redis_url: str) -> dict[str, str]:
    paths = os.pathsep.join([str(TESTS.parent), str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "PYTHONPATH": paths,
        "KODMOBI_API_KEY": emulator.api_key,
        "KODMOBI_BASE_URL": emulator.base_url,
        "REDIS_URL": redis_url,
    }


@contextlib.asynccontextmanager
async def started(emulator: Emulator, redis_url: str, *arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run Python with these arguments, with a process group of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(emulator, redis_url),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


class Crowd:
    """Processes that send the same code at the same moment."""

    def __init__(self, emulator: Emulator, processes: list[asyncio.subprocess.Process]) -> None:
        self._emulator = emulator
        self._processes = processes
        self.longest = 0.0

    async def hammer(self, sends: int = SENDS) -> tuple[Counter[str], int, int]:
        """Send; return how the calls ended, how many requests were made and how many codes were delivered."""
        session = self._emulator.add_session()
        before = self._emulator.requests["send"]
        order = json.dumps({"session_id": session, "sends": sends}).encode() + b"\n"
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(order)
        results: Counter[str] = Counter()
        for process in self._processes:
            assert process.stdout is not None
            answer: dict[str, Any] = json.loads(await process.stdout.readline())
            results.update(answer["results"])
            self.longest = max(self.longest, answer["longest"])
        return results, self._emulator.requests["send"] - before, len(self._emulator.delivered(session))


@contextlib.asynccontextmanager
async def crowd(emulator: Emulator, redis_url: str, processes: int = PROCESSES) -> AsyncGenerator[Crowd]:
    async with contextlib.AsyncExitStack() as stack:
        worker = str(TESTS / "shared_worker.py")
        running = [await stack.enter_async_context(started(emulator, redis_url, worker)) for _ in range(processes)]
        for process in running:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        yield Crowd(emulator, running)
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        for process in running:
            assert await process.wait() == 0


async def test_of_many_processes_one_sends(emulator: Emulator, valkey: Valkey) -> None:
    async with crowd(emulator, valkey.url) as together:
        for _ in range(ROUNDS):
            results, requests, codes = await together.hammer()
            assert (requests, codes) == (1, 1)
            assert results == {"sent, shared": 1, "CooldownError": PROCESSES * SENDS - 1}


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    with running_valkey() as valkey:
        yield valkey


async def test_whatever_happens_to_the_server_there_is_one_code_a_window(
    emulator: Emulator, own_valkey: Valkey
) -> None:
    """During an outage the processes do not know of each other. The service refuses the second code itself."""
    seen: Counter[str] = Counter()

    async def check() -> None:
        results, requests, codes = await together.hammer()
        assert codes == 1
        assert requests <= PROCESSES
        assert sum(results.values()) == PROCESSES * SENDS
        assert results.keys() <= {"sent, shared", "sent, local", "CooldownError"}
        seen.update(results)

    async with lossy_proxy(own_valkey.port) as proxy, crowd(emulator, proxy.url) as together:
        for _ in range(max(1, ROUNDS // 5)):
            own_valkey.pause()
            await check()
            own_valkey.go_on()
            await check()
            own_valkey.kill()
            await check()
            own_valkey.start()
            await check()
            proxy.loss = 0.3
            for _ in range(3):
                await check()
            proxy.loss = 0.0
    assert seen["sent, local"] > 0
    # half a second for two decisions; the rest is for the request, on a busy machine
    assert together.longest < 0.5 + 3.0


async def test_a_fastapi_service_of_two_workers_sends_once(emulator: Emulator, valkey: Valkey, session: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        port = str(stack.enter_context(kept_port()))
        service = ["-m", "uvicorn", "fastapi_service:app", "--workers", "2", "--port", port, "--log-level", "warning"]
        await stack.enter_async_context(started(emulator, valkey.url, *service))
        http = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))
        for _ in range(600):
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with http.get("/docs") as answer:
                    assert answer.status == 200
                    break
            await asyncio.sleep(0.05)

        async def press() -> tuple[int, str | None]:
            # a connection each, so that both workers have their share
            async with http.post(f"/resend/{session}/sms", headers={"Connection": "close"}) as answer:
                return answer.status, answer.headers.get("Retry-After")

        answers = Counter(await asyncio.gather(*(press() for _ in range(100))))
    assert answers[200, None] == 1
    assert answers.keys() - {(200, None)} <= {(429, "60"), (429, "59")}
    assert emulator.requests["send"] == 1


async def test_a_worker_killed_in_the_middle_leaves_no_task_without_an_outcome(
    emulator: Emulator, valkey: Valkey
) -> None:
    sessions = [emulator.add_session() for _ in range(1_000 if LONG else 200)]
    worker = str(TESTS / "fleet_worker.py")
    broker, resend = make_fleet(valkey.url)
    await broker.startup()
    outcomes: dict[str, Outcome] = {}
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(started(emulator, valkey.url, worker))
        requests = [(session, "sms") for session in sessions]
        async for outcome in send_through(resend, requests, outstanding=len(sessions), requeue_after=3.0):
            if not outcomes:
                first.kill()
                await stack.enter_async_context(started(emulator, valkey.url, worker))
            known = Outcome.ACCEPTED if outcome.error is None else outcome.error.outcome
            outcomes[str(outcome.request.session_id)] = known
    await broker.shutdown()
    assert outcomes.keys() == set(sessions)
    for session, known in outcomes.items():
        codes = len(emulator.delivered(session))
        assert codes <= 1
        assert known is Outcome.UNKNOWN or codes == (known is Outcome.ACCEPTED)


async def test_the_example_of_a_taskiq_worker_sends(emulator: Emulator, valkey: Valkey) -> None:
    sessions = [emulator.add_session() for _ in range(5)]
    broker, resend = make_fleet(valkey.url)
    await broker.startup()
    command = ["-m", "taskiq", "worker", "taskiq_worker:broker", "--workers", "1", "--log-level", "WARNING"]
    async with started(emulator, valkey.url, *command):
        requests = [(session, "sms") for session in sessions]
        found = [outcome async for outcome in send_through(resend, requests)]
    await broker.shutdown()
    assert [outcome.error for outcome in found] == [None] * 5
    assert {outcome.result.window for outcome in found if outcome.result is not None} == {"shared"}
