"""Tests of the page, through HTTP and in a browser."""
