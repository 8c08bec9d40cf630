"""The dock that trains networks and manages models."""
