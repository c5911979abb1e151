"""Pictures of what a run has logged."""

from io import BytesIO

from matplotlib import image

from posttrain.training.curves import curves

HISTORY = [
    {"step": 1, "loss": 0.7, "accuracy": 0.5},
    {"step": 2, "loss": 0.6, "accuracy": 0.6},
    {"step": 2, "eval_loss": 0.65, "eval_accuracy": 0.55},
    {"step": 2, "train_loss": 0.65},
]


def test_there_is_a_picture_of_each_number_that_was_logged():
    pictures = curves(HISTORY)
    assert list(pictures) == ["loss.png", "accuracy.png"]
    for picture in pictures.values():
        height, width, _ = image.imread(BytesIO(picture)).shape
        assert (width, height) == (720, 420)


def test_held_out_numbers_are_drawn_beside_those_of_training():
    assert curves(HISTORY)["loss.png"] != curves(HISTORY[:2])["loss.png"]
    assert curves(HISTORY)["loss.png"] == curves(HISTORY)["loss.png"]


def test_nothing_is_drawn_of_what_was_never_logged():
    assert curves([{"step": 1, "loss": 0.7}]).keys() == {"loss.png"}
    assert curves([{"step": 2, "train_loss": 0.65}]) == {}
