"""The dock that shows layers laterally and axially."""
