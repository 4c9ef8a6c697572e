"""The error that every room of ops/ raises."""


class OpsError(RuntimeError):
    """An error that the person at the command line can fix; its message is one line and says how."""
