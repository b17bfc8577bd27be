"""The command line; grows with the rooms."""


def main() -> None:
    """Run the `llmctl` command."""
