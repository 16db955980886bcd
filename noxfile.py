#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""What gates a change, a session each: `nox -s tests`, `lint`, `docs` or `speed`.

`.ci/run` runs the same sessions on the newest releases, and the tests on the oldest.
"""

import tempfile

import nox

PROJECT = nox.project.load_toml("pyproject.toml")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, or those that are named: `nox -s tests -- tests/test_probe.py`."""
    session.install("-e", ".[test]")
    session.run("pytest", *(session.posargs or ["-n", "2", "--durations=40"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in build/site; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-q", "docs", "build/site")


@nox.session
def speed(session: nox.Session) -> None:
    """Run asv's benchmarks on the last two commits, or `nox -s speed -- 5 -b Query`."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, "speed"))
    n, *options = session.posargs or ["2", "--quick", "-b", "Kendall|Probe"]
    config = ("--config", "benchmarks/asv/asv.conf.json")
    session.run("asv", "machine", "--yes", *config)  # else it asks
    newest = ("git", "rev-list", "--reverse", f"--max-count={n}", "HEAD")
    commits = session.run(*newest, external=True, silent=True).split()
    with tempfile.TemporaryDirectory() as clone:
        session.run("git", "clone", "-q", ".", clone, external=True)
        env = {"ASV_PYTHONPATH": clone, "OMP_NUM_THREADS": "1"}
        for commit in commits:
            # Not in asv's own environments, each of which would install torch.
            with session.chdir(clone):
                session.run("git", "checkout", "-q", commit, external=True)
                session.run("python", "setup.py", "-q", "build_ext", "--inplace")
            named = ("--python=same", "--set-commit-hash", commit)
            session.run("asv", "run", *config, *named, *options, env=env)


if __name__ == "__main__":
    nox.main()
