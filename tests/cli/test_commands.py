"""What the command line says to a name or a value it does not know."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.core.errors import ConfigError


@pytest.mark.parametrize(("typed", "meant"), [("serv", "serve"), ("reprot", "report")])
def test_a_mistyped_command_names_the_nearest(typed: str, meant: str) -> None:
    done = CliRunner().invoke(main, [typed])
    assert done.exit_code == 2
    assert f"No such command {typed!r}. Did you mean {meant!r}?" in done.output


def test_a_name_like_no_command_is_only_refused() -> None:
    done = CliRunner().invoke(main, ["xyzzy"])
    assert done.exit_code == 2
    assert "Did you mean" not in done.output


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("plan --input 1M --output 1M --task clasify", "--task is 'clasify'; known: chat, qa, "),
        ("plan --input 1M", "no --output: give both, --output 0 if there is none"),
        ("plan finetune qwen3:8b --on H100 --inference x", "--inference is 'x'"),
        ("speed qwen3:8b --on H100 --engine vlm", "no engine is called 'vlm'; nearest: vllm"),
        ("catalog list task_models --task rank", "no task model is for 'rank'; tasks: "),
        ("catalog list hardware --task rerank", "--task is for task_models; hardware have none"),
        ("catalog add /no/such.gguf", "'/no/such.gguf' is neither a file nor a hub repository"),
        ("catalog add /such.gguf", "'/such.gguf' is neither a file nor a hub repository"),
        ("catalog add models/config.json", "'models/config.json' is neither a file nor"),
        ("audit", "give either a claims file or --documents"),
        ("audit --documents --only bad", "--only is 'bad'; known: "),
    ],
)
def test_a_value_that_means_nothing_is_told_and_not_taken(typed: str, said: str) -> None:
    done = CliRunner().invoke(main, typed.split())
    assert isinstance(done.exception, ConfigError), done.output
    assert said in done.exception.problems[0]


def test_a_task_of_a_workload_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "workload.toml"
    file.write_text('task = "chta"\ninput_tokens_day = 1e6\noutput_tokens_day = 1e6\n')
    done = CliRunner().invoke(main, ["plan", str(file)])
    assert isinstance(done.exception, ConfigError)
    assert "task is 'chta'; known: chat, " in done.exception.problems[0]


def test_an_engine_may_bring_its_version() -> None:
    done = CliRunner().invoke(main, ["speed", "qwen3:8b", "--on", "H100", "--engine", "vllm 0.19"])
    assert done.exit_code == 0, done.output
