"""The settings and the codes, as the reference shows them."""

from exengine.config.settings import SETTINGS
from exengine.kernel.registry.codes import FAULTS

START = "Start\n=====\n\n"
ALL_CODES = "".join(f".. exengine-code:: {code}\n\n   Mend it so.\n\n" for code in FAULTS)


def test_every_setting_is_in_the_table(site, build):
    built = build(index=f"{START}.. exengine-settings::\n")
    rows = {row[0]: row[1:] for row in built.rows("index") if row}
    assert list(rows) == [setting.key for setting in SETTINGS]
    assert rows["storage.if_exists"][:2] == ["error or number or overwrite", "error"]
    assert rows["storage.backend"][2].endswith("EXENGINE_STORAGE__BACKEND")


def test_a_code_has_its_meaning_and_how_to_mend_it(site, build):
    text = build(index=START + ALL_CODES).text("index")
    for code, meaning in FAULTS.items():
        assert f"{code} {meaning}" in text
    assert text.count("Mend it so.") == len(FAULTS)


def test_a_page_of_codes_that_leaves_one_out_is_a_warning(site, build):
    built = build(index=f"{START}.. exengine-code:: EX101\n", strict=False)
    assert "does not describe" in built.warnings and "EX205" in built.warnings


def test_a_code_that_does_not_exist_is_a_warning(site, build):
    built = build(index=f"{START}{ALL_CODES}.. exengine-code:: EX999\n", strict=False)
    assert "'EX999' is not an ExEngine code" in built.warnings


def test_an_error_page_links_to_the_code_where_there_is_a_page_of_codes(site, build):
    site.backend(init="def __init__(self, width: int = 1): ...")
    built = build(index=START + ALL_CODES)
    html = (built.output / "usage/backends/shelf.html").read_text()
    assert 'href="../../index.html#exengine-code-EX202"' in html
