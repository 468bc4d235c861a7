"""What `locavore pull` does: read a name, look for room, fetch, verify, pin."""

import difflib
import re
import shutil
import tomllib
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import msgspec

from locavore.engines import hub, machine
from locavore.engines.fit import MARGIN
from locavore.engines.gguf import GgufError, read_header
from locavore.engines.machine import GIB, Machine
from locavore.engines.weights import (
    InstalledModel,
    Manifest,
    WeightsError,
    folder_of,
    installed_models,
    sha256_of,
    write_manifest,
)

_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(:(?P<file>[^@]+))?(@(?P<revision>.+))?")
_DISK_SPARE_BYTES = 256 << 20


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One catalog entry; everything it pins is checked."""

    name: str
    repository: str
    revision: str
    file: str
    license: str
    source: str
    as_of: str
    bytes: int | None = None
    sha256: str | None = None
    default: bool = False


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for, understood: a local `path`, or a `repository`."""

    name: str
    path: Path | None = None
    repository: str = ""
    revision: str = "main"
    file: str | None = None
    remote: hub.Remote | None = None
    """Everything is pinned already."""


def catalog() -> list[Row]:
    """The weights we name, first the default."""
    text = (resources.files("locavore.engines") / "data" / "weights.toml").read_text("utf-8")
    rows = msgspec.convert(tomllib.loads(text)["weights"], list[Row])
    return sorted(rows, key=lambda row: not row.default)


def read_spec(text: str, *, name: str | None = None) -> Spec:
    """Catalog name, `org/repository[:file or quantization][@revision]`, or a local .gguf file."""
    if text.endswith(".gguf") and ":" not in text:
        path = Path(text).expanduser().resolve()
        return Spec(name=name or _plain(path.stem), path=path)
    row = next((row for row in catalog() if row.name == text), None)
    if row:
        return _from_row(row, name)
    match = _REPOSITORY.fullmatch(text)
    if not match:
        raise WeightsError(_unknown(text))
    file = match["file"]
    stem = file.removesuffix(".gguf") if file and file.endswith(".gguf") else None
    repository_name = match["repository"].partition("/")[2].removesuffix("-GGUF")
    own = Path(stem).name if stem else "-".join(filter(None, (repository_name, file)))
    return Spec(
        name=name or _plain(own),
        repository=match["repository"],
        revision=match["revision"] or "main",
        file=file,
    )


def pull(
    spec: Spec, home: Path, source: hub.Hub, progress: hub.Progress, *, force: bool = False
) -> InstalledModel:
    """Bring the model here, or say why not; one that is here already is only checked."""
    if spec.path:
        return _adopt(spec, home)
    here = {model.name: model for model in installed_models(home)}.get(spec.name)
    if here and spec.remote and here.sha256 == spec.remote.sha256:
        return here
    remote = spec.remote or source.find(spec.repository, spec.revision, spec.file)
    folder = folder_of(home, spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / Path(remote.file).name
    if not force:
        _room(remote, target, machine.describe())
    source.fetch(remote, target, progress)
    return _pin(spec.name, target, remote, home)


def _from_row(row: Row, name: str | None) -> Spec:
    remote = None
    if row.sha256 and row.bytes:
        remote = hub.Remote(
            repository=row.repository,
            revision=row.revision,
            file=row.file,
            sha256=row.sha256,
            bytes=row.bytes,
        )
    return Spec(
        name=name or row.name,
        repository=row.repository,
        revision=row.revision,
        file=row.file,
        remote=remote,
    )


def _unknown(text: str) -> str:
    names = [row.name for row in catalog()]
    near = difflib.get_close_matches(text.lower(), names, n=3)
    return (
        f"no weights called {text!r}"
        + (f"; did you mean {', '.join(near)}?" if near else f"; known: {', '.join(names)}.")
        + " Or give a hub repository (org/name:Q4_K_M) or a .gguf file"
    )


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:80] or "model"


def _room(remote: hub.Remote, target: Path, here: Machine) -> None:
    """Refuse before the first byte what cannot be stored or run, with the numbers."""
    part = target.with_name(target.name + ".part")
    missing = remote.bytes - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(target.parent).free
    if missing + _DISK_SPARE_BYTES > free:
        raise WeightsError(
            f"{remote.file} needs {missing / GIB:.2f} GiB more on disk, {target.parent} has "
            f"{free / GIB:.2f} GiB free: make room, or set LOCAVORE_HOME to a larger disk"
        )
    memory = here.memory_bytes + sum(g.memory_bytes for g in here.gpus if not g.unified)
    if remote.bytes > memory * MARGIN:
        raise WeightsError(
            f"{remote.file} is {remote.bytes / GIB:.2f} GiB; this machine has {memory / GIB:.2f} "
            "GiB of memory, GPUs included: choose a smaller quantization, or pull with --force"
        )


def _pin(name: str, path: Path, remote: hub.Remote, home: Path) -> InstalledModel:
    _readable(path)
    manifest = Manifest(
        file=path.name,
        sha256=remote.sha256,
        bytes=remote.bytes,
        source=f"hub:{remote.repository}/{remote.file}",
        revision=remote.revision,
        pulled_at=_now(),
    )
    return _kept(name, home, manifest)


def _adopt(spec: Spec, home: Path) -> InstalledModel:
    """Pin a file where it lies; it is not copied."""
    path = spec.path
    assert path is not None  # noqa: S101 - the caller looked
    _readable(path)
    manifest = Manifest(
        file=str(path),
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        source=f"file:{path}",
        pulled_at=_now(),
    )
    return _kept(spec.name, home, manifest)


def _kept(name: str, home: Path, manifest: Manifest) -> InstalledModel:
    folder = folder_of(home, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, manifest)
    return next(model for model in installed_models(home) if model.name == name)


def _readable(path: Path) -> None:
    try:
        read_header(path)
    except (OSError, GgufError) as error:
        raise WeightsError(f"{path} cannot be used: {error}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
