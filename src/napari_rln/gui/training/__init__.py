"""The dock that trains networks, and keeps models."""
