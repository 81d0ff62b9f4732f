"""What the static figures promise beyond the numbers that they draw."""

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mia_jax.report import figures


def test_names_beside_points_do_not_overlap_and_stay_within_the_axes():
    figure = Figure(figsize=(8, 5), dpi=100)
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    axes.set(xlim=(0.5, 0.8), ylim=(0.7, 1.0))
    at_PX = np.random.default_rng(0).normal((0.6, 0.95), (0.02, 0.01), size=(24, 2))
    points = [(f"defense_{p}", *at_X) for p, at_X in enumerate(at_PX)]
    texts = figures._labeled(axes, points)
    assert [text.get_text() for text in texts] == [name for name, _, _ in points]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    inside = axes.get_window_extent()
    for box in boxes:
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1
