"""A service that knows nothing of its tests: it starts a login, and sends the code again."""

from fastapi import FastAPI

from kodmobi_async.integrations.fastapi import Kodmobi, add_kodmobi_errors, kodmobi_lifespan

app = FastAPI(lifespan=kodmobi_lifespan())
add_kodmobi_errors(app)


@app.post("/login/{to}")
async def login(to: str, kodmobi: Kodmobi) -> str:
    session = await kodmobi.create(to, channel="telegram", send=True)
    return str(session.session_id)


@app.post("/resend/{session_id}")
async def resend(session_id: str, kodmobi: Kodmobi) -> dict[str, float]:
    result = await kodmobi.send(session_id, "telegram")
    return {"again_in": result.channel.timeout}


@app.post("/check/{session_id}/{code}")
async def check(session_id: str, code: str, kodmobi: Kodmobi) -> str:
    result = await kodmobi.check(session_id, code)
    return (await kodmobi.verify(result.verify_token)).to
