"""The command line: a client of the daemon, and what must work without one."""


def main() -> None:
    """Run the command that the process's arguments name; leaves by SystemExit with its exit code."""
    from modelgrid.cli.tree import root

    root(prog_name="modelgrid")
