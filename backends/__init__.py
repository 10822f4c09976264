"""The built-in adapters, one file for each store; installed as ``lazysession.backends``."""

if __name__ != "lazysession.backends":
    raise ImportError("This package is imported as lazysession.backends, not as " + __name__)
