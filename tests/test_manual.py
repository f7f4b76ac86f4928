"""What `make manual` writes from the parser: man pages, completions, and a table in docs/operations.md."""

import os
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARE = ROOT / "share"
BASH = """
. "$1"; shift
complete -p wgdisco >/dev/null || exit 9
function=$(complete -p wgdisco | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
"$function" wgdisco "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def contents(directory: Path) -> dict[str, str]:
    return {str(file.relative_to(directory)): file.read_text() for file in directory.rglob("*") if file.is_file()}


def test_what_is_there_is_what_the_parser_says(tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/operations.md", tmp_path / "docs")
    subprocess.run([sys.executable, "scripts/manual", str(tmp_path)], cwd=ROOT, check=True)
    made, there = contents(tmp_path / "share"), contents(SHARE)
    stale = [name for name in sorted(made | there) if made.get(name) != there.get(name)]
    assert not stale, "run `make manual`"
    operations = [(root / "docs/operations.md").read_text() for root in (tmp_path, ROOT)]
    assert operations[0] == operations[1], "run `make manual`"


def test_mandoc_finds_nothing_wrong_with_the_pages():
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc")
    pages = sorted(map(str, (SHARE / "man/man1").iterdir()))
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def in_bash(*words: str) -> set[str]:
    command = ["bash", "--norc", "-c", BASH, "bash", str(SHARE / "bash-completion/completions/wgdisco"), *words]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_bash_completes_verbs_options_choices_and_interfaces():
    assert in_bash("wgdisco", "registry", "re") == {"rename", "revoke", "restore"}
    assert in_bash("wgdisco", "join", "--no-m") == {"--no-mdns"}
    assert in_bash("wgdisco", "join", "--engine", "u") == {"userspace"}
    assert in_bash("wgdisco", "registry", "list", "-o", "j") == {"json", "jsonl"}
    assert in_bash("wgdisco", "status", "l") == {"lo"}


def in_zsh(text: str, wanted: str) -> str:
    """What zsh shows after Tab, until it has shown `wanted` or 10 s have passed."""
    terminal, inner = os.openpty()
    environment = {**os.environ, "TERM": "dumb"}
    zsh = subprocess.Popen(
        ["zsh", "-fi"], stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True
    )
    os.close(inner)
    try:
        directory = SHARE / "zsh/site-functions"
        begin = (
            f"fpath=({directory} $fpath); autoload -Uz compinit; compinit -u -D; setopt list_ambiguous; print rea''dy\n"
        )
        os.write(terminal, begin.encode())
        until(terminal, "ready")
        os.write(terminal, f"{text}\t".encode())
        return until(terminal, wanted)
    finally:
        zsh.kill()
        zsh.wait()
        os.close(terminal)


def until(terminal: int, wanted: str) -> str:
    shown = ""
    while wanted not in shown and select.select([terminal], [], [], 10)[0]:
        shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(terminal, 4096).decode(errors="replace"))
    return shown


def test_zsh_completes_verbs_and_choices():
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh")
    assert "registry revoke" in in_zsh("wgdisco registry rev", "revoke")
    assert "--engine userspace" in in_zsh("wgdisco join --engine u", "userspace")


def test_fish_completes_verbs_and_choices():
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    script = f"source {SHARE}/fish/vendor_completions.d/wgdisco.fish; complete -C $argv[1]"
    for words, wanted in (
        ("wgdisco registry re", {"rename", "revoke", "restore"}),
        ("wgdisco join --engine u", {"userspace"}),
    ):
        done = subprocess.run(["fish", "-Nc", script, words], check=True, capture_output=True, text=True)
        assert {line.split("\t")[0] for line in done.stdout.splitlines()} == wanted
