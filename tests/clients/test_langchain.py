"""LangChain's own standard suite for chat models, through the gateway.

Three ways: chat completions to a backend of the same format, the same client before an Anthropic
backend, and the Responses API before a backend that only speaks chat.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from locavore.testing import ScriptedUpstream
from locavore.testing.gateway import RunningGateway
from tests.clients import model
from tests.clients.sides import CAPABILITIES, CONFIG

pytestmark = [
    pytest.mark.anyio,
    # LangChain's own: it serializes parsed objects, and takes pydantic v1 classes with a warning.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
OTHER = """
[[backend]]
id = "spare/other"
url = "{url}"
capabilities = ["tools", "tool_choice", "json_schema"]
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with ScriptedUpstream() as upstream:
        upstream.always(model.respond)
        config = (CONFIG + OTHER).format(
            url=upstream.url, origin=upstream.origin, capabilities=json.dumps(CAPABILITIES)
        )
        with RunningGateway(tmp_path_factory.mktemp("langchain"), config) as running:
            yield running


@pytest.fixture(scope="module", autouse=True)
async def http(anyio_backend: Any) -> AsyncIterator[dict[str, Any]]:
    """Clients that LangChain would otherwise keep, in a loop that lives as long as they do."""
    with httpx2.Client() as whole:
        async with httpx2.AsyncClient() as asynchronous:
            yield {"http_client": whole, "http_async_client": asynchronous}


class Suite(ChatModelIntegrationTests):
    """What the suite may try: everything but files it would fetch."""

    name = "home/m"
    responses = False

    @pytest.fixture(autouse=True)
    def _point(self, gateway: RunningGateway, http: dict[str, Any]) -> None:
        self.url, self.http = gateway.url, http

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "base_url": self.url,
            "api_key": "k",
            "stream_usage": True,
            "max_retries": 0,
            "use_responses_api": self.responses,
            **self.http,
        }

    @property
    def model_override_value(self) -> str:
        return "other"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return False

    @property
    def enable_vcr_tests(self) -> bool:
        return False


class TestChatCompletions(Suite):
    pass


class TestAnthropicBackend(Suite):
    name = "claude/m"

    @property
    def supports_json_mode(self) -> bool:
        """Anthropic has schemas and no free-form JSON mode; the gateway refuses it by name."""
        return False


class TestResponsesBeforeChat(Suite):
    name = "plain/m"
    responses = True
