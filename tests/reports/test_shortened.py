"""Names beside points are cut at blanks, and tell their points apart."""

import pytest

from reports.figures.naming import LONG, shortened

LONG_NAME = "NoWag-VQ 2 bits d4 init=kmeans++ share=input"


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["Wanda 2:4", LONG_NAME], ["Wanda 2:4", "NoWag-VQ 2 bits d4 …"]),
        ([f"{LONG_NAME} a", f"{LONG_NAME} b"], ["NoWag-VQ 2 bits d4 … a", "NoWag-VQ 2 bits d4 … b"]),
        (["w" * 50, "w" * 49], ["w" * 50, "w" * 49]),
        ([LONG_NAME, LONG_NAME], ["NoWag-VQ 2 bits d4 …"] * 2),
    ],
)
def test_long_names_keep_their_first_words_and_the_last_that_tell_them_apart(names, short):
    assert shortened(names) == short


def test_what_is_cut_is_no_longer_than_there_is_room_for():
    assert max(map(len, shortened([f"{LONG_NAME} {'x' * n} end" for n in range(1, 9)]))) <= LONG
