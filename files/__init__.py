"""Small files that the project writes for itself: whole or absent, and read without trust."""
