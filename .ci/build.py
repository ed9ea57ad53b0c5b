"""Build what is published, and hold it to what is asked of it: ``python .ci/build.py FOLDER``.

Two builds have to be the same, byte for byte. Wheel and source have to pass twine and check-wheel-contents. A source
has to be complete: a part of its tests has to pass from where it was unpacked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = ("test_house.py", "test_client.py", "test_readme.py", "test_emulator.py", "test_cli.py")


def run(*command: str, folder: Path = REPOSITORY, **environment: str) -> None:
    """Run a Python program, and end this one if it fails."""
    subprocess.run([sys.executable, *command], cwd=folder, env={**os.environ, **environment}, check=True)  # noqa: S603 this Python


def build(folder: Path) -> dict[str, str]:
    """Build source and wheel, and return their hashes."""
    run("-m", "build", "--outdir", str(folder))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def main(folder: Path) -> None:
    """Build into this folder."""
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        hashes, again = build(folder), build(Path(scratch, "again"))
        if hashes != again:
            sys.exit(f"two builds differ: {hashes} and {again}")
        files = [str(folder / name) for name in hashes]
        run("-m", "twine", "check", "--strict", *files)
        run("-m", "check_wheel_contents", *(file for file in files if file.endswith(".whl")))
        (source,) = (file for file in files if file.endswith(".tar.gz"))
        with tarfile.open(source) as archive:
            # where Python has filters; it is our own archive
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            archive.extractall(scratch)  # noqa: S202 as above
        unpacked = Path(scratch, Path(source).name.removesuffix(".tar.gz"))
        tests = [f"tests/{name}" for name in TESTS]
        run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, folder=unpacked, PYTHONPATH=str(unpacked))
    for name, digest in hashes.items():
        print(f"{digest}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
