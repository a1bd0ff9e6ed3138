#!/usr/bin/env python3
"""`porter bisect` beside `polygraphy debug reduce --mode bisect`, on the same faults and the same machine.

    benches/polygraphy.py --porter target/release/porter [--models tests/models] [--only 0 1 2]

Each case plants faults in one of the stripped YOLOs at 640 pixels. Polygraphy reduces the model while a check fails; the
check compiles the candidate for the faulty target in a process of its own, as its documentation has it, and holds it
against ONNX Runtime on random inputs with the tolerances given here (its own default of 1e-5 finds faults in healthy
models). What remains is what Polygraphy names. porter is run as a user runs it. Printed for each: target compiles, seconds
on the wall, seconds of processor with those of all child processes (which a busy machine changes less), and how many of the
planted nodes are named, alone.

PORTER_ORT names ONNX Runtime's library for porter, as in the tests. Polygraphy goes into a virtual environment of its own,
.porter/polygraphy, made on the first run.
"""
import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

PACKAGES = ["polygraphy==0.49.26", "onnx_graphsurgeon==0.6.1", "onnx==1.19.1", "onnxruntime==1.23.2", "numpy==2.4.6"]
HERE = pathlib.Path(__file__).resolve().parent
RELATIVE, ABSOLUTE = 1e-2, 1e-3
CASES = [
    ("yolo26n-raw", [("stride-drop", "/model.10/m/m.0/attn/Split"), ("stride-drop", "/model.22/m.0/m.0.1/attn/Split")]),
    ("yolo26n-raw", [("stride-drop", "/model.10/m/m.0/attn/Split")]),
    ("yolo26n-raw", [("zeroed", "/model.2/cv1/act/Sigmoid")]),
    ("yolo26n-raw", [("scaled", "/model.16/cv2/conv/Conv")]),
    ("yolo26n-raw", [("transposed", "/model.6/cv2/conv/Conv")]),
    ("yolo26n-raw", [("wrong-mode", "/model.11/Resize")]),
    ("yolo26n-raw", [("channels-permuted", "/model.4/cv2/conv/Conv"), ("zeroed", "/model.19/cv1/act/Sigmoid")]),
    ("yolov8n-raw", [("zeroed", "/model.4/cv1/act/Sigmoid")]),
    ("yolov8n-raw", [("shifted", "/model.12/cv1/conv/Conv")]),
    ("yolov8n-raw", [("nan", "/model.8/cv2/act/Sigmoid")]),
    ("yolov8n-raw", [("saturated", "/model.2/cv2/conv/Conv"), ("scaled", "/model.21/cv1/conv/Conv")]),
]


def check(porter, plan, model):
    """One check of Polygraphy's: 0 where the faulty target agrees with ONNX Runtime on random inputs."""
    import numpy as np
    import onnxruntime

    with open(f"{plan}.log", "a") as log:
        log.write("check\n")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    inputs = {i.name: random.random(i.shape, np.float32) for i in session.get_inputs()}
    with tempfile.TemporaryDirectory() as folder:
        given, made = f"{folder}/given.npz", f"{folder}/made.npz"
        np.savez(given, **inputs)
        command = [porter, "run", model, "--target", f"faulty:{plan}@ort", "--input", given, "-o", made]
        subprocess.run(command, check=True, capture_output=True)
        wrong = np.load(made)
        for value, right in zip(session.get_outputs(), session.run(None, inputs)):
            if not np.allclose(right, wrong[value.name], rtol=RELATIVE, atol=ABSOLUTE):
                return 1
    return 0


def clock():
    """Seconds on the wall, and of processor in child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.time(), used.ru_utime + used.ru_stime


def since(start):
    return [now - then for now, then in zip(clock(), start)]


def polygraphy(python, porter, plan, model, folder):
    import onnx

    reduced = folder / "reduced.onnx"
    command = [
        python.parent / "polygraphy", "debug", "reduce", model, "-o", reduced, "--mode", "bisect",
        "--force-fallback-shape-inference", "--check", python, HERE / "polygraphy.py", "--check", porter, plan,
        "polygraphy_debug.onnx",
    ]
    start = clock()
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True)
    seconds = since(start)
    log = pathlib.Path(f"{plan}.log")
    compiles = len(log.read_text().splitlines()) if log.exists() else 0
    if not reduced.exists():
        return compiles, seconds, [], done.stderr[-300:]
    return compiles, seconds, [node.name for node in onnx.load(reduced).graph.node], ""


def bisect(porter, plan, model):
    start = clock()
    command = [porter, "bisect", model, "--target", f"faulty:{plan}@ort", "--no-cache", "--json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    seconds = since(start)
    report = json.loads(done.stdout)
    return report["probes"]["compiles"], seconds, [fault["nodes"] for fault in report["faults"]]


def environment():
    folder = HERE.parent / ".porter/polygraphy"
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def main():
    if sys.argv[1:2] == ["--check"]:
        return check(*sys.argv[2:5])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--porter", type=pathlib.Path, default=HERE.parent / "target/release/porter")
    parser.add_argument("--models", type=pathlib.Path, default=HERE.parent / "tests/models")
    parser.add_argument("--only", type=int, nargs="*")
    args = parser.parse_args()
    python, porter = environment(), args.porter.resolve()
    if pathlib.Path(sys.executable).parent != python.parent:
        return subprocess.run([python, __file__, *sys.argv[1:]]).returncode
    totals = {"polygraphy": [0, 0.0, 0.0, 0], "porter": [0, 0.0, 0.0, 0]}
    planted = 0
    print(f"{'case: faults':<44} polygraphy and porter: compiles, seconds, seconds of processor, faults named alone")
    for number, (name, faults) in enumerate(CASES):
        if args.only and number not in args.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            model, plan = folder / "model.onnx", folder / "plan.json"
            subprocess.run([porter, "hydrate", args.models / f"{name}.onnx", "-o", model], check=True, capture_output=True)
            plan.write_text(json.dumps([{"kind": kind, "at": {"node": node}} for kind, node in faults]))
            truth = {node for _, node in faults}
            compiles, seconds, left, why = polygraphy(python, porter, plan, model, folder)
            alone = len(truth) if set(left) == truth else len(truth & set(left)) if len(left) == 1 else 0
            own_compiles, own_seconds, named = bisect(porter, plan, model)
            own = sum([node] in named for node in truth)
        planted += len(truth)
        for which, figures in (("polygraphy", (compiles, *seconds, alone)), ("porter", (own_compiles, *own_seconds, own))):
            totals[which] = [total + figure for total, figure in zip(totals[which], figures)]
        told = " + ".join(kind for kind, _ in faults)
        row = lambda compiles, seconds, found: f"{compiles:3} {seconds[0]:6.1f} {seconds[1]:6.1f} {found} of {len(truth)}"
        print(f"{number:2} {name} {told:<28} | {row(compiles, seconds, alone)} | {row(own_compiles, own_seconds, own)} {why}",
              flush=True)
    for which, (compiles, seconds, processor, found) in totals.items():
        print(f"{which}: {compiles} target compiles, {seconds:.1f} s, {processor:.1f} s of processor, {found} of {planted} "
              "faults named alone")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
