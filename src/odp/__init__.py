"""ODP: swap every transcendental operation of a network for a rational expression of known error."""

__version__ = "0.1.0"
