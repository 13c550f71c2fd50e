"""What the kit reaches outside its own folder, in short; the whole kit: ``kit_reach.py``."""

from results import NIGHTLY

FAST = "overwrit or stands_in_its_place or no_name_reaches or lands_on_an_old"
if NIGHTLY:
    FAST += " or hostile_dataset or recovering"


def test_the_kit_changes_nothing_outside_its_folder_for_a_backend_that_recognises_everything(
    campaign, figure
):
    code, text = campaign("--only", FAST)
    assert code == 0, text
    assert figure(text, "outside its folder") == 0
    assert figure(text, "calls that change something, or open a file") > 1000


def test_a_backend_that_writes_outside_is_seen(campaign, figure):
    code, text = campaign("--only", "a_dataset_of_the_backend_is_overwritten", "--spoil")
    assert code == 1 and "BROKEN: the kit reaches outside its folder" in text, text
    assert figure(text, "outside its folder") > 0
