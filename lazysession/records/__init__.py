"""What the store holds: these files know neither request nor response, and log only failures that they do not raise."""
