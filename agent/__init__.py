"""vethd: networks every named network namespace of a host."""

__version__ = "0.1.0"
