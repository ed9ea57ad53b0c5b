"""However a program ends, it ends in silence: no loop, session or socket is left to complain.

The programs run in a process of their own, in development mode with warnings as errors, as the complaints in question
come when objects are collected or the interpreter goes down.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import pytest
from background import emulator_in_background

# Each program has a client and names of its own; a dot is said when it is over.
RUN: Final = """
import asyncio, gc, os, signal, sys, textwrap
from kodmobi_async import KodmobiClient, Timeout

signal.signal(signal.SIGINT, signal.default_int_handler)
kept = []
for number, program in enumerate(sys.argv[2:]):
    names = {
        **globals(),
        "client": KodmobiClient(base_url=os.environ["BASE_URL"]),
        "session": f"{number:026}",
    }
    if sys.argv[1] == "True":
        kept.append(names.copy())
    exec(textwrap.dedent(program), names)
    names.clear()
    gc.collect()
    print(".")
"""

PROGRAMS: Final = {
    "two runs of one client": """
        asyncio.run(client.send(session, "sms"))
        asyncio.run(client.send(session, "email"))
    """,
    "two runs, then closed in a third": """
        asyncio.run(client.send(session, "sms"))
        asyncio.run(client.send(session, "email"))
        asyncio.run(client.aclose())
    """,
    "never closed, and collected while the loop runs": """
        async def main():
            global client
            await client.send(session, "sms")
            del client
            gc.collect()
            await asyncio.sleep(0.01)

        asyncio.run(main())
    """,
    "never used": """
        del client
        gc.collect()
    """,
    "closed twice": """
        async def main():
            async with client:
                await client.send(session, "sms")
            await client.aclose()

        asyncio.run(main())
        asyncio.run(client.aclose())
    """,
    "a loop closed by hand": """
        for channel in ("sms", "email"):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(client.send(session, channel))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        gc.collect()
    """,
    "a call abandoned with its loop": """
        async def main():
            task = asyncio.create_task(client.send(session, "whatsapp"))
            await asyncio.sleep(0)

        asyncio.run(main())
        gc.collect()
    """,
    "a failed call": """
        async def main():
            try:
                await KodmobiClient(base_url="http://127.0.0.1:9", timeout=Timeout(total=0.1)).send(session, "sms")
            except Exception:
                pass

        asyncio.run(main())
    """,
    "interrupted in the middle": """
        async def main():
            async with client:
                asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
                await asyncio.gather(client.send(session, "sms"), asyncio.sleep(60))

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            pass
    """,
    "interrupted, and never closed": """
        async def main():
            await client.send(session, "sms")
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            await asyncio.gather(client.send(session, "email"), asyncio.sleep(60))

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            pass
    """,
}


@pytest.mark.parametrize("kept", [False, True], ids=["collected at once", "kept to the end"])
@pytest.mark.real_clock
async def test_programs_end_in_silence(*, kept: bool) -> None:
    with emulator_in_background() as background:
        for number in range(len(PROGRAMS)):
            background.call(background.emulator.add_session, f"{number:026}")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", "-c", RUN, repr(kept)),
            *PROGRAMS.values(),
            env={
                **os.environ,
                "KODMOBI_API_KEY": background.emulator.api_key,
                "BASE_URL": background.emulator.base_url,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complained = await process.communicate()
    assert (process.returncode, said.split(), complained.decode()) == (0, [b"."] * len(PROGRAMS), "")


@pytest.mark.real_clock
async def test_a_program_that_leaves_something_open_is_heard() -> None:
    program = """
        async def main():
            import aiohttp
            aiohttp.ClientSession()

        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-X", "dev", "-W", "error", "-c", RUN, "False", program),
        env={**os.environ, "KODMOBI_API_KEY": "key", "BASE_URL": "http://127.0.0.1:9"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complained = await process.communicate()
    assert b"Unclosed client session" in complained
