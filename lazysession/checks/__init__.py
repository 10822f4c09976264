"""What ``flask lazysession check`` finds without asking the store."""
