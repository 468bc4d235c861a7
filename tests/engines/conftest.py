"""A real engine running the built-in test model, shared by the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from locavore.engines.ask import Answer, ask
from locavore.engines.embedded import EmbeddedEngine, RunningModel
from locavore.engines.weights import built_in


class Client:
    """What a test says to a running model, over its socket."""

    def __init__(self, model: RunningModel) -> None:
        self.model = model

    async def post(self, path: str, body: dict[str, Any], *, timeout_s: float = 30.0) -> Answer:
        return await ask(
            f"http://engine{path}",
            {"model": self.model.name, **body},
            headers={name.decode(): value.decode() for name, value in self.model.headers},
            timeout_s=timeout_s,
            socket_path=str(self.model.socket_path),
        )

    async def chat(self, text: str = "hello", **more: Any) -> Any:
        body = {"messages": [{"role": "user", "content": text}], **more}
        return (await self.post("/v1/chat/completions", body)).json()

    async def get(self, path: str, *, key: str | None = None) -> Answer:
        headers = {"authorization": f"Bearer {key or self.model.api_key}"}
        socket_path = str(self.model.socket_path)
        return await ask(
            f"http://engine{path}", headers=headers, timeout_s=10, socket_path=socket_path
        )


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(tmp_path_factory.mktemp("home"))
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
async def client(engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory) -> Client:
    home: Path = tmp_path_factory.mktemp("model")
    return Client(await engine.start(built_in(home)))
