"""What stands beside a method's settings, and which cells a cell is made from."""

import pytest

from suite.cell import with_bases
from suite.config import Recipe
from suite.errors import ConfigError


@pytest.fixture
def cells(recipe_values):
    def of(**methods):
        return Recipe.model_validate(recipe_values | {"methods": methods}).cells()

    return of


def ids(cells):
    return [cell.identity("f" * 64, "ledger" if cell.budget else None, "float32") for cell in cells]


def test_what_is_not_set_beside_a_method_changes_no_id(cells):
    assert ids(cells(gptq={})) == ids(cells(gptq={"finetune": False, "outliers": None}))


def test_a_tuned_cell_is_made_from_the_same_cell_untuned(cells):
    [plain, tuned] = cells(gptq={"finetune": [False, {"epochs": 2}]})
    assert tuned.bases == (plain,) and plain.bases == ()
    assert tuned.variant == f"{plain.variant} fine-tuned epochs=2"
    assert len(set(ids([plain, tuned]))) == 2


def test_fine_tuning_gives_a_method_without_data_a_budget_and_its_base_none(cells):
    [tuned] = cells(rtn={"finetune": True})
    assert tuned.budget is not None and tuned.bases[0].budget is None


def test_an_allocation_is_made_from_its_options_each_once(cells):
    [cell] = cells(allocate={"methods": [{"rtn": {"bits": [2, 3]}}, "gptq"], "bits_per_weight": 3})
    assert [base.label for base in cell.bases] == [
        "RTN 2 bits g64",
        "RTN 3 bits g64",
        "GPTQ 4 bits g64 (dense)",
    ]
    assert cell.bases[0].budget is None and cell.bases[2].budget is not None


def test_a_list_of_targets_makes_a_cell_for_each(cells):
    found = cells(allocate={"methods": ["rtn", "gptq"], "bits_per_weight": [3, 3.5], "finetune": True})
    assert [cell.variant for cell in found] == [
        "3 bits of RTN, GPTQ fine-tuned",
        "3.5 bits of RTN, GPTQ fine-tuned",
    ]


def test_bases_come_before_what_is_made_from_them(cells):
    [cell] = cells(allocate={"methods": ["rtn", "gptq"], "bits_per_weight": 3, "finetune": True})
    order = with_bases([cell])
    assert len(order) == 4 and order[-1] == cell and order[-2] == cell.bases[0]


def test_an_options_settings_are_part_of_the_id(cells):
    first, second = (
        cells(allocate={"methods": [{"rtn": {"group_size": size}}], "bits_per_weight": 3}) for size in (32, 64)
    )
    assert ids(first) != ids(second)


def test_outliers_by_output_give_a_method_without_data_dense_statistics(cells):
    [cell] = cells(rtn={"outliers": 0.01})
    assert (cell.mode, cell.variant) == ("dense", "4 bits g64 +1% outliers") and cell.budget is not None


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"gptq": {"finetune": 3}}, "methods.gptq.finetune is 3; give true, false, or a mapping"),
        ({"gptq": {"finetune": {"epoch": 3}}}, "unknown key 'epoch'. Did you mean 'epochs'?"),
        ({"dense": {"finetune": True}}, "nothing of the dense model is compressed"),
        ({"gptq": {"outliers": "many"}}, "methods.gptq.outliers.share"),
        ({"gptq": {"outliers": {"part": 1}}}, "methods.gptq.outliers"),
        ({"gptq": {"outliers": 0.7}}, "less than 0.5"),
        ({"cvxq": {"outliers": 0.01}}, "its size from a target alone"),
        ({"allocate": {"methods": []}}, "methods.allocate.methods is missing"),
        ({"allocate": {"methods": ["gpqt"], "bits_per_weight": 3}}, "Did you mean 'gptq'?"),
        ({"allocate": {"methods": [3], "bits_per_weight": 3}}, "give a method's name"),
        ({"allocate": {"methods": ["rtn"]}}, "either bits_per_weight or bytes"),
        ({"allocate": {"methods": ["rtn"], "bits": 3}}, "methods.allocate.bits is not a setting"),
        ({"allocate": {"methods": ["rtn"], "bits_per_weight": 3, "error": "mse"}}, "allowed: weight, output"),
        ({"allocate": {"methods": [{"rtn": {"finetune": True}}], "bits_per_weight": 3}}, "beside `methods`"),
        ({"allocate": {"methods": ["rtn"], "bits_per_weight": 3, "statistics": "sequential"}}, "allowed: dense"),
    ],
)
def test_a_mistake_is_told_in_one_line(cells, methods, words):
    with pytest.raises(ConfigError) as caught:
        cells(**methods)
    assert words in str(caught.value) and "\n" not in str(caught.value)
