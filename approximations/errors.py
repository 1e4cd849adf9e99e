"""The errors that ODP raises, all of them one clear line.

Every error says what went wrong, where (node, module path, option), and what to do about it.  The
command line prints the message alone and exits with code 2; a traceback means a bug in ODP.
"""

__all__ = ["ApproximationError", "OdpError"]


class OdpError(Exception):
    """Bad input or an impossible request; the message is one line meant for a person."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines to print: one, unless the error is a list of several things to put right."""
        return (str(self),)


class ApproximationError(OdpError):
    """No expression can be built for this function, domain and budget."""
