"""`promptd demo`: two loopback providers, a login that has expired, and a daemon that copes."""

import click

from scheduler.cli.context import Context, pass_context

# ruff: noqa: PLC0415 - the daemon is loaded when the demo begins


@click.command("demo")
@click.option("--once", is_flag=True, help="Stop after one run.")
@pass_context
def demo(context: Context, once: bool) -> int:
    """Show a scheduled run whose primary's login has expired, and the fallback that completes it.

    No key, no network, no configuration: everything listens on loopback and lives in a temporary directory.
    """
    from scheduler.demo import show

    return show(context.environ, once=once)
