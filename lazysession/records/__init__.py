"""What the store holds: these files know neither request nor response, log nothing, and return what happened."""
