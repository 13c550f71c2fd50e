"""One rule decides which names are the same; one table lists where a known plugin comes from."""

import pytest

from exengine.kernel.registry.names import (
    BACKENDS_GROUP,
    PROVIDERS,
    SOURCES_GROUP,
    fold,
    how_to_get,
    identity_fault,
    providers,
    same_name,
    spellings,
)


@pytest.mark.parametrize("written", ["My.Dist", "my-dist", "my_dist", "MY-_.dist"])
def test_case_and_separators_do_not_matter(written):
    assert fold(written) == "my-dist" and same_name(written, "My.Dist")


@pytest.mark.parametrize("other", ["mydist", "my-dist-", "my dist", ""])
def test_other_names_are_other_names(other):
    assert not same_name(other, "my-dist")


def test_a_name_is_written_as_it_is_or_with_one_kind_of_separator():
    assert spellings("a-b_c") == ("a-b_c", "a_b_c", "a-b-c")


@pytest.mark.parametrize("name", ["a", "a-b_9", "a" * 64])
def test_a_valid_identity_has_no_fault(name):
    assert identity_fault(name, "module.inner:Class.Inner") == ("", "")


def test_the_name_comes_before_the_target():
    assert identity_fault("Bad", "bad")[0] == "name"
    assert identity_fault("good", "bad")[0] == "target"


def test_a_known_plugin_is_offered_in_its_own_group_only():
    for (name, group), distribution in PROVIDERS.items():
        assert providers(group)[name] == distribution
        assert how_to_get(name, group).endswith(f"pip install ./plugins/{distribution}")
    assert how_to_get("micromanager", BACKENDS_GROUP) == how_to_get("ndtiff", SOURCES_GROUP) == ""
