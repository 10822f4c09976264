"""What ``flask lazysession nginx`` prints: which static files a front server may send without the app."""
