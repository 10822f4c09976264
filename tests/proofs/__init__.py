"""What takes long: races, faults and random programs, with every server."""
