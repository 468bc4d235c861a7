"""Clouds found by their standard environment variables."""

import re

import pytest

from locavore.core.backend import Capability, Place
from locavore.engines import providers, quirks


def test_every_row_is_whole_and_speaks_our_vocabulary() -> None:
    known = set(Capability)
    assert {"openai", "anthropic", "mistral", "deepseek", "together", "fireworks"} <= set(
        providers.rows()
    )
    for row in providers.rows().values():
        assert row.base_url.startswith("https://")
        assert not row.base_url.endswith("/")
        assert row.source.startswith("https://")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row.as_of)
        assert row.capabilities <= known
        assert row.lacks <= known
        assert not row.capabilities & row.lacks
        assert row.quirks <= set(quirks.MEANING)
        assert row.key_variables


def test_a_key_makes_a_provider_and_never_shows() -> None:
    found, messages = providers.from_environment({"OPENAI_API_KEY": "sk-canary", "HOME": "/"})
    assert [provider.name for provider in found] == ["openai"]
    assert messages == []
    assert found[0].api_key == "sk-canary"
    assert found[0].key_variable == "OPENAI_API_KEY"
    assert found[0].place is Place.PUBLIC_API
    assert "canary" not in repr(found) + str(found[0])


def test_nothing_set_finds_nothing() -> None:
    assert providers.from_environment({"OPENAI_API_KEY": "  ", "PATH": "/bin"}) == ([], [])


def test_the_second_variable_counts_when_the_first_is_unset() -> None:
    found, _ = providers.from_environment({"GOOGLE_API_KEY": "k"})
    assert [(p.name, p.key_variable) for p in found] == [("gemini", "GOOGLE_API_KEY")]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:8000/v1", Place.ON_PREM),
        ("http://[::1]:8000/v1", Place.ON_PREM),
        ("http://192.168.1.7:8000/v1", Place.ON_PREM),
        ("https://proxy.example.com/v1", Place.PUBLIC_API),
        ("http://8.8.8.8/v1", Place.PUBLIC_API),
    ],
)
def test_another_base_url_changes_place_and_drops_what_was_known(url: str, place: Place) -> None:
    found, _ = providers.from_environment({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url + "/"})
    assert found[0].base_url == url
    assert found[0].place is place
    assert found[0].jurisdiction is None
    assert found[0].default_model is None


def test_a_base_url_alone_is_a_server_without_a_key() -> None:
    found, _ = providers.from_environment({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})
    assert found[0].api_key is None
    assert found[0].key_variable is None


def test_anthropic_base_urls_with_and_without_a_version_mean_the_same() -> None:
    urls = set()
    for url in ("http://127.0.0.1:9", "http://127.0.0.1:9/v1/"):
        found, _ = providers.from_environment({"ANTHROPIC_BASE_URL": url})
        urls.add(found[0].base_url)
    assert urls == {"http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4000/v1", "http://localhost:4000", "http://0.0.0.0:4000/v1"]
)
def test_a_base_url_that_is_our_own_listener_is_ignored_with_a_message(url: str) -> None:
    env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url, "MISTRAL_API_KEY": "m"}
    found, messages = providers.from_environment(env, own_port=4000)
    assert [provider.name for provider in found] == ["mistral"]
    assert "OPENAI_BASE_URL" in messages[0]
    assert "this gateway" in messages[0]


def test_any_model_name_after_the_provider_is_a_backend() -> None:
    found, _ = providers.from_environment({"OPENROUTER_API_KEY": "k"})
    backend = providers.backend_for(found[0], "qwen/qwen3-8b")
    assert backend.id == "openrouter/qwen/qwen3-8b"
    assert backend.model == "qwen/qwen3-8b"
    assert backend.price is None
    assert backend.jurisdiction is None
    assert backend.can("chat")


def test_embedding_models_embed_and_do_not_chat() -> None:
    found, _ = providers.from_environment({"OPENAI_API_KEY": "k"})
    backend = providers.backend_for(found[0], "text-embedding-3-small")
    assert backend.can("embeddings")
    assert "chat" in backend.lacks
