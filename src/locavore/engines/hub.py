"""Fetch weights from a model hub: pinned revision, resumed where it stopped, verified, then kept.

Speaks the two read endpoints of the Hugging Face hub, which its mirrors share: under
`/api/models/{repository}/revision/{revision}?blobs=true` the files with their hashes, and
`/{repository}/resolve/{revision}/{file}` for the bytes.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from locavore.engines.weights import WeightsError

ENDPOINT = "https://huggingface.co"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
# Which file to take from a repository when only the repository is named.
_PREFERRED = ("Q4_K_M", "Q8_0", "Q5_K_M", "Q6_K", "Q4_0", "F16", "BF16")
_CHUNK_BYTES = 1 << 20
_TRIES = 6
_TRIES_UNREACHED = 2
"""Before the first byte: who is offline wants to know now, not in a minute."""
_TIMEOUT = httpx2.Timeout(30.0)

Progress = Callable[[int, int], None]
"""Called with (bytes here, bytes in all)."""


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """One file at one commit, with what its content must hash to."""

    repository: str
    revision: str
    file: str
    sha256: str
    bytes: int


class Hub:
    """A hub as the environment describes it: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, *_PROXY."""

    def __init__(
        self, environment: Mapping[str, str], *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.endpoint = (environment.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        self._token = environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN")
        offline = environment.get("HF_HUB_OFFLINE", "").strip().upper()
        self.offline = offline in ("1", "ON", "YES", "TRUE")
        self._pause = pause

    def find(self, repository: str, revision: str, wanted: str | None) -> Remote:
        """Pin `revision` to its commit; choose a file by name, by quantization, or the usual."""
        url = f"{self.endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}"
        try:
            with self._client() as client:
                answer = client.get(url, params={"blobs": "true"})
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise WeightsError(
                f"{self.endpoint} cannot be reached ({error}); check the network, HTTPS_PROXY and "
                "HF_ENDPOINT, or pull a local file"
            ) from error
        self._check(answer, repository, revision)
        return _chosen(answer.json(), repository, wanted)

    def fetch(self, remote: Remote, target: Path, progress: Progress) -> None:
        """Download to `target.part`, verify, fsync, rename; an earlier try's part is used."""
        part = target.with_name(target.name + ".part")
        with part.open("ab") as file, _locked(file, target):
            digest = _Digest(part)
            self._fill(remote, file, digest, progress)
            file.flush()
            os.fsync(file.fileno())
        self._verify(remote, part, digest)
        part.replace(target)
        _sync_folder(target.parent)

    def _fill(self, remote: Remote, file: Any, digest: "_Digest", progress: Progress) -> None:
        """Ask for what is missing until all is here; each failure without a new byte counts."""
        failures, start = 0, digest.bytes
        while digest.bytes < remote.bytes:
            before, tries = digest.bytes, _TRIES
            try:
                self._some(remote, file, digest, progress)
                problem = "the connection ended early"
            except httpx2.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                if isinstance(error, httpx2.ConnectError) and before == start:
                    tries = _TRIES_UNREACHED
            if digest.bytes >= remote.bytes:
                return
            failures = 0 if digest.bytes > before else failures + 1
            if failures >= tries:
                raise WeightsError(
                    f"{self.endpoint}: {problem}; {digest.bytes:,} of {remote.bytes:,} bytes are "
                    "kept, the same command goes on from there"
                )
            self._pause(min(30.0, 2.0**failures))

    def _some(self, remote: Remote, file: Any, digest: "_Digest", progress: Progress) -> None:
        path = f"{remote.repository}/resolve/{remote.revision}/{quote(remote.file)}"
        headers = {"range": f"bytes={digest.bytes}-"} if digest.bytes else {}
        with (
            self._client() as client,
            client.stream("GET", f"{self.endpoint}/{path}", headers=headers) as answer,
        ):
            if answer.status_code >= 500 or answer.status_code == 429:
                raise httpx2.RemoteProtocolError(f"status {answer.status_code}")
            self._check(answer, remote.repository, remote.revision)
            if not _continues(answer, digest.bytes):
                digest.restart(file)
            for chunk in answer.iter_raw():
                file.write(chunk)
                digest.add(chunk)
                progress(digest.bytes, remote.bytes)
                if digest.bytes > remote.bytes:
                    return

    def _verify(self, remote: Remote, part: Path, digest: "_Digest") -> None:
        if digest.bytes == remote.bytes and digest.hex == remote.sha256:
            return
        part.unlink()
        raise WeightsError(
            f"{remote.file}: SHA-256 is {digest.hex} ({digest.bytes:,} bytes), expected "
            f"{remote.sha256} ({remote.bytes:,} bytes); the download was deleted. The hub, a proxy "
            "or a pinned entry is wrong: do not use this file"
        )

    def _client(self) -> httpx2.Client:
        if self.offline:
            raise WeightsError(
                "HF_HUB_OFFLINE is set: unset it, or pull a local file: locavore pull ./model.gguf"
            )
        headers = {"user-agent": "locavore", "accept-encoding": "identity"}
        if self._token:  # the client drops it when a redirect leads to another host
            headers["authorization"] = f"Bearer {self._token}"
        return httpx2.Client(headers=headers, follow_redirects=True, timeout=_TIMEOUT)

    def _check(self, answer: httpx2.Response, repository: str, revision: str) -> None:
        status = answer.status_code
        if status in (200, 206):
            return
        where = f"{self.endpoint}/{repository} at {revision!r}"
        if status in (401, 403):
            known = "HF_TOKEN was refused" if self._token else "HF_TOKEN is not set"
            raise WeightsError(
                f"{where}: status {status}. It does not exist or is gated: accept its terms at "
                f"{self.endpoint}/{repository} and set HF_TOKEN ({known})"
            )
        if status == 404:
            raise WeightsError(f"{where}: not found; check the repository, revision and file")
        raise WeightsError(f"{where}: status {status}; try again later")


