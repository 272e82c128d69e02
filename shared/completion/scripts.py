"""Completion scripts of bash, zsh and fish. They hold all words, so that a TAB starts no Python."""

import shlex
from collections.abc import Iterable, Sequence

from shared.completion.words import Known, Value

BASH = """\
# bash completion of emit: emit completion bash > ~/.local/share/bash-completion/completions/emit
_emit() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= words= arguments= paths= word
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ $word != -* ]]; then command=$word; break; fi
    done
    COMPREPLY=()
    case $command in
@COMMANDS@
    esac
    case "$command $prev" in
@VALUES@
        *)
            if [[ $cur == -* ]]; then paths=; else words=$arguments; fi
            ;;
    esac
    compopt +o default 2>/dev/null
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$words" -- "$cur")
    if [[ -n $paths ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$cur")
    fi
}
complete -o default -F _emit emit
"""

ZSH = """\
#compdef emit
# zsh completion of emit: emit completion zsh > ~/.zfunc/_emit, with fpath+=~/.zfunc before compinit in ~/.zshrc
_emit() {
    local previous=$words[CURRENT-1] command= word
    local -a options
    for word in $words[2,CURRENT-1]; do
        if [[ $word != -* ]]; then command=$word; break; fi
    done
    if [[ $PREFIX == --*=* ]]; then previous=${PREFIX%%=*}; compset -P '*='; fi
    case "$command $previous" in
@VALUES@
    esac
    case $command in
@COMMANDS@
    esac
}
if [[ $funcstack[1] == _emit ]]; then _emit "$@"; else compdef _emit emit; fi
"""


def script(shell: str, commands: Sequence[Known]) -> str:
    """The completion script of a shell: "bash", "zsh" or "fish"."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


def _bash(commands: Sequence[Known]) -> str:
    parts = [("''", commands_before(commands), Value(tuple(command.name for command in commands)))]
    parts += [(command.name, tuple(command.options), command.arguments) for command in commands]
    cases = [
        f"        {name}) words={_joined(options)} arguments={_joined(value.words)} paths={'1' * value.paths} ;;"
        for name, options, value in parts
    ]
    values = [
        f"        {patterns}) words={_joined(value.words)} paths={'1' * value.paths} ;;"
        for value, patterns in _by_value(commands)
    ]
    return BASH.replace("@COMMANDS@", "\n".join(cases)).replace("@VALUES@", "\n".join(values))


def commands_before(commands: Sequence[Known]) -> tuple[str, ...]:
    """The options that may stand before a command: those that every command takes."""
    shared = [set(command.options) for command in commands if command.options]
    return tuple(sorted(set.intersection(*shared) - {"--config"}))


def _by_value(commands: Sequence[Known]) -> Iterable[tuple[Value, str]]:
    """[(value, shell pattern of "COMMAND --option")], one for each kind of value."""
    found: dict[Value, list[str]] = {}
    for command in commands:
        for option, value in command.values.items():
            found.setdefault(value, []).append(f'"{command.name} {option}"')
    return [(value, "|".join(patterns)) for value, patterns in found.items()]


def _joined(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _zsh(commands: Sequence[Known]) -> str:
    def offer(value: Value) -> str:
        parts = [f"compadd -- {' '.join(map(shlex.quote, value.words))}"] if value.words else []
        return "; ".join([*parts, *(["_files"] if value.paths else [])]) or "_message value"

    def described(words: Iterable[tuple[str, str]]) -> str:
        return " ".join(shlex.quote(f"{word}:{text}") for word, text in words)

    values = [f"        {patterns}) {offer(value)}; return ;;" for value, patterns in _by_value(commands)]
    names = described((command.name, command.summary) for command in commands)
    cases = [f"        '') options=({names}); _describe command options ;;"]
    for command in commands:
        options = f"options=({described(command.options.items())}); _describe -o option options"
        arguments = offer(command.arguments)
        cases.append(f"        {command.name}) if [[ $PREFIX == -* ]]; then {options}; else {arguments}; fi ;;")
    return ZSH.replace("@COMMANDS@", "\n".join(cases)).replace("@VALUES@", "\n".join(values))


def _fish(commands: Sequence[Known]) -> str:
    lines = ["# fish completion of emit: emit completion fish > ~/.config/fish/completions/emit.fish"]
    lines.append("complete -c emit -f")
    for command in commands:
        lines.append(f"complete -c emit -n __fish_use_subcommand -a {command.name} -d {_fish_text(command.summary)}")
        here = f"complete -c emit -n '__fish_seen_subcommand_from {command.name}'"
        if command.arguments.words:
            lines.append(f"{here} -a {_fish_text(' '.join(command.arguments.words))}")
        if command.arguments.paths:
            lines.append(f"{here} -F")
        for option, text in command.options.items():
            value = command.values.get(option)
            takes = "" if value is None else " -r -F" if value.paths else " -x"
            words = f" -a {_fish_text(' '.join(value.words))}" if value and value.words else ""
            lines.append(f"{here} -l {option.removeprefix('--')}{takes}{words} -d {_fish_text(text)}")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
