"""Weights on this disk: `LOCAVORE_HOME/weights/<name>/` with a manifest that pins them."""

import hashlib
import os
import re
from pathlib import Path

import msgspec

from locavore.core.errors import LocavoreError
from locavore.engines import test_model

MANIFEST = "manifest.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


class WeightsError(LocavoreError):
    """Weights cannot be fetched, verified, read or stored; the message says what to do."""

    status = 503


class InstalledModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model file whose content is known. `path` is absolute."""

    name: str
    path: Path
    sha256: str
    bytes: int
    source: str
    """`hub:org/repo/file`, `file:/path` or `built-in`."""
    revision: str | None = None
    pulled_at: str | None = None
    """ISO 8601, UTC."""
    is_test: bool = False


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is pinned; the file beside it must match."""

    file: str
    sha256: str
    bytes: int
    source: str
    revision: str | None = None
    pulled_at: str


def weights_folder(home: Path) -> Path:
    return home / "weights"


def folder_of(home: Path, name: str) -> Path:
    """The folder a model's files live in; WeightsError for a name that is no plain name."""
    if not _NAME.fullmatch(name):
        raise WeightsError(
            f"model name {name!r}: use lower-case letters, digits, dots, dashes and underscores"
        )
    return weights_folder(home) / name


def installed_models(home: Path) -> list[InstalledModel]:
    """All pulled models, by name. A folder without a whole manifest and file is left out."""
    manifests = sorted(weights_folder(home).glob(f"*/{MANIFEST}"))
    found = (_installed(manifest) for manifest in manifests)
    return [model for model in found if model is not None]


def _installed(path: Path) -> InstalledModel | None:
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        file = Path(os.path.normpath(path.parent / manifest.file))
        if file.stat().st_size != manifest.bytes:
            return None
    except (OSError, msgspec.MsgspecError):
        return None
    return InstalledModel(
        name=path.parent.name,
        path=file,
        sha256=manifest.sha256,
        bytes=manifest.bytes,
        source=manifest.source,
        revision=manifest.revision,
        pulled_at=manifest.pulled_at,
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put the manifest in place whole or not at all."""
    temporary = folder / f".{MANIFEST}.part"
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def built_in(home: Path) -> InstalledModel:
    """Write the test model under `home` (milliseconds) and describe it."""
    path = home / "run" / "test-model.gguf"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = test_model.write_test_model(path)
    return InstalledModel(
        name=test_model.NAME,
        path=path,
        sha256=sha256_of(path),
        bytes=written.bytes,
        source="built-in",
        is_test=True,
    )


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
