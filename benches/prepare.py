#!/usr/bin/env python3
"""How long `porter prepare` takes and how much memory, side by side with its peers in one run.

    python3 benches/prepare.py                 medians of 5
    python3 benches/prepare.py -n 15 -o FILE   medians of 15; the report goes to FILE as well
    python3 benches/prepare.py --quick         porter and cp only: nothing is installed

Needs Rust and Python. The peers are installed, pinned, into .porter/bench-venv. The rows of one model take turns, round
after round, so that a slow moment of the machine falls on all of them; the processor's time beside it says how much of the wall
time was waiting. Peak memory is the child's maximum resident set, which counts mapped pages of the model file as well (and
never less than this script, 20 MB: a child begins as its copy); where the system tells (Linux), the part that the process
made itself is shown beside it.
"""

import argparse
import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOME = REPOSITORY / ".porter"
MODELS = REPOSITORY / "tests" / "models"
PEERS = """\
flatbuffers==25.12.19
ml_dtypes==0.6.0
mpmath==1.3.0
numpy==2.4.6
onnx==1.23.2
onnxruntime==1.31.1
onnxsim==0.8.1
onnxslim==0.1.98
packaging==26.3
protobuf==7.36.2
sympy==1.14.0
typing_extensions==4.16.0
colorama==0.4.6
"""
ORT_BASIC = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = sys.argv[2]
options.log_severity_level = 3
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
ONNXSLIM = "import sys, onnxslim; onnxslim.slim(sys.argv[1], sys.argv[2])"
ONNXSIM = "import sys, onnx, onnxsim; model, ok = onnxsim.simplify(sys.argv[1]); assert ok; onnx.save(model, sys.argv[2])"


def peers_python():
    venv = HOME / "bench-venv"
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = hashlib.sha256(PEERS.encode()).hexdigest()
    stamp = venv / "installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print("installing the peers into .porter/bench-venv", file=sys.stderr)
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pins = HOME / "bench-requirements.txt"
        pins.write_text(PEERS)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", pins], check=True)
        stamp.write_text(wanted)
    return str(python)


def private_peak(pid, stop, peak):
    """Follows the memory that a process does not share with a file (Linux); a sampled lower bound."""
    path = Path(f"/proc/{pid}/status")
    while not stop.is_set():
        try:
            for line in path.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peak[0] = max(peak[0], int(line.split()[1]) * 1024)
        except OSError:
            return
        time.sleep(0.002)


def measure(command, sampled):
    """Wall seconds, processor seconds, peak resident bytes and peak private bytes (0 where not sampled) of one run."""
    with tempfile.TemporaryFile() as told:
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=told, stderr=told, stdin=subprocess.DEVNULL)
        stop, peak = threading.Event(), [0]
        watcher = threading.Thread(target=private_peak, args=(child.pid, stop, peak))
        if sampled and Path("/proc").is_dir():
            watcher.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        stop.set()
        if watcher.ident:
            watcher.join()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            told.seek(0)
            raise RuntimeError(told.read().decode(errors="replace").strip()[-400:] or f"exit code {child.returncode}")
    resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return wall, usage.ru_utime + usage.ru_stime, resident, peak[0]


def bench(rows, rounds, scratch):
    """Runs every row `rounds` times in turns; gives each row's medians, or the reason why it has none."""
    taken = {name: [] for name, _ in rows}
    failed = {}
    for round_number in range(rounds + 1):  # the first round warms caches and does not count
        for name, command in rows:
            if name in failed:
                continue
            for left in scratch.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            try:
                # Watching costs time, so the warm-up round is the one that is watched.
                figures = measure(command, sampled=round_number == 0)
            except RuntimeError as error:
                failed[name] = str(error)
                continue
            taken[name].append(figures)
    results = {}
    for name, _ in rows:
        if name in failed:
            results[name] = failed[name]
            continue
        watched, *counted = taken[name]
        walls = sorted(run[0] for run in counted)
        cpu = statistics.median(run[1] for run in counted)
        results[name] = (statistics.median(walls), walls[0], walls[-1], cpu, max(run[2] for run in counted), watched[3])
    return results


def table(title, results, size):
    base = next(iter(results.values()))
    lines = [f"### {title}, {size / 1e6:.1f} MB", "", "| work | wall | lowest .. highest | against cp | processor | peak memory | of the file | private |", "|---|---|---|---|---|---|---|---|"]
    for name, result in results.items():
        if isinstance(result, str):
            reason = result.splitlines()[-1] if result else ""
            lines.append(f"| {name} | failed: {reason} | | | | | | |")
            continue
        wall, low, high, cpu, resident, private = result
        against = f"{wall / base[0]:.2f}x" if not isinstance(base, str) else ""
        own = f"{private / 1e6:.0f} MB" if private else ""
        lines.append(f"| {name} | {wall:.3f} s | {low:.3f} .. {high:.3f} | {against} | {cpu:.3f} s | {resident / 1e6:.0f} MB | {resident / size:.2f}x | {own} |")
    return "\n".join(lines) + "\n"


def machine():
    facts = [f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    try:
        cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
        facts += [*cpu[:1], f"{memory:.0f} GB memory", "load " + " ".join(f"{x:.1f}" for x in os.getloadavg())]
    except (OSError, IndexError, ValueError):
        pass
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()
    return ", ".join(facts + rustc[:2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="write the report there too")
    parser.add_argument("--quick", action="store_true", help="porter and cp only")
    parser.add_argument("--porter", type=Path, help="this binary, instead of building the release")
    options = parser.parse_args()
    HOME.mkdir(exist_ok=True)
    porter = options.porter
    if porter is None:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=REPOSITORY, check=True)
        metadata = os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")
        porter = Path(metadata) / "release" / ("porter.exe" if os.name == "nt" else "porter")
    peers = None if options.quick else peers_python()
    report = [f"Medians of {options.rounds}. {machine()}.", ""]
    # Beside the repository, not in /tmp: that may be memory, and then cp is another program.
    with tempfile.TemporaryDirectory(dir=HOME, prefix="bench-") as folder:
        folder = Path(folder)
        scratch = folder / "out"
        scratch.mkdir()
        large, small = folder / "yolo26x.onnx", MODELS / "yolo26n.onnx"
        subprocess.run([porter, "hydrate", MODELS / "yolo26x.onnx", "-o", large], check=True, stdout=subprocess.DEVNULL)
        for title, model in (("yolo26x, hydrated", large), ("yolo26n, stripped", small)):
            out = scratch / "out.onnx"
            prepare = lambda target: (f"porter prepare --no-check, {target}", [porter, "prepare", model, "--target", target, "--no-check", "-o", scratch / "bundle"])
            rows = [("cp", ["cp", model, out]), prepare("neuron"), prepare("ort")]
            if peers and model is large:
                rows += [
                    ("ONNX Runtime 1.31.1, basic optimisation", [peers, "-c", ORT_BASIC, model, out]),
                    ("onnxslim 0.1.98", [peers, "-c", ONNXSLIM, model, out]),
                    ("onnxsim 0.8.1", [peers, "-c", ONNXSIM, model, out]),
                ]
            rows = [(name, [str(part) for part in command]) for name, command in rows]
            report.append(table(title, bench(rows, options.rounds, scratch), model.stat().st_size))
    text = "\n".join(report)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
