"""Reads raw heads with ONNX Runtime's own operators: what porter's native reading is compared with.

    check_heads.py FOLDER    writes raw.npz (tensors to read) and wanted.npz (what is found in them)

One-to-one: TopK over all scores. One-to-many: NonMaxSuppression, class by class, on each anchor's best class, the best
300 kept. Masks: MatMul and Resize, above 0 and inside the box. Rotated boxes: Shapely's intersections and areas of polygons,
and for the Gaussians that stand for boxes, sums of scipy's densities over a fine grid. Points: the columns of the kept boxes.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import shapely
import shapely.affinity
from onnx import TensorProto, helper
from scipy.stats import multivariate_normal

ANCHORS, CLASSES, SIDE, PROTOS = 2000, 12, 160, 8
CONFIDENCE, IOU, MOST = 0.25, 0.7, 300


def run(nodes, inputs, constants=()):
    """Runs some nodes; the last one's first output is given."""
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    given = [helper.make_tensor_value_info(k, types[str(v.dtype)], list(v.shape)) for k, v in inputs.items()]
    wanted = helper.make_empty_tensor_value_info(nodes[-1].output[0])
    graph = helper.make_graph(nodes, "g", given, [wanted], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def constant(name, values):
    values = np.asarray(values)
    kind = TensorProto.INT64 if values.dtype == np.int64 else TensorProto.FLOAT
    return helper.make_tensor(name, kind, values.shape, values.ravel().tolist())


def suppressed(boxes, scores):
    """Anchors and classes that NonMaxSuppression keeps, best first."""
    best = scores.argmax(0)
    alone = np.zeros_like(scores)
    alone[best, np.arange(ANCHORS)] = scores.max(0)
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["kept"], center_point_box=1)
    constants = [constant("most", np.int64([ANCHORS])), constant("iou", np.float32([IOU])), constant("least", np.float32([CONFIDENCE]))]
    kept = run([node], {"boxes": np.ascontiguousarray(boxes.T)[None], "scores": alone[None]}, constants)
    order = sorted(kept.tolist(), key=lambda one: (-alone[one[1], one[2]], one[2]))[:MOST]
    return np.array([[alone[c, a], c, *boxes[:, a]] for _, c, a in order], np.float32)


def rectangle(x, y, w, h, angle):
    straight = shapely.box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    return shapely.affinity.rotate(straight, angle, origin=(x, y), use_radians=True)


def suppressed_turned(boxes, angles, scores):
    """Score, class and anchor of the rotated boxes that are kept, best first."""
    best, sure = scores.argmax(0), scores.max(0)
    shapes = np.array([rectangle(*map(float, boxes[:, a]), float(angles[a])) for a in range(ANCHORS)])
    areas, kept = shapely.area(shapes), []
    for a in sorted(np.flatnonzero(sure > CONFIDENCE), key=lambda a: (-sure[a], a)):
        rivals = np.array([b for b in kept if best[b] == best[a]], int)
        common = shapely.area(shapely.intersection(shapes[rivals], shapes[a]))
        if not (common > IOU * (areas[rivals] + areas[a] - common)).any():
            kept.append(a)
    return np.array([[sure[a], best[a], a] for a in kept[:MOST]], np.float32)


def alike(one, other):
    """How alike the Gaussians of two rotated boxes are: one less their Hellinger distance, summed over a grid."""
    places = np.linspace(-120, 120, 961)
    grid = np.stack(np.meshgrid(places, places), -1)

    def density(x, y, w, h, angle):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return multivariate_normal([x, y], turn @ np.diag([w * w / 12, h * h / 12]) @ turn.T).pdf(grid)

    shared = np.sqrt(density(*one) * density(*other)).sum() * (places[1] - places[0]) ** 2
    return 1 - np.sqrt(max(0.0, 1 - shared))


def main():
    folder = Path(sys.argv[1])
    random = np.random.default_rng(3)
    centres = random.uniform(20, 140, (60, 2))
    thing = random.integers(0, 60, ANCHORS)
    boxes = np.concatenate([centres[thing].T + random.normal(0, 2, (2, ANCHORS)), random.uniform(15, 40, (2, ANCHORS))])
    scores = random.random((CLASSES, ANCHORS)) ** 6
    boxes, scores = boxes.astype(np.float32), scores.astype(np.float32)
    coefficients = random.normal(size=(PROTOS, ANCHORS)).astype(np.float32)
    protos = random.normal(size=(1, PROTOS, SIDE // 4, SIDE // 4)).astype(np.float32)
    raw = np.concatenate([boxes, scores, coefficients])[None]

    top = run(
        [helper.make_node("TopK", ["scores", "most"], ["values", "places"])],
        {"scores": scores.ravel()},
        [constant("most", np.int64([MOST]))],
    )
    found = suppressed(boxes, scores)

    # The mask of the best thing.
    anchor = int(np.argmax(scores.max(0)))
    x, y, w, h = boxes[:, anchor]
    mixed = run(
        [helper.make_node("MatMul", ["c", "p"], ["m"])],
        {"c": coefficients[:, anchor][None], "p": protos.reshape(PROTOS, -1)},
    ).reshape(1, 1, SIDE // 4, SIDE // 4)
    grown = run(
        [helper.make_node("Resize", ["m", "", "s"], ["g"], mode="linear", coordinate_transformation_mode="half_pixel")],
        {"m": mixed},
        [constant("s", np.float32([1, 1, 4, 4]))],
    )[0, 0]
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    corners = [round(float(v)) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
    inside = (columns >= corners[0]) & (columns < corners[2]) & (rows >= corners[1]) & (rows < corners[3])
    mask = ((grown > 0) & inside).astype(np.uint8)

    # Points, and angles, after the classes.
    points = random.uniform(0, SIDE, (15, ANCHORS)).astype(np.float32)
    angles = random.uniform(-np.pi / 4, 3 * np.pi / 4, (1, ANCHORS)).astype(np.float32)
    posed = np.concatenate([boxes, scores, points])[None]
    turned = np.concatenate([boxes, scores, angles])[None]
    places = {tuple(boxes[:, a]): a for a in range(ANCHORS)}
    posed_found = np.array([[*row[:2], *points[:, places[tuple(row[2:])]]] for row in found], np.float32)
    turned_found = suppressed_turned(boxes, angles[0], scores)
    pairs = random.uniform([-8, -8, 15, 15, -1], [8, 8, 40, 40, 2], (24, 2, 5)).astype(np.float32)
    likeness = np.array([alike(*pair) for pair in pairs.astype(float)], np.float32)

    np.savez(folder / "raw.npz", raw=raw, protos=protos, posed=posed, turned=turned, pairs=pairs)
    np.savez(
        folder / "wanted.npz",
        top=top, found=found, mask=mask, posed=posed_found, turned=turned_found, likeness=likeness,
    )


main()
