"""Which code a run was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import rocktop_ray

_SECONDS = 10


def code_version() -> dict[str, str]:
    """``version`` of the package, and ``commit`` if it is run from a repository, with ``+`` if files were changed."""
    told = {"version": rocktop_ray.__version__}
    folder = Path(rocktop_ray.__file__).parent
    # Asked for a file of ours first: the package may be installed inside somebody else's repository.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") and (commit := _git(folder, "rev-parse", "HEAD")):
        told["commit"] = commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no", "..") else "")
    return told


def _git(folder: Path, *arguments: str) -> str:
    """What git says; empty if there is no git or it refuses."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
