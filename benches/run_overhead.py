#!/usr/bin/env python3
"""What `porter run` costs over a bare loop around ONNX Runtime: the same library, model, threads and inputs, in turns.

    python3 benches/run_overhead.py                 medians of 7 rounds
    python3 benches/run_overhead.py -n 15 -o FILE   medians of 15; the report goes to FILE as well
    python3 benches/run_overhead.py --runs 200      longer loops, which weigh the first run less

Needs a release build of porter and what tests/run.py installs. Both sides read one file with different inputs and run
them one after the other, round after round in turns. The time is that of the loop over all inputs, the first run with
its allocations included on both sides; reading the file and compiling is not in it. Where both differ, it is against
porter: it cuts each input out of the mapped file, reads what the answer says, and keeps that; the bare loop has its inputs
in memory and throws the outputs away. Threads, optimisation (all of it), library, model and inputs are the same, and
whatever else a session can be told is left as ONNX Runtime has it.

"More" is the median of what porter takes more in each round, so that what disturbs the machine for longer than a round
weighs on both sides; beside it stands the same of the fastest rounds. "All of it" is what the whole command takes for an
input, from its start to its end: reading, compiling and writing JSON are in it, and the more inputs there are the less they
weigh. "Processor" is user and system time of both whole processes, an input. A figure for as many threads as the machine
has cores means something only while nothing else runs there.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = REPOSITORY / "tests" / "models"
BARE = """
import sys, time, numpy, onnxruntime
model, inputs, threads = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
options.log_severity_level = 3
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
(name, all_inputs), = numpy.load(inputs).items()
batches = [numpy.ascontiguousarray(all_inputs[i : i + 1]) for i in range(len(all_inputs))]
begin = time.perf_counter()
for batch in batches:
    session.run(None, {name: batch})
print((time.perf_counter() - begin) / len(batches))
"""


def paths():
    """Where tests/run.py put things, installing them first if need be."""
    env = REPOSITORY / ".porter" / "env"
    if not env.exists():
        subprocess.run([sys.executable, REPOSITORY / "tests" / "run.py", "--setup"], check=True)
    return dict(line.split("=", 1) for line in env.read_text().splitlines())


def inputs(python, model, file, runs):
    code = (
        "import sys, numpy, onnxruntime as o\n"
        "i, = o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']).get_inputs()\n"
        f"x = numpy.random.default_rng(0).random([{runs}, *[s if isinstance(s, int) else 1 for s in i.shape[1:]]])\n"
        "numpy.savez(sys.argv[2], **{i.name: x.astype(numpy.float32)})"
    )
    subprocess.run([python, "-c", code, model, file], check=True)


def porter(command, model, file, threads, environment, runs):
    """Seconds an input: of the loop, of it in the engine, of the whole command."""
    line = [command, "run", model, "--target", "ort", "--threads", str(threads), "--input", file, "--json"]
    begin = time.perf_counter()
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    command_took = time.perf_counter() - begin
    story = json.loads(done.stdout)
    assert story["timing"]["runs"] == runs, story["timing"]
    engine = sum(part["milliseconds"] for part in story["parts"]) / 1e3
    return story["timing"]["run_seconds"] / runs, engine, command_took / runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=7, help="rounds")
    parser.add_argument("--runs", type=int, default=48, help="inputs to a loop")
    parser.add_argument("-o", type=Path, help="write the report here as well")
    parser.add_argument("--porter", type=Path, default=REPOSITORY / "target" / "release" / "porter")
    options = parser.parse_args()
    found = paths()
    environment, python = {**os.environ, **found}, found["PORTER_PYTHON"]
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    def processor():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    lines = [
        f"Medians of {options.n} rounds of {options.runs} runs, {os.cpu_count()} cores, load {load}.",
        "",
        "| model | threads | bare loop | porter run | more | fastest | in the engine | all of it | processor: bare, porter |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for name in ["yolo26n", "yolo26n-raw", "yolo26n-cls"]:
            model, file = Path(scratch, f"{name}.onnx"), Path(scratch, f"{name}.npz")
            subprocess.run([options.porter, "hydrate", MODELS / f"{name}.onnx", "-o", model], check=True, capture_output=True)
            inputs(python, model, file, options.runs)
            for threads in [1, 2]:
                bare, whole, engine, command, ours, theirs = [], [], [], [], [], []
                for _ in range(options.n):
                    loop = [python, "-c", BARE, model, file, str(threads)]
                    before = processor()
                    bare.append(float(subprocess.run(loop, check=True, capture_output=True, text=True).stdout))
                    between = processor()
                    took = porter(options.porter, model, file, threads, environment, options.runs)
                    theirs.append((between - before) / options.runs)
                    ours.append((processor() - between) / options.runs)
                    whole.append(took[0])
                    engine.append(took[1])
                    command.append(took[2])
                each = (bare, whole, engine, command, theirs, ours)
                b, w, e, c, t, o = (f"{statistics.median(times) * 1e3:.2f} ms" for times in each)
                more = 100 * (statistics.median(w / b for w, b in zip(whole, bare)) - 1)
                fastest = 100 * (min(whole) / min(bare) - 1)
                lines.append(f"| {name} | {threads} | {b} | {w} | {more:+.1f} % | {fastest:+.1f} % | {e} | {c} | {t}, {o} |")
                print(lines[-1], file=sys.stderr, flush=True)
    report = "\n".join(lines) + "\n"
    print(report)
    if options.o:
        options.o.write_text(report)


if __name__ == "__main__":
    main()
