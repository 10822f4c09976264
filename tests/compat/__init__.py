"""What was there before the switch, and what runs next to it: Flask-Session, extensions, apps."""
