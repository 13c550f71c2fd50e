"""A record has an identity that never changes and an outcome that is set once; old pickles load."""

import base64
import pickle
import warnings

import pytest

from exengine.kernel.registry.codes import Finding
from exengine.kernel.registry.records import NOT_LOADED, Outcome, PluginRecord, broken


@pytest.fixture
def record():
    return PluginRecord(
        "store", "exengine.storage_backends", "pkg.mod:Store", "My-Dist", "1.0", "Stores", "/site"
    )


def test_a_record_is_found_until_its_outcome_is_set(record):
    assert record.outcome is NOT_LOADED
    assert (record.state, record.stage, record.error, record.loaded) == ("found", "", "", None)
    record.settle(Outcome("valid", loaded=dict))
    assert (record.state, record.loaded) == ("valid", dict)


def test_a_second_outcome_is_an_error_and_changes_nothing(record):
    record.settle(broken("import", "it raised"))
    with pytest.raises(RuntimeError, match="the outcome of 'My-Dist:store' is already set: broken"):
        record.settle(Outcome("valid", loaded=dict))
    assert (record.state, record.error, record.loaded) == ("broken", "it raised", None)


@pytest.mark.parametrize("name", ["name", "target", "state", "findings", "loaded", "_outcome", "more"])
def test_nothing_of_a_record_can_be_changed(record, name):
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(record, name, "x")
    with pytest.raises(AttributeError, match="cannot be changed"):
        delattr(record, name)


def test_a_record_with_another_outcome_is_another_record(record):
    other = record.with_outcome(broken("page", "it raised"))
    assert (record.state, other.state) == ("found", "broken")
    assert other.identity == record.identity


def test_module_and_package_come_from_the_target(record):
    assert (record.module, record.package, record.qualified_name) == ("pkg.mod", "pkg", "My-Dist:store")


def test_the_claims_of_a_conflict_are_its_candidates(record):
    both = PluginRecord("store", record.group, "", "", "", candidates=(record, record))
    assert both.claims == (record, record) and record.claims == (record,)


def test_a_record_is_the_same_after_pickling(record):
    record.settle(
        Outcome("invalid", "contract", "EX201", "", (Finding("EX201", "no docstring"),), source=("f", 3))
    )
    again = pickle.loads(pickle.dumps(record))
    assert again.to_dict() == record.to_dict()
    assert (again.group, again.location, again.source) == (record.group, "/site", ("f", 3))
    fresh = pickle.loads(pickle.dumps(PluginRecord("a", "g", "m:C", "d", "1")))
    fresh.settle(broken("import", "it raised"))


# exengine.kernel.records.PluginRecord of a conflict, with one candidate that has a finding; protocol 4.
PICKLE_OF_1_0 = (
    "gASVWQIAAAAAAACMF2V4ZW5naW5lLmtlcm5lbC5yZWNvcmRzlIwMUGx1Z2luUmVjb3JklJOUKYGUTn2UKIwKY2FuZGlkYXRl"
    "c5RoAimBlE59lChoBSmMDGRpc3RyaWJ1dGlvbpSMEmV4ZW5naW5lLW5kc3RvcmFnZZSMBWVycm9ylIwSRVgyMDEgbm8gZG9j"
    "c3RyaW5nlIwIZmluZGluZ3OUjBhleGVuZ2luZS5rZXJuZWwuY29udHJhY3SUjAdGaW5kaW5nlJOUKYGUfZQojARjb2RllIwF"
    "RVgyMDGUjAdtZXNzYWdllIwMbm8gZG9jc3RyaW5nlHVihZSMBWdyb3VwlIwZZXhlbmdpbmUuc3RvcmFnZV9iYWNrZW5kc5SM"
    "BmxvYWRlZJROjAhsb2NhdGlvbpSMBS9zaXRllIwEbmFtZZSMBW5kcmFtlIwGb3V0cHV0lIwCaGmUjAZzb3VyY2WUjARmLnB5"
    "lEsDhpSMBXN0YWdllIwIY29udHJhY3SUjAVzdGF0ZZSMB2ludmFsaWSUjAdzdW1tYXJ5lIwGU3RvcmVzlIwGdGFyZ2V0lIwl"
    "ZXhlbmdpbmVfbmRzdG9yYWdlLm5kcmFtOk5EUkFNU3RvcmFnZZSMCXRyYWNlYmFja5SMCVRyYWNlYmFja5SMB3ZlcnNpb26U"
    "jAUxLjAuMJR1hpRihZRoCIwAlGgKjBBib3RoIHJlZ2lzdGVyIGl0lGgMKWgXaBhoGU5oGmgxaBxoHWgeaDFoIGgxSwCGlGgj"
    "aBxoJYwIY29uZmxpY3SUaCdoMWgpaDFoK2gxaC1oMXWGlGIu"
)


def test_a_pickle_of_1_0_loads():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the finding names exengine.kernel.contract
        record = pickle.loads(base64.b64decode(PICKLE_OF_1_0))
    (claim,) = record.candidates
    assert (record.name, record.state, record.error) == ("ndram", "conflict", "both register it")
    assert (claim.state, claim.stage, claim.error) == ("invalid", "contract", "EX201 no docstring")
    assert claim.findings == (Finding("EX201", "no docstring"),)
    assert (claim.output, claim.source, claim.location, claim.traceback) == (
        "hi",
        ("f.py", 3),
        "/site",
        "Traceback",
    )
    with pytest.raises(RuntimeError, match="already set"):
        record.settle(broken("import", "it raised"))
