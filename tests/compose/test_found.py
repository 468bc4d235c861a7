"""What is configured and what is found on loopback, when both are the same."""

from locavore.compose.found import address, configured, twins_of, unserved
from locavore.config.schema import BackendTable
from locavore.core.backend import Backend, Place


def table(id_: str, url: str | None, model: str | None = None) -> BackendTable:
    return BackendTable(id=id_, url=url, model=model)


def server(model: str, url: str = "http://127.0.0.1:8000/v1") -> Backend:
    return Backend(
        id=f"vllm/{model}",
        provider="vllm",
        model=model,
        url=url,
        dialect="openai",
        place=Place.ON_PREM,
        context_tokens=16_384,
        capabilities=frozenset({"tools"}),
    )


def test_one_address_has_several_spellings() -> None:
    spelled = ["http://localhost:8000/v1", "http://127.0.0.1:8000/v1/", "http://[::1]:8000/v1"]
    assert len({address(url) for url in spelled}) == 1
    assert address("https://a.example/v1") == "https://a.example:443/v1"
    assert address("http://a.example/v1") != address("http://a.example/v2")


def test_a_configured_backend_and_the_server_found_there_are_one() -> None:
    home = table("home/qwen", "http://localhost:8000/v1", "qwen3-8b")
    found = [server("qwen3-8b"), server("other")]
    (twin,) = twins_of([home, table("cloud/x", None)], found).items()
    assert twin == ("home/qwen", found[0])
    backend = configured(home, None, twin[1])
    assert backend.id == "home/qwen"
    assert backend.context_tokens == 16_384, "what the file leaves open is as the server told"
    assert backend.can("tools")


def test_a_model_that_its_server_does_not_list_is_told() -> None:
    tables = [table("home/a", "http://localhost:8000/v1"), table("home/b", "http://10.0.0.1/v1")]
    (told,) = unserved(tables, [server("qwen3-8b")])
    assert told.startswith("home/a asks http://localhost:8000/v1 for 'a'")
    assert told.endswith("it serves qwen3-8b")
    assert not list(
        unserved([table("home/a", "http://localhost:8000/v1", "qwen3-8b")], [server("qwen3-8b")])
    )
