"""The helper thread of a storage ends quietly, even while the interpreter shuts down."""

from exengine.kernel.system import helper_thread


def test_it_ends_after_the_interpreter_has_emptied_the_module(monkeypatch):
    helper = helper_thread.HelperThread()
    assert helper.begin(len, "four").end() == 4
    monkeypatch.setattr(helper_thread, "os", None)
    helper.end()
    assert helper._workers == {}
