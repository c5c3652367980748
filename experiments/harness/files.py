"""Files that are whole or not there, and folders whose files are sealed. Free of jax and numpy.

A sealed folder holds ``manifest.sha256``, the digests of its files in the format of sha256sum, followed by the digest
of these lines; it is the format of a checkpoint's step, and ``sha256sum -c manifest.sha256`` checks either.

A file's new digest is listed *before* the file is written. A process that ends in between leaves an entry whose file is
missing, or is the one before: that is a file to write again, and no damage passes for a good file.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import tempfile

MANIFEST = "manifest.sha256"
PART = ".part"
"""Suffix of a file being written. One that is found later was left by a process that was killed."""

_SEAL = b"# sha256 of the lines above: "
_LINE = re.compile(rb"([0-9a-f]{64})  ([^\r\n\0]+)")


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all, and durably.

    Raises:
      OSError: if it cannot be written; nothing is left behind, and a file that was there before stays.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=PART, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)  # temporary files are private
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the entry that was renamed
    finally:
        os.close(folder)


class Manifest:
    """The digests of a folder's files, and whether they can be trusted.

    Attributes:
      folder: the sealed folder.
      entries: digest by name, relative to the folder.
      fault: what is wrong with the manifest itself; empty if its seal holds. The lines that can be read are kept: no
        damage makes a line and a file agree.
    """

    def __init__(self, folder: pathlib.Path, entries: dict[str, str] | None = None, fault: str = ""):
        self.folder = folder
        self.entries = entries or {}
        self.fault = fault

    @classmethod
    def read(cls, folder: pathlib.Path) -> Manifest:
        """Reads a folder's manifest; damaged or missing, it says so in ``fault``."""
        try:
            content = (folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            return cls(folder, fault="is missing")
        except OSError as error:
            return cls(folder, fault=f"cannot be read: {error.strerror}")
        body, seal, stated = content.rpartition(_SEAL)
        holds = bool(seal) and stated == digest(body).encode() + b"\n"
        entries = {}
        for line in (body if seal else content).split(b"\n"):
            if match := _LINE.fullmatch(line):
                entries[os.fsdecode(match[2])] = match[1].decode()
        return cls(folder, entries, "" if holds else "is damaged: its own digest does not hold")

    def write(self) -> None:
        """Writes the manifest, sealed."""
        body = b"".join(f"{self.entries[name]}  ".encode() + os.fsencode(name) + b"\n" for name in sorted(self.entries))
        write_atomically(self.folder / MANIFEST, body + _SEAL + digest(body).encode() + b"\n")
        self.fault = ""

    def check(self, name: str) -> tuple[bytes | None, str]:
        """Content of a file, and what is wrong with it: empty text if its digest is the listed one.

        Returns:
          ``(content, "")`` for a good file, ``(None, "is missing")`` for none, ``(None, reason)`` for one not to use.
        """
        try:
            with open(f"{self.folder}/{name}", "rb") as file:
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None, "is missing"
        except (OSError, ValueError) as error:
            return None, f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if name not in self.entries:
            return None, f"is not listed in {MANIFEST}"
        if digest(content) != self.entries[name]:
            return None, f"is damaged: its sha256 is not the one in {MANIFEST}"
        return content, ""

    def faults(self) -> list[str]:
        """Everything that is wrong with the manifest and with the files it lists, a line each, naming the file."""
        found = [f"{MANIFEST} {self.fault}"] if self.fault else []
        return found + [f"{name} {fault}" for name in self.entries if (fault := self.check(name)[1])]
