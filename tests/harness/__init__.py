"""What the tests of several layers share, one noun a module. The layers hold tests, and what one layer alone needs."""
