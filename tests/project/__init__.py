"""The repository itself: its documentation, its layout and its measurements."""
