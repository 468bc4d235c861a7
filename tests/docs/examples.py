"""Finds the examples of a page and runs them against a gateway before a scripted upstream."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locavore.testing import Received, Reply, ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway

ROOT = Path(__file__).parents[2]
SERVED_AT = "http://127.0.0.1:4000"
SECRETS = {
    name: f"secret-of-{name.lower()}"
    for name in ("SEARCH_KEY", "SUPPORT_KEY", "CLINIC_KEY", "WEB_KEY")
}
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Section:
    """The text below one second-level heading, with the code in it."""

    title: str
    blocks: list[tuple[str, str]] = field(default_factory=list)
    """(language, code without its indentation)."""

    def code(self, language: str) -> list[str]:
        return [text for name, text in self.blocks if name == language]


def sections(page: str) -> list[Section]:
    """Of a page below docs/; what precedes the first heading is a section, too."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return [Section(part.partition("\n")[0], _blocks(part)) for part in parts]


def _blocks(text: str) -> list[tuple[str, str]]:
    found = []
    for indent, language, code in _BLOCK.findall(text):
        lines = [line.removeprefix(indent) for line in code.splitlines(keepends=True)]
        found.append((language, "".join(lines)))
    return found


def answer(received: Received) -> Reply:
    """What any provider says to any call of the pages."""
    asked = received.json
    if received.path.endswith("/messages"):
        return replies.message_stream() if asked.get("stream") else replies.message()
    return replies.chat_stream() if asked.get("stream") else replies.chat()


class World:
    """A gateway that serves a page's configuration, and a shell and a Python that reach it."""

    def __init__(self, home: Path, upstream: ScriptedUpstream, config: str) -> None:
        upstream.always(answer)
        self.upstream = upstream
        found = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": upstream.url}
        self.env = SECRETS | ({} if "env = false" in config else found)
        self.gateway = RunningGateway(home, self.reachable(config), env=self.env)
        self.names: dict[str, Any] = dict(SECRETS)

    def reachable(self, config: str) -> str:
        """The configuration with its servers where the scripted one is, and open to loopback."""
        for url in ("http://127.0.0.1:8000/v1", "https://api.openai.com/v1"):
            config = config.replace(url, self.upstream.url)
        config = config.replace("[discover]\nenv = false\n", "")  # the gateway brings its own
        return config.replace('host = "0.0.0.0"', 'host = "127.0.0.1"')

    def shell(self, code: str) -> str:
        """Run a shell block; what it printed. Raises CalledProcessError."""
        env = {
            **self.env,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.gateway.home.parent),
            "LOCAVORE_HOME": str(self.gateway.home),
            "LOCAVORE_PORT": "0",  # whoever has the usual port of this machine does not matter
            "COLUMNS": "200",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code.replace(SERVED_AT, self.gateway.origin)],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, code: str) -> None:
        """Run a Python block; blocks of a page share their names."""
        exec(compile(code.replace(SERVED_AT, self.gateway.origin), "<page>", "exec"), self.names)
