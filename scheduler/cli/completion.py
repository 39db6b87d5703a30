"""`promptd completion`: with it a shell completes commands, job names, run ids and providers."""

import click
from click.shell_completion import ShellComplete, get_completion_class

_VARIABLE = "_PROMPTD_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the completion script of a shell.

    For bash: promptd completion bash > ~/.local/share/bash-completion/completions/promptd. For zsh: the
    file _promptd in a directory of $fpath. For fish: ~/.config/fish/completions/promptd.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    completes = kind(ctx.find_root().command, {}, "promptd", _VARIABLE)
    click.echo(ShellComplete.source(completes))
    return 0
