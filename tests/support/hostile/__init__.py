"""What an attacker, or a damaged store, may send: cookies, stored payloads, and an app to send them to."""
