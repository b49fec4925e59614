"""The bootstrap, the envelope and the scripts of jobs, and the line of JSON that both sides agree on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from powershell_check import problems
from pydantic import SecretStr

import adapters.hyperv
from adapters.hyperv.call import (
    Answer,
    decode_answer,
    decode_call,
    encode_answer,
    encode_call,
    powershell,
    secrets_in,
)
from adapters.hyperv.clixml import error_text
from adapters.hyperv.loader import JOB, script
from vault.domain import Value
from vault.errors import Damaged, NotFound

pytestmark = pytest.mark.unit

SCRIPTS = Path(adapters.hyperv.__file__).parent / "scripts"
TRANSPORT = sorted(path.stem for path in SCRIPTS.glob("_*.ps1"))


class Login(Value):
    user: str
    passwords: list[SecretStr]


LOGIN = Login(user="Zoë", passwords=[SecretStr("pärola")])


@pytest.mark.parametrize("name", TRANSPORT)
def test_a_host_understands_the_script(name: str) -> None:
    assert problems(script(name)) == []
    assert script(name).isascii()


@pytest.mark.parametrize("text", ["if ($true { 1 }", "@{ a = }", "$x = [", 'throw "no end', "& ("])
def test_the_parser_finds_what_is_wrong(text: str) -> None:
    assert "not PowerShell" in "\n".join(problems(text))


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("[!_]*.ps1")), ids=lambda path: path.stem)
def test_a_script_that_calls_a_wmi_method_tells_its_return_value_as_a_code(path: Path) -> None:
    text = path.read_text()
    assert text.count(".InvokeMethod(") == text.count(".Data['ErrorCode'] = [long] $answer.ReturnValue")


@pytest.mark.parametrize("name", ["_bootstrap", JOB])
def test_a_command_line_is_short_enough_for_cmd(name: str) -> None:
    """cmd.exe takes 8191 characters ("Command prompt line string limitation")."""
    assert len(powershell(name)) < 8191


@pytest.mark.parametrize("name", ["missing", "../call", "", "_bootstrap.ps1"])
def test_only_packaged_scripts_are_found(name: str) -> None:
    with pytest.raises(NotFound):
        script(name)


def test_a_call_carries_secrets_and_is_ascii() -> None:
    call = encode_call("_job_poll", LOGIN)
    assert call.isascii()
    assert call.count(b"\n") == 1
    assert decode_call(call).parameters == {"user": "Zoë", "passwords": ["pärola"]}
    assert secrets_in(LOGIN.model_dump()) == ["pärola"]


@pytest.mark.parametrize("field", ["format", "version", "script", "envelope", "text", "parameters", "sha256"])
def test_a_changed_call_is_refused(field: str) -> None:
    document = json.loads(encode_call("_job_poll", LOGIN))
    document[field] = "AAAA"
    with pytest.raises(Damaged):
        decode_call(json.dumps(document).encode())


def test_a_call_cut_anywhere_is_refused() -> None:
    call = encode_call("_job_poll", LOGIN).rstrip()
    for length in range(0, len(call), 97):
        with pytest.raises(Damaged):
            decode_call(call[:length])


def test_a_changed_or_cut_answer_is_refused() -> None:
    line = encode_answer(Answer(result={"name": "Zoë"}))
    assert line.isascii()
    assert decode_answer(line, "host").result == {"name": "Zoë"}
    for position in range(0, len(line), 7):
        with pytest.raises(Damaged, match="host"):
            decode_answer(line[:position] + "~" + line[position + 1 :], "host")
        with pytest.raises(Damaged, match="host"):
            decode_answer(line[:position], "host")


def test_the_error_stream_is_read_as_text() -> None:
    clixml = (
        '#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
        '<S S="Progress">x</S><S S="Error">It is &lt;wrong&gt;_x000D__x000A_</S>'
        '<S S="Error">+ here_x000D__x000A_</S></Objs>'
    )
    assert error_text(clixml.encode()) == "It is <wrong> + here"
    assert error_text(b"'powershell.exe' is not recognized\r\n") == "'powershell.exe' is not recognized"
    assert error_text(b"#< CLIXML\r\n<Objs") == "<Objs"
    assert error_text(b"") == ""
