"""What a user reads when a value in a recipe is wrong."""

import pytest
from pydantic import ValidationError

from suite.protocols import Tasks
from suite.schema import first_error


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"names": []}, "tasks.names: list should have at least 1 item, not 0 (given: [])"),
        ({"names": None}, "tasks.names: input should be a valid list (given: None)"),
        ({"names": ["a"], "limit": 0}, "tasks.limit: input should be greater than or equal to 1 (given: 0)"),
        ({"names": ["a"], "folder": {}}, "tasks.folder: input should be a valid string"),
        ({"tuple": 1}, "tasks: unknown key 'tuple'. Known: names, folder, limit, batch_size"),
    ],
)
def test_a_fault_is_told_in_the_words_of_a_recipe(values, line):
    with pytest.raises(ValidationError) as error:
        Tasks.model_validate(values)
    assert first_error(error.value, "tasks") == line
