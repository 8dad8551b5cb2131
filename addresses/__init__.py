"""Addresses of servers, databases and files: made from paths, and shown without their secrets."""
