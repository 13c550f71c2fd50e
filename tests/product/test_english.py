"""The source reads as English: few sentences have the patterns that ``english.py`` lists."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).with_name("english.py")
MOST = 90
"""Some of the patterns are right English in places, such as "a user whose disk is full"."""


def english():
    spec = importlib.util.spec_from_file_location("english", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docstrings_comments_and_messages_have_few_of_the_patterns():
    counted, places = english().count(english().ROOT)
    assert sum(counted.values()) <= MOST, "\n".join(places)


def test_a_sentence_with_a_pattern_is_found(tmp_path):
    source = tmp_path / "src" / "some.py"
    source.parent.mkdir()
    source.write_text(
        '"""What is told."""\n# Whoever reads it, as far as it goes.\nraise ValueError(f"{1} is no number")\n'
    )
    counted, places = english().count(tmp_path)
    assert {place.split(":")[1] for place in places} == {"1", "2", "3"} and sum(counted.values()) >= 4
