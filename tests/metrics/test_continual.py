import pytest

from looper.metrics.continual import measure


def test_a_stream_of_three_stages_by_hand():
    matrix = [
        [0.1, 0.2, 0.3],
        [0.6, 0.3, 0.3],
        [0.7, 0.8, 0.5],
        [0.4, 0.5, 0.9],
    ]
    measured = measure(matrix)
    assert measured.accuracy == pytest.approx(0.6)
    assert measured.forgetting == pytest.approx(((0.7 - 0.4) + (0.8 - 0.5)) / 2)
    assert measured.forgetting_until_learned == pytest.approx(((0.6 - 0.4) + (0.8 - 0.5)) / 2)
    assert measured.forward_transfer == pytest.approx(((0.3 - 0.2) + (0.5 - 0.3)) / 2)
    assert measured.backward_transfer == pytest.approx(((0.4 - 0.6) + (0.5 - 0.8)) / 2)
    assert measured.learning_curve_area == pytest.approx((0.6 + 0.7 + (0.6 + 0.8 + 0.9) / 3) / 3)


def test_one_stage_defines_accuracy_only():
    measured = measure([[0.2], [0.5]])
    assert (measured.accuracy, measured.learning_curve_area) == (0.5, 0.5)
    assert measured.forgetting is measured.forward_transfer is measured.backward_transfer is None


def test_what_was_not_probed_is_unknown_not_zero():
    measured = measure([[None, 0.2], [0.5, 0.3], [0.4, None]])
    assert measured.accuracy is None
    assert measured.backward_transfer == pytest.approx(-0.1)
    assert measured.forward_transfer == pytest.approx(0.1)


@pytest.mark.parametrize("matrix", [[], [[0.1]], [[0.1], [0.1, 0.2]]])
def test_a_matrix_of_the_wrong_shape_is_an_error(matrix):
    with pytest.raises(ValueError, match="N \\+ 1 rows"):
        measure(matrix)
