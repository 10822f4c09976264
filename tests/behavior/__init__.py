"""What an app and its visitors see."""
