"""The network of the playground "Draw five symbols": its pictures, its training and what the package ships."""

import json

import jax
import numpy as np
import optax
import pytest

import metalearn as ml
from metalearn.course.widgets import draw_five, playgrounds
from metalearn.task import Task


def test_ink_is_centred_and_as_large_whatever_the_drawing():
    square = [np.array([[0.1, 0.1], [0.3, 0.1], [0.3, 0.3], [0.1, 0.3], [0.1, 0.1]])]
    large = [0.5 + 3 * (square[0] - 0.2)]
    pictures = [draw_five.picture(draw_five.segments_of(drawing)) for drawing in (square, large)]
    np.testing.assert_allclose(pictures[0], pictures[1], atol=1e-5)
    np.testing.assert_allclose(pictures[0], pictures[0].T, atol=1e-5)
    np.testing.assert_allclose(pictures[0], pictures[0][::-1], atol=1e-5)
    # A line of width PEN around a square of side INK - PEN, but for its four round corners.
    corners = (4 - np.pi) * (draw_five.PEN / 2) ** 2
    area = draw_five.INK**2 - (draw_five.INK - 2 * draw_five.PEN) ** 2 - corners
    assert pictures[0].sum() == pytest.approx(area, rel=0.02)


def test_a_dot_stays_a_dot():
    dot = draw_five.picture(draw_five.segments_of([np.array([[0.9, 0.2]])]))
    assert 1 < dot.sum() < 4
    assert dot[6:8, 6:8].min() > 0.5


def test_printed_characters_take_the_same_room():
    pictures = draw_five.printed(("GEORGIAN",))
    inked = pictures > 25
    tall, wide = inked.any(axis=3).sum(axis=2), inked.any(axis=2).sum(axis=2)
    largest = np.maximum(tall, wide)
    assert largest.max() <= draw_five.INK and (largest >= draw_five.INK - 1).mean() > 0.95


def test_a_task_shows_no_drawing_twice_and_every_class_as_often():
    # Every picture is a number of its own, written in its first two pixels.
    pictures = np.zeros((7, 6, 14, 14), np.uint8)
    pictures[..., 0, 0], pictures[..., 0, 1] = np.arange(7)[:, None], np.arange(6)
    tasks = draw_five.episodes(pictures, num_shots=2, num_query=3, num_tasks=40)
    (support, labels), (query, truth) = tasks
    assert support.shape == (40, 10, 196) and query.shape == (40, 15, 196)
    np.testing.assert_array_equal(labels[0], np.repeat(np.arange(5), 2))
    np.testing.assert_array_equal(truth[0], np.repeat(np.arange(5), 3))
    both = np.rint(255 * np.concatenate([support, query], axis=1)[..., :2]).astype(int)
    known = np.concatenate([labels, truth], axis=1)
    for numbers, classes in zip(both, known, strict=True):
        assert len({tuple(number) for number in numbers}) == 25
        assert all(len({*numbers[classes == c, 0]}) == 1 for c in range(5))
        assert len({*numbers[:, 0]}) == 5


def test_the_nearest_picture_is_found():
    support = np.eye(5, 196, dtype=np.float32)[None]
    query = support[:, [0, 1, 1]] + 0.1
    tasks = Task((support, np.arange(5)[None]), (query, np.array([[0, 1, 2]])))
    assert draw_five.nearest(tasks) == pytest.approx(2 / 3)


@pytest.mark.slow
def test_a_short_training_writes_a_file_that_learns(tmp_path):
    path = tmp_path / "short.json"
    draw_five.write(path, num_steps=60, num_tasks=40, scripts=("CYRILLIC",), progress=False)
    written = json.loads(path.read_text("utf-8"))
    assert written.keys() == playgrounds._data()["draw_five_symbols"].keys()
    for scores in written["measured"].values():
        mean, half_width = scores["network"]
        assert mean - 3 * half_width > 1 / draw_five.NUM_WAYS
    params = draw_five.unpack(written["layers"])
    for packed, again in zip(written["layers"], draw_five.pack(params), strict=True):
        assert packed["numbers"] == again["numbers"]
        assert packed["scale"] == pytest.approx(again["scale"], rel=1e-6)


def test_rounding_to_bytes_is_small_and_the_head_is_zero():
    params = draw_five.network()[0]
    again = draw_five.unpack(draw_five.pack(params))
    for i in range(2):
        kernel, rounded = (tree["layers"][i]["kernel"][...] for tree in (params, again))
        assert np.abs(kernel - rounded).max() <= np.abs(kernel).max() / 254 * 1.001
    assert all(not leaf.any() for leaf in jax.tree.leaves(draw_five.head(again)))
    packed = draw_five.pack(params)
    packed[0]["numbers"] = packed[1]["numbers"]
    with pytest.raises(ValueError, match=r"layer 0 must have 25088 numbers \(kernel\), but it has 128"):
        draw_five.unpack(packed)


@pytest.mark.slow
def test_what_ships_is_what_was_measured():
    shipped = playgrounds._data()["draw_five_symbols"]
    assert draw_five.DATA.stat().st_size < 150_000
    params, num_tasks = draw_five.unpack(shipped["layers"]), 200
    for kind, scores in draw_five.measure(params, num_tasks).items():
        reported = shipped["measured"][kind]
        assert reported["num_tasks"] >= 2000
        for name in ("network", "nearest"):
            (mean, half_width), (there, half_there) = scores[name], reported[name]
            assert abs(mean - there) < 2 * (half_width**2 + half_there**2) ** 0.5, (kind, name)
        assert reported["network"][0] - reported["network"][1] > sum(reported["nearest"]), kind


def test_hand_like_drawings_are_the_same_symbol_and_never_the_same_drawing():
    rng = np.random.default_rng(0)
    pieces = draw_five.symbol(rng)
    drawings = [draw_five.by_hand(pieces, rng) for _ in range(20)]
    assert not np.allclose(drawings[0][0], drawings[1][0])
    apart = np.stack([np.concatenate(drawing) for drawing in drawings]) - np.concatenate(pieces)
    assert 0.02 < np.abs(apart).mean() < 0.15


def test_the_order_of_the_five_makes_no_difference():
    params = draw_five.unpack(playgrounds._data()["draw_five_symbols"]["layers"])
    _, apply = draw_five.network()
    tasks = draw_five.hand_like(1)
    (support, labels), (query, _) = jax.tree.map(lambda leaf: leaf[0], tasks)
    loss = ml.losses.cross_entropy(apply)
    order = np.array([3, 0, 4, 2, 1])

    def logits(labels):
        sgd = optax.sgd(draw_five.INNER_LEARNING_RATE)
        adapted = ml.inner.descend(lambda phi: loss(phi, (support, labels)), sgd, draw_five.NUM_TEST_STEPS, params)
        return apply(adapted, query)

    np.testing.assert_allclose(logits(order[labels])[:, order], logits(labels), atol=1e-4)
