"""One broken plugin breaks nothing else, is named with its reason, and using it exits with code 6."""

from __future__ import annotations

import sys

import pytest
from third_party import card, install, install_plugin

from zoo.discovery import BUILTIN
from zoo.errors import PluginError
from zoo.plugincheck import ask_doctor, check_plugins
from zoo.plugins import Plugins, check

HOOK = "from zoo import hookimpl\n\n@hookimpl\n"
WORKS = HOOK + "def register_converters(register):\n    register('{name}', 'x:y')\n"

# Name of the plugin -> its code, and what its reason holds. Each name is also a package, so it is used once.
BROKEN = {
    "raises": ("raise RuntimeError('no\\nluck')", "RuntimeError: no luck"),
    "exits": ("import sys\nsys.exit(4)", "it called sys.exit(4)"),
    "syntax": ("def (", "SyntaxError"),
    "signature": (
        HOOK + "def register_samplers(register, surplus): pass",
        "surplus",
    ),
    "unknownhook": (
        HOOK + "def register_architecture(register): pass",
        "there is no hook 'register_architecture'. Did you mean: register_architectures",
    ),
    "nohook": ("def register_samplers(register): pass", "implements no hook"),
    "wrapper": (
        "from zoo import hookimpl\n@hookimpl(wrapper=True)\ndef register_samplers(register):\n    yield\n",
        "is a wrapper",
    ),
    "insidehook": (HOOK + "def register_samplers(register): raise KeyError('k')", "KeyError: 'k'"),
    "exithook": (HOOK + "def register_samplers(register): raise SystemExit", "it called sys.exit(None)"),
    "badcall": (HOOK + "def register_samplers(register): register('x')", "TypeError"),
    "badcard": (HOOK + "def register_weights(register): register('x')", "TypeError"),
    "dependency": ("import a_package_nobody_has.part", "needs the package 'a_package_nobody_has"),
    "samearchitecture": (
        HOOK + "def register_architectures(register): register('TarFlow', 'x:y', config='x:z')",
        "architecture 'TarFlow' of plugin 'samearchitecture' is already registered by 'tarflow'",
    ),
    "samesampler": (
        HOOK + "def register_samplers(register): register('tarflow', 'x:y', options='x:z')",
        "sampler 'tarflow' of plugin 'samesampler' is already registered by 'tarflow'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_breaks_nothing_else(zoo, site, name):
    code, reason = BROKEN[name]
    install_plugin(site, name, code)
    install_plugin(site, f"works{name}", WORKS.format(name=name))

    listed = zoo("list", "--json")
    assert listed.code == 0
    assert {"tarflow", "toy", name} <= {row["method"] for row in listed.json}
    assert f"acme_{name}" not in sys.modules
    assert zoo("--help").code == 0

    rows = {row["name"]: row for row in zoo("plugins", "--json").json}
    assert {n for n, row in rows.items() if row["status"] == "ok"} == {*BUILTIN, "toy", f"works{name}"}
    assert rows[name]["status"] == "failed"
    assert rows[name]["distribution"] == f"acme-{name}"
    assert reason in rows[name]["error"]
    assert "\n" not in rows[name]["error"]

    used = zoo("sample", f"{name}:base")
    assert used.code == 6
    assert used.out == ""
    first, second, *rest = used.err.splitlines()
    assert first.startswith(f"Error: plugin '{name}' (acme-{name} 1.0) failed: ")
    assert reason in first
    assert second.startswith("Hint: ")
    assert rest == []


def test_a_broken_plugin_does_not_stop_another_from_sampling(zoo, site):
    install_plugin(site, "beside", "raise RuntimeError")
    drawn = zoo("sample", "toy", "-q")
    assert drawn.code == 0
    assert len(drawn.lines) == 1


def test_a_missing_dependency_names_what_to_install(zoo, site):
    install_plugin(site, "needy", "import a_package_nobody_has")
    assert "pip install a_package_nobody_has" in zoo("sample", "needy").err


def test_an_in_tree_name_cannot_be_taken(zoo, site):
    install(site, "acme-taker", "raise RuntimeError", {"zoo.plugins": {"TarFlow": "acme_taker"}})
    rows = zoo("plugins", "--json").json
    [ours] = [row for row in rows if row["name"] == "tarflow"]
    [theirs] = [row for row in rows if row["name"] == "TarFlow"]
    assert ours["status"] == "ok"
    assert theirs["status"] == "failed"
    assert theirs["error"] == "the name 'TarFlow' is taken by zoo"
    assert Plugins().load("tarflow") is True


def test_two_distributions_of_one_name(site):
    for distribution in ("acme-b", "acme-a"):
        code = WORKS.format(name=distribution)
        install(site, distribution, code, {"zoo.plugins": {"same": distribution.replace("-", "_")}})
    rows = [(row["distribution"], row["status"]) for row in check() if row["name"] == "same"]
    assert rows == [("acme-a", "ok"), ("acme-b", "failed")]


@pytest.mark.parametrize("stop", ["raise ValueError('observer')", "raise SystemExit(1)"])
def test_a_failing_observer_is_a_warning_and_no_lost_sample(zoo, site, stop):
    name = "observer" + str(len(stop))
    install_plugin(site, name, HOOK + f"def sample_finished(run): {stop}", cards={})
    (site / f"acme_{name}" / "cards").mkdir()
    drawn = zoo("sample", "toy", "-q")
    assert drawn.code == 0
    assert len(drawn.lines) == 1
    assert f"Warning: plugin '{name}' failed in sample_finished" in drawn.err


def test_a_failing_choice_of_device_leaves_it_to_the_core(zoo, site):
    install_plugin(site, "chooser", HOOK + "def choose_device(request): 1 / 0", cards={})
    drawn = zoo("sample", "toy", "--json")
    assert drawn.code == 0
    assert drawn.json["device"]
    assert "Warning: plugin 'chooser' failed in choose_device: ZeroDivisionError" in drawn.err


@pytest.mark.parametrize("answer", ["1 / 0", "return 'nonsense'", "return ('a', 'b')"])
def test_a_failing_resolver_is_named(zoo, site, answer):
    name = f"resolver{len(answer)}"
    install_plugin(site, name, HOOK + f"def resolve_reference(reference): {answer}", cards={})
    result = zoo("show", "nowhere:x")
    assert result.code == (3 if "/" in answer else 6)
    assert name in result.err
    assert "Traceback" not in result.err
    assert zoo("show", "tarflow").code == 0


def test_a_resolver_answers_for_what_no_card_knows(zoo, site):
    code = (
        "from zoo import hookimpl\n"
        "LEAF = {'summary': 'made up', 'architecture': 'tarflow'}\n"
        "CARD = {'schema': 1, 'method': 'made', 'title': '', 'summary': '', 'tasks': [], 'default': 'up',"
        " 'variant': {'up': LEAF}}\n"
        "@hookimpl\n"
        "def resolve_reference(reference):\n"
        "    from zoo.cards import parse_card\n"
        "    return (parse_card(CARD), 'up') if reference.method == 'made' else None\n"
    )
    install_plugin(site, "maker", code, cards={})
    assert zoo("show", "made:anything", "--json").json["summary"] == "made up"
    assert zoo("show", "other").code == 3


def test_cards_made_by_code(zoo, site):
    code = (
        "from zoo import hookimpl\n"
        "@hookimpl\n"
        "def register_weights(register):\n"
        "    from zoo.cards import parse_card\n"
        "    leaf = {'summary': 'by code', 'architecture': 'tarflow'}\n"
        "    for method in ('coded', 'tarflow'):\n"
        "        register(parse_card({'schema': 1, 'method': method, 'title': '', 'summary': '', 'tasks': [],"
        " 'default': 'v', 'variant': {'v': leaf}}))\n"
    )
    install_plugin(site, "coder", code, cards={})
    shown = zoo("show", "coded", "--json")
    assert shown.json["origin"] == "coder"
    assert shown.json["card"] is None
    assert "method 'tarflow' already has a card from zoo (registered by plugin 'coder')" in shown.err


def test_a_failing_command_fails_alone(zoo, site):
    code = "import click\nprint('imported')\n@click.command()\ndef fine():\n    click.echo('ran')\n"
    code += "@click.command()\ndef late():\n    raise ValueError('later')\nnot_a_command = 3\n"
    install(
        site,
        "acme-verbs",
        code,
        {
            "zoo.commands": {
                "fine": "acme_verbs:fine",
                "late": "acme_verbs:late",
                "wrong": "acme_verbs:not_a_command",
                "gone": "acme_verbs:gone",
                "list": "acme_verbs:late",
            }
        },
    )
    listed = zoo("--help")
    assert listed.code == 0
    assert "imported" not in listed.out
    assert "Provided by acme-verbs." in listed.out
    assert zoo("fine").out.endswith("ran\n")
    assert zoo("list").code == 0
    for name, reason in [
        ("late", "ValueError: later"),
        ("wrong", "not a click command"),
        ("gone", "AttributeError"),
    ]:
        result = zoo(name)
        assert result.code == 6, name
        assert f"command '{name}' of acme-verbs" in result.err
        assert reason in result.err
        assert "Traceback" not in result.err
    assert "there is no command 'fine'" in zoo("--no-plugins", "fine").err
    assert zoo("--no-plugins", "--help").code == 0


@pytest.mark.parametrize(
    ("code", "reason", "timeout"),
    [
        ("import os\nos._exit(9)", "ended the interpreter with exit status 9", 60),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "crashed the interpreter (SIGSEGV)", 60),
        ("import time\ntime.sleep(60)", "did not finish within 4 s", 4),
    ],
)
def test_a_plugin_that_ends_or_blocks_its_process(site, code, reason, timeout):
    name = f"deadly{len(reason)}"
    install_plugin(site, name, code)
    install_plugin(site, "alive", WORKS.format(name="alive"))
    rows = {row["name"]: row for row in check_plugins(timeout)}
    assert rows["tarflow"]["status"] == rows["alive"]["status"] == "ok"
    assert rows[name]["status"] == "failed"
    assert rows[name]["error"] == reason


def test_what_a_plugin_prints_does_not_disturb_the_check(site):
    install_plugin(site, "chatty", "print('[]')\n" + WORKS.format(name="chatty"))
    assert {row["name"]: row["status"] for row in check_plugins()}["chatty"] == "ok"


def test_plugins_answer_the_doctor(site):
    install_plugin(site, "healthy", HOOK + "def doctor(report): report('warn', 'a cold', 'rest')", cards={})
    install_plugin(site, "ill", HOOK + "def doctor(report): report('dead', 'x')", cards={})
    answers = ask_doctor()
    assert ("warn", "a cold", "rest") in answers
    assert any(status == "fail" and "'ill' failed in doctor" in text for status, text, _ in answers)


def test_a_plugin_that_kills_the_doctor(site):
    install_plugin(site, "healthy", HOOK + "def doctor(report): report('ok', 'fine')", cards={})
    install_plugin(site, "poison", HOOK + "def doctor(report):\n    import os\n    os._exit(1)", cards={})
    answers = ask_doctor()
    assert ("ok", "fine", "") in answers
    assert [text for status, text, _ in answers if status == "fail"] == [
        "plugin 'poison': doctor: ended the interpreter with exit status 1"
    ]


# Switches


def test_zoo_plugins_selects(zoo, site, monkeypatch):
    install_plugin(site, "other", "raise RuntimeError")
    monkeypatch.setenv("ZOO_PLUGINS", "tarflow, toy")
    rows = {row["name"]: (row["status"], row["error"]) for row in zoo("plugins", "--json").json}
    disabled = {name: ("disabled", None) for name in (*BUILTIN, "other")}
    assert rows == disabled | {"tarflow": ("ok", None), "toy": ("ok", None)}
    refused = zoo("sample", "other")
    assert refused.code == 6
    assert "plugin 'other' is disabled" in refused.err


def test_no_plugins(zoo, site):
    rows = zoo("--no-plugins", "plugins", "--json").json
    assert {row["status"] for row in rows} == {"disabled"}
    refused = zoo("--no-plugins", "sample", "toy")
    assert refused.code == 6
    assert "disabled" in refused.err
    assert refused.err.count("Warning") == 0
    # The switch holds for one command line.
    assert zoo("sample", "toy").code == 0


def test_check_makes_failures_count(zoo, site):
    assert zoo("plugins", "--check").code == 0
    install_plugin(site, "counted", "raise RuntimeError")
    assert zoo("plugins").code == 0
    result = zoo("plugins", "--check", "-q")
    assert result.code == 6
    assert f"1 of {len(BUILTIN) + 2} plugins failed: counted" in result.err
    assert result.lines == [*BUILTIN, "counted", "toy"]


def test_strict_raises(site, monkeypatch):
    monkeypatch.setenv("ZOO_STRICT", "1")
    install_plugin(site, "strict", "1 / 0")
    with pytest.raises(PluginError, match="ZeroDivisionError") as caught:
        Plugins().load_all()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_strict_refuses_a_taken_name(site, monkeypatch):
    monkeypatch.setenv("ZOO_STRICT", "1")
    install(site, "acme-taken", "", {"zoo.plugins": {"tarflow": "acme_taken"}})
    with pytest.raises(PluginError, match="is taken by zoo"):
        Plugins()


def test_trace_prints_hook_calls(site, monkeypatch, capsys):
    install_plugin(site, "traced", HOOK + "def register_samplers(register): 1 / 0")
    monkeypatch.setenv("ZOO_TRACE", "1")
    plugins = Plugins()
    plugins.load_all()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "zoo: tarflow: register_architectures -> None" in printed.err
    assert "zoo: traced: register_samplers raised ZeroDivisionError: division by zero" in printed.err


def test_debug_shows_where_a_plugin_failed(zoo, site, monkeypatch):
    install_plugin(site, "debugged", "def deep():\n    1 / 0\ndeep()")
    monkeypatch.setenv("ZOO_DEBUG", "1")
    result = zoo("sample", "debugged")
    assert result.code == 6
    assert "ZeroDivisionError" in result.err
    assert "in deep" in result.err


# The class itself


def test_a_failed_plugin_leaves_nothing_behind(site):
    code = WORKS.format(name="half") + "\n@hookimpl\ndef register_samplers(register): 1 / 0\n"
    install_plugin(site, "half", code)
    plugins = Plugins()
    plugins.load_all()
    assert "half" not in plugins.registry.converters.names()
    assert set(plugins.failures) == {"half"}
    assert not plugins.implements("doctor")


def test_an_unknown_plugin_is_not_loaded():
    assert Plugins().load("nobody") is False


def test_each_plugin_is_loaded_once(site):
    code = "import acme_once_counter as c\nc.count += 1\n" + WORKS.format(name="once")
    install_plugin(site, "once", code)
    (site / "acme_once_counter.py").write_text("count = 0\n", encoding="utf-8")
    plugins = Plugins()
    for _ in range(2):
        assert plugins.load("ONCE") is True
        plugins.load_all()
    import acme_once_counter

    assert acme_once_counter.count == 1


def test_an_object_may_be_the_plugin(site):
    code = "from zoo import hookimpl\nclass P:\n    @hookimpl\n"
    code += "    def doctor(self, report):\n        report('ok', 'object')\n"
    install(site, "acme-object", code + "plugin = P()\n", {"zoo.plugins": {"object": "acme_object:plugin"}})
    plugins = Plugins()
    plugins.load_all()
    found = []
    for _ in plugins.each("doctor", report=lambda status, text, hint="": found.append(text)):
        pass
    assert "object" in found


def test_cards_of_a_broken_distribution_are_listed_all_the_same(zoo, site):
    bad = card("halfbad") + "\n[variant.base.config]\n"
    install_plugin(site, "halfbad", "", {"halfbad": bad, "fine2": card("fine2")})
    result = zoo("list", "--json")
    assert result.code == 0
    assert "fine2" in {row["method"] for row in result.json}
