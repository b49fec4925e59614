"""Templates: what they can use, how mistakes are told, and that nothing a template says can hang or grow."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plans.context import MachineInRun, RunContext
from plans.rendering import (
    TemplateFault,
    command,
    environment,
    http_target,
    render,
    render_step,
    tcp_target,
)
from plans.steps import CheckStep, HttpCheck, ManualStep, ScriptStep
from vault.errors import BadInput, InvalidState

pytestmark = pytest.mark.unit

CONTEXT = RunContext(
    plan="payments",
    run_id="run-1",
    run_type="test",
    direction="primary-to-recovery",
    group="web",
    variables={"zone": "example.test", "number": 3, "flag": True},
    machines={
        "web": MachineInRun(name="web-test", site="recovery", network="isolated", address="127.0.0.1:8080"),
        "db": MachineInRun(name="db-test", site="recovery", network="isolated"),
    },
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no template", "no template"),
        ("{{ plan }}/{{ run_type }}/{{ group }}", "payments/test/web"),
        ("{{ zone }} {{ variables.zone }} {{ number + 1 }} {{ flag }}", "example.test example.test 4 true"),
        ("{{ machines.web.address }} {{ machines['web'].name }}", "127.0.0.1:8080 web-test"),
        ("{{ machines.db.address|default('unknown') }}", "unknown"),
        ("{% if machines.db.address %}yes{% else %}no{% endif %}", "no"),
        ("{% for name, m in machines.items() %}{{ name }}={{ m.site }};{% endfor %}", "web=recovery;db=recovery;"),
        ("{% for i in range(3) %}{{ loop.index }}{% endfor %}", "123"),
        ("{% for i in range(4) if i > 1 %}{{ i }}{% endfor %}", "23"),
        ("{{ ['b', zone]|sort|join(',') }}", "b,example.test"),
        ("{{ 'it''s'|upper }} {{ \"it's\"|quote }}", "ITS 'it'\"'\"'s'"),
        ("{{ 'a' ~ number ~ 'b' }}", "a3b"),
        ("{{ machines.values()|attributes('name')|join(' ') }}", "web-test db-test"),
        ("{% set x = zone.split('.') %}{{ x|first }}", "example"),
        ("{% raw %}{{ kept }}{% endraw %}\n", "{{ kept }}\n"),
    ],
)
def test_what_templates_can_do(text: str, expected: str) -> None:
    assert render(text, CONTEXT) == expected


@pytest.mark.parametrize(
    ("text", "what", "remedy", "line"),
    [
        ("a\n{{ zoen }}", "unknown variable 'zoen'", "did you mean 'zone'?", 2),
        ("{{ machines.wbe.address }}", "unknown machine 'wbe' in this plan", "did you mean 'web'?", 1),
        ("{{ machines.web.adress }}", "unknown name 'adress'", "did you mean 'address'?", 1),
        ("{{ zone|uper }}", "unknown filter 'uper'", "did you mean 'upper'?", 1),
        ("\n\n{{ zone", "not sound", "correct the template", 3),
        ("{{ machines.db.address }}", "not known here", "correct the template", 1),
        ("{{ machines }}", "only a text or a number", "correct the template", 1),
        ("{{ 1 / 0 }}", "division by zero", "correct the template", 1),
        ("{% include 'x' %}", "'include' is not available", "correct the template", 1),
    ],
)
def test_mistakes_say_what_and_where(text: str, what: str, remedy: str, line: int) -> None:
    with pytest.raises(TemplateFault) as caught:
        render(text, CONTEXT, where="here")
    assert what in caught.value.what
    assert caught.value.remedy == remedy
    assert caught.value.line == line
    assert caught.value.where == "here"


DOUBLING = "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}"
HOSTILE = [
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "{% for i in range(9999) if range(9999)|sort|length < 0 %}{% endfor %}" * 20,
    "{% for a in range(9999) recursive %}{{ loop(range(9999)) }}{% endfor %}",
    "{{ 'a' * 1000000000 }}",
    "{{ [0] * 1000000000 }}",
    "{{ 9 ** 9 }}",
    "{{ 9999999999999 * 9999999999999 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ 'a'|center(1000000000) }}",
    "{{ 'a'|indent(1000000000) }}",
    "{{ (1).to_bytes(1000000000, 'big') }}",
    "{{ lipsum(100000) }}",
    DOUBLING,
    DOUBLING.replace("~", "+"),
    "{% set x = ['a'] %}" + "{% set x = x + x %}" * 60 + "{{ x|length }}",
    "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x|tojson }}",
    "{% set x = ['a'] %}" + "{% set x = (x, x) %}" * 60 + "{{ x|string }}",
    '{{ "\'"' + "|quote" * 35 + " }}",
    "{{ '\"'" + "|tojson" * 35 + " }}",
    "{{ 'aaaaaaaa'" + "|replace('a', 'aaaaaaaa')" * 20 + " }}",
    "{{ zone|replace('', zone) }}",
    "{% for i in range(9999) %}{{ 'x" + "x" * 100 + "' }}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ 1" + " + 1" * 5000 + " }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "9" * 5000 + " }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ machines.__init__.__globals__ }}",
    "{{ range.__self__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ __turn }}",
    "{{ zone|__turn }}",
    "{{ zone|attr('__class__') }}",
    "{{ [zone]|map('__turn')|list }}",
    "{{ zone.split(*[1]) }}",
    "{{ 'a' * (0 - 1) }}",
    "{{ machines.update({'a': 1}) }}",
    "{{ machines.clear() }}",
    "{{ {'a': 1} }}",
    "x" * 128 * 1024 + "{{ x }}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_templates_are_refused_quickly(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(TemplateFault):
        render(text, CONTEXT)
    assert time.monotonic() - started < 30


VOCABULARY = """{{ }} {% %} {# #} for in if else endif endfor set raw endraw = == + - * ~ | . , ( ) [ ] ' " 9 range(
machines zone loop items() x not and is defined name address join default tojson replace"""
WORDS = st.lists(st.sampled_from(VOCABULARY.split()), max_size=30).map(" ".join)


@settings(max_examples=200, deadline=3000)
@given(st.one_of(WORDS, st.text(max_size=60)))
def test_any_template_renders_or_is_a_template_fault(text: str) -> None:
    try:
        render("{{ zone }}" + text, CONTEXT)
    except TemplateFault as fault:
        assert fault.what and fault.line >= 1


def test_rendering_a_step_fills_every_text() -> None:
    script = ScriptStep(name="s", run=["echo", "{{ plan }}"], environment={"ZONE": "{{ zone }}", "N": 1})
    filled = render_step(script, CONTEXT)
    assert isinstance(filled, ScriptStep)
    assert filled.run == ["echo", "payments"]
    assert filled.environment == {"ZONE": "example.test", "N": 1}
    manual = render_step(ManualStep(name="m", instructions="to {{ zone }}"), CONTEXT)
    assert isinstance(manual, ManualStep) and manual.instructions == "to example.test"
    check = render_step(
        CheckStep(name="c", http=HttpCheck(machine="web", path="/{{ plan }}", contains="{{ zone }}")), CONTEXT
    )
    assert isinstance(check, CheckStep) and check.http is not None
    assert (check.http.path, check.http.contains) == ("/payments", "example.test")


def test_a_rendered_script_must_fit_into_an_argument() -> None:
    step = ScriptStep(name="s", run="{% for i in range(2000) %}" + "x" * 100 + "{% endfor %}")
    with pytest.raises(TemplateFault, match="longer than 120 KiB"):
        render_step(step, CONTEXT)


def test_a_script_really_sees_its_environment_and_stops_at_the_first_error() -> None:
    step = ScriptStep(
        name="s",
        run='echo "$LEEWARD_PLAN $LEEWARD_RUN_TYPE $LOUD {{ zone }}"\nfalse\necho later',
        environment={"LOUD": True},
    )
    filled = render_step(step, CONTEXT)
    assert isinstance(filled, ScriptStep)
    done = subprocess.run(
        command(filled), env=environment(CONTEXT, "/context.json", filled), capture_output=True, text=True, check=False
    )
    assert done.stdout == "payments test true example.test\n"
    assert done.returncode == 1


def test_the_environment_names_the_run() -> None:
    assert environment(CONTEXT, "/tmp/context.json") == {
        "LEEWARD_PLAN": "payments",
        "LEEWARD_RUN_ID": "run-1",
        "LEEWARD_RUN_TYPE": "test",
        "LEEWARD_DIRECTION": "primary-to-recovery",
        "LEEWARD_GROUP": "web",
        "LEEWARD_CONTEXT": "/tmp/context.json",
    }
    assert json.loads(CONTEXT.model_dump_json())["machines"]["web"]["address"] == "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("tcp", "target"),
    [
        ("web", ("127.0.0.1", 8080)),
        ("web:443", ("127.0.0.1", 443)),
        ("10.0.0.1:22", ("10.0.0.1", 22)),
        ("[::1]:5", ("::1", 5)),
    ],
)
def test_tcp_targets(tcp: str, target: tuple[str, int]) -> None:
    assert tcp_target(CheckStep(name="c", tcp=tcp), CONTEXT) == target


def test_http_targets() -> None:
    def url(http: HttpCheck) -> str:
        return http_target(CheckStep(name="c", http=http), CONTEXT)

    assert url(HttpCheck(machine="web", path="/health")) == "http://127.0.0.1:8080/health"
    assert url(HttpCheck(machine="web", port=80)) == "http://127.0.0.1:80/"
    assert url(HttpCheck(url="https://example.test/x")) == "https://example.test/x"
    with pytest.raises(BadInput, match="not a URL"):
        url(HttpCheck(url="file:///etc/passwd"))
    with pytest.raises(InvalidState, match="'db' has no address yet"):
        url(HttpCheck(machine="db"))
    with pytest.raises(BadInput, match="did you mean 'web'"):
        url(HttpCheck(machine="wbe"))


@pytest.mark.parametrize("tcp", ["nothing", "host:", ":80", "host:0", "host:99999", "host:x"])
def test_what_is_no_target_is_refused(tcp: str) -> None:
    with pytest.raises(BadInput, match="neither a machine of the plan nor host:port"):
        tcp_target(CheckStep(name="c", tcp=tcp), CONTEXT)
