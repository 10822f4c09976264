"""What ``LazySession(app)`` looks at before the first request: names and values of settings, and clients."""