class _Digest:
    """SHA-256 and length of what is on disk, kept while it grows."""

    def __init__(self, part: Path) -> None:
        self._hash = hashlib.sha256()
        self.bytes = 0
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                self.add(chunk)

    def add(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.bytes += len(chunk)

    def restart(self, file: Any) -> None:
        """The server sends everything again."""
        file.seek(0)
        file.truncate()
        self._hash, self.bytes = hashlib.sha256(), 0

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()


def _continues(answer: httpx2.Response, start: int) -> bool:
    """Whether the body goes on at `start`, as asked; a server may ignore or misread a range."""
    if start == 0:
        return True
    return answer.status_code == 206 and answer.headers.get("content-range", "").startswith(
        f"bytes {start}-"
    )


def _chosen(listing: Any, repository: str, wanted: str | None) -> Remote:
    try:
        commit = str(listing["sha"])
        files = {row["rfilename"]: row for row in listing["siblings"]}
    except (KeyError, TypeError):
        raise WeightsError(f"{repository}: the hub's answer is not a model listing") from None
    name = _choose([name for name in files if name.endswith(".gguf")], repository, wanted)
    pinned = files[name].get("lfs") or {}
    digest, size = str(pinned.get("sha256", "")), pinned.get("size") or files[name].get("size")
    if not _SHA256.fullmatch(digest) or not isinstance(size, int):
        raise WeightsError(f"{repository}: the hub gives no SHA-256 for {name!r}; not pulled")
    return Remote(repository=repository, revision=commit, file=name, sha256=digest, bytes=size)


def _choose(names: list[str], repository: str, wanted: str | None) -> str:
    single = sorted(n for n in names if not _PART.search(n) and "mmproj" not in n.lower())
    if wanted in names:
        if wanted not in single:
            raise WeightsError(
                f"{wanted!r} is one part of several (or no language model): not pulled"
            )
        return wanted
    for quantization in [wanted] if wanted else _PREFERRED:
        marker = re.compile(rf"(^|[-._]){re.escape(quantization)}\.gguf$", re.IGNORECASE)
        matches = [name for name in single if marker.search(PurePosixPath(name).name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise WeightsError(f"{repository}: {quantization!r} fits several files: {matches}")
    if len(single) == 1 and not wanted:
        return single[0]
    raise WeightsError(
        f"{repository}: no GGUF file {wanted!r}; it holds {', '.join(single) or 'none in one part'}"
    )


@contextmanager
def _locked(file: Any, target: Path) -> Iterator[None]:
    """One download of a file at a time."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WeightsError(f"{target.name} is being pulled by another process") from None
    yield


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
